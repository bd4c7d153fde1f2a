// Texts against each other: a table of cosines, coloured.

const MOST = 40; // a larger table can not be read
const similarityForm = byId("similarity-form");

function similarityRequest() {
  const { items, role } = similarityForm.elements;
  const body = { items: linesOf(items), is_query: role.value === "query", ...modelField(byId("similarity-model")) };
  return ["vectorize-batch", body];
}

async function compare() {
  const [path, body] = similarityRequest();
  if (body.items.length < 2) refuse("items: write two texts at least, one a line");
  if (body.items.length > MOST) refuse(`items: at most ${MOST} texts are shown here`);
  const reply = await send(path, body);
  const { vectors } = await reply.json();
  const cosines = vectors.map((a) => vectors.map((b) => a.reduce((sum, x, i) => sum + x * b[i], 0)));
  const range = rangeOf(cosines);
  byId("similarity-said").textContent = verdict(body, cosines) + truncation(reply);
  byId("similarity-result").replaceChildren(scrolling(heatMap(body.items, cosines, range)), legend(range));
}

/** Least and largest cosine of two different texts. */
function rangeOf(cosines) {
  const others = cosines.flatMap((row, i) => row.filter((_, j) => i !== j));
  return [Math.min(...others), Math.max(...others)];
}

function verdict({ items, model }, cosines) {
  let best = [0, 1];
  cosines.forEach((row, i) => row.forEach((value, j) => i < j && value > cosines[best[0]][best[1]] && (best = [i, j])));
  const [first, second] = best.map((i) => `“${clip(items[i], 30)}”`);
  const value = cosines[best[0]][best[1]].toFixed(3);
  return `${counted(`${items.length} texts`, model)}. Closest: ${first} and ${second}, ${value}.`;
}

const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1).trimEnd()}…` : text);

function heatMap(texts, cosines, range) {
  const head = (text, scope) => el("th", { scope, title: text }, span(text));
  const columns = el("tr", {}, el("td"), ...texts.map((text) => head(text, "col")));
  const rows = cosines.map((row, i) => {
    const cells = row.map((value, j) => cell(texts, i, j, value, range));
    return el("tr", {}, head(texts[i], "row"), ...cells);
  });
  const caption = el("caption", { class: "hidden" }, "Cosine of each text with each other");
  return el("table", { class: "heat" }, caption, el("thead", {}, columns), el("tbody", {}, ...rows));
}

function cell(texts, i, j, value, [least, most]) {
  const title = `${value.toFixed(4)}\n${texts[i]}\n${texts[j]}`;
  const node = el("td", { title, class: i === j ? "self" : undefined }, value.toFixed(2));
  return share(node, "--share", most > least ? (value - least) / (most - least) : 0.5);
}

const scrolling = (content) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Cosines" }, content);

const legend = ([least, most]) =>
  el("p", { class: "legend" }, span(least.toFixed(2)), el("i"), span(most.toFixed(2)), span("cosine"));

onSubmit(similarityForm, compare);
offerCommand(similarityForm, similarityRequest);

/** Shows what a new model makes of the texts. */
function tryModel(name) {
  byId("similarity-model").value = name;
  showTab("similarity");
  byId("similarity-model").focus();
  similarityForm.requestSubmit();
}
