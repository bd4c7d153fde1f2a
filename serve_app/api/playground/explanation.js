// Why a candidate has its score: each token of the query beside the candidate's token that matches it best.

function explanation({ candidate_tokens: tokens, matches, score }) {
  const strip = el("p", { class: "tokens" }, ...tokens.map((token, i) => candidateToken(token, i, matches)));
  const rows = matches.map((match) => matchRow(match, strip));
  const head = ["query token", "best match", "similarity"].map((name) => el("th", { scope: "col" }, name));
  const mean = `The score, ${score.toFixed(3)}, is the mean of the similarities.`;
  return [strip, el("table", { class: "matches" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)), el("p", { class: "hint" }, mean)];
}

/** A token of the candidate; the better it matches some token of the query, the stronger its mark. */
function candidateToken(token, index, matches) {
  const best = Math.max(0, ...matches.filter((match) => match.candidate_index === index).map((match) => match.similarity));
  if (!best) return el("span", {}, token);
  return share(el("mark", { title: `${best.toFixed(3)}` }, token), "--share", best);
}

/** One match; to point at it, or to reach it with the keyboard, shows its token in the candidate. */
function matchRow(match, strip) {
  const point = (on) => () => strip.children[match.candidate_index].classList.toggle("pointed", on);
  return el(
    "tr",
    { tabindex: "0", mouseenter: point(true), mouseleave: point(false), focus: point(true), blur: point(false) },
    el("th", { scope: "row" }, el("code", {}, match.query_token.trim())),
    el("td", {}, el("code", {}, match.candidate_token.trim())),
    el("td", {}, el("span", { class: "score" }, match.similarity.toFixed(3)), share(el("i", { class: "bar" }), "--share", match.similarity)),
  );
}
