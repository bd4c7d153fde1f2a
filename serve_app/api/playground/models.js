// Which models there are; every list of them on the page.

let models = [];

const PICKERS = {
  "similarity-model": (model) => model.serves.includes("embed"),
  "rerank-model": (model) => model.serves.includes("rerank"),
  "base-model": (model) => model.serves.includes("embed") && (!model.base || model.kind === "full"),
};

async function loadModels() {
  models = (await ask("models")).models;
  for (const [id, fits] of Object.entries(PICKERS)) fill(byId(id), models.filter(fits));
}

function fill(picker, choices) {
  const wanted = picker.value;
  const option = (model) => el("option", { value: model.name }, model.name);
  const tuned = choices.filter((model) => model.base).map(option);
  picker.replaceChildren(...choices.filter((model) => !model.base).map(option));
  if (tuned.length) picker.append(el("optgroup", { label: "Fine-tunes" }, ...tuned));
  if (choices.some((model) => model.name === wanted)) picker.value = wanted;
  picker.disabled = !choices.length;
}

/** How many of what, and by which model if that is known. */
const counted = (what, model) => [what, model].filter(Boolean).join(", ");

const modelNamed = (name) => models.find((model) => model.name === name);

/** The field of a request; left out while the list is unknown, then the service takes its default. */
const modelField = (picker, field = "model") => (picker.value ? { [field]: picker.value } : {});
