// Candidates sorted by their score for a query.

const rerankForm = byId("rerank-form");

function rerankRequest() {
  const { query, candidates } = rerankForm.elements;
  return ["rerank", { query: query.value, candidates: linesOf(candidates), ...modelField(byId("rerank-model")) }];
}

async function rerank() {
  const [path, body] = rerankRequest();
  if (!body.candidates.length) refuse("candidates: write one at least, one a line");
  const reply = await send(path, body);
  const { scores } = await reply.json();
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  const explains = modelNamed(body.model)?.capabilities.includes("colbert") ?? true;
  const list = el("ol", { class: "ranks" }, ...order.map((i) => rank(body, body.candidates[i], scores[i], explains)));
  byId("rerank-said").textContent = `${counted(`${order.length} candidates`, body.model)}.${truncation(reply)}`;
  byId("rerank-result").replaceChildren(hint(explains ? EXPLAINS : READS_TOGETHER), list);
}

const EXPLAINS = "Choose a candidate to see where its score comes from.";
const READS_TOGETHER =
  "This model is a cross-encoder: it reads query and candidate together and gives a probability. " +
  "There are no matches of tokens to show.";

function rank({ query, model }, text, score, explains) {
  const content = [span(score.toFixed(3), "score"), bar(score), span(text, "text")];
  if (!explains) return el("li", {}, el("div", { class: "rank" }, ...content));
  const panel = el("div", { class: "explanation", hidden: true });
  const button = el("button", { type: "button", class: "rank", "aria-expanded": "false" }, ...content);
  button.addEventListener("click", () => toggle(button, panel, { query, candidate: text, ...(model && { model }) }));
  return el("li", {}, button, panel);
}

async function toggle(button, panel, request) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  panel.hidden = !open;
  if (!open || panel.hasChildNodes()) return;
  panel.append(hint("Asking…"));
  try {
    const found = await ask("rerank/explain", request);
    panel.replaceChildren(...explanation(found));
    announce(`${found.matches.length} tokens of the query explain the score ${found.score.toFixed(3)}.`);
  } catch (error) {
    panel.replaceChildren(); // so that the next click asks again
    panel.hidden = true;
    button.setAttribute("aria-expanded", "false");
    showError(rerankForm, error);
  }
}

onSubmit(rerankForm, rerank);
offerCommand(rerankForm, rerankRequest);
