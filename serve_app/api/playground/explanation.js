// Why a candidate has its score: each token of the query beside the candidate's token that matches it best.

function explanation({ candidate_tokens: tokens, matches, score }) {
  const strip = el("p", { class: "tokens" }, ...tokens.map((token, i) => candidateToken(token, i, matches)));
  const rows = matches.map((match) => matchRow(match, strip));
  const mean = `The score, ${score.toFixed(3)}, is the mean of the similarities.`;
  return [strip, table("matches", ["query token", "best match", "similarity"], rows), hint(mean)];
}

/** A token of the candidate; the better it matches some token of the query, the stronger its mark. */
function candidateToken(token, index, matches) {
  const found = matches.filter((match) => match.candidate_index === index).map((match) => match.similarity);
  if (!found.length) return span(token);
  const best = Math.max(...found);
  return share(el("mark", { title: best.toFixed(3) }, token), "--share", best);
}

/** One match; to point at it, or to reach it with the keyboard, shows its token in the candidate. */
function matchRow(match, strip) {
  const point = (on) => () => strip.children[match.candidate_index].classList.toggle("pointed", on);
  return el(
    "tr",
    { tabindex: "0", mouseenter: point(true), mouseleave: point(false), focus: point(true), blur: point(false) },
    el("th", { scope: "row" }, el("code", {}, match.query_token.trim())),
    el("td", {}, el("code", {}, match.candidate_token.trim())),
    el("td", {}, span(match.similarity.toFixed(3), "score"), bar(match.similarity)),
  );
}
