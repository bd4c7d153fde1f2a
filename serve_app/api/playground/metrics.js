// Retrieval on the held-out pairs, before and after.

const MEASURES = { "ndcg@10": "nDCG@10", "recall@1": "Recall@1", "recall@10": "Recall@10", "mrr@10": "MRR@10",
  "sparse_ndcg@10": "nDCG@10, sparse", "colbert_ndcg@10": "nDCG@10, ColBERT" };
const FEW_QUERIES = 30; // below it a single query moves the numbers by more than most fine-tunes do

function metricsTable({ metrics_before: before, metrics_after: after }) {
  if (!before) return [];
  const shown = Object.keys(before).filter((name) => name in MEASURES || /^[^_]+@/.test(name));
  const rows = shown.map((name) => metricRow(name, before[name], after?.[name]));
  const size = `On ${before.queries} held-out queries among ${before.documents} passages.`;
  const doubt = before.queries < FEW_QUERIES ? " So few queries show that it works, not how well." : "";
  return [table("metrics", ["measure", "before", "after", "change"], rows), hint(size + doubt)];
}

function metricRow(name, before, after) {
  const change = after === undefined ? undefined : after - before;
  const mood = change > 0 ? "better" : change < 0 ? "worse" : undefined;
  const cells = [before.toFixed(3), after === undefined ? "…" : after.toFixed(3)].map((text) => el("td", {}, text));
  cells.push(el("td", { class: mood }, change === undefined ? "" : signed(change)));
  return el("tr", {}, el("th", { scope: "row" }, MEASURES[name] ?? name), ...cells);
}

const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(3);
