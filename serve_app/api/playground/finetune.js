// Orders a fine-tune; job.js shows what becomes of it.

const tuneForm = byId("tune-form");
const ROUTES = {
  full: ["fine-tune", {}],
  lora: ["fine-tune-lora", { use_qlora: false }],
  qlora: ["fine-tune-lora", { use_qlora: true }],
};

function tuneRequest() {
  const { text_content, model_name, kind } = tuneForm.elements;
  const [path, more] = ROUTES[kind.value];
  const body = { model_name: model_name.value.trim(), ...modelField(byId("base-model"), "base_model"), ...more };
  return [path, { ...body, ...number("epochs"), ...number("batch_size"), text_content: text_content.value }];
}

/** A field that holds a number; left out while it is empty, then the service takes its default. */
function number(name) {
  const { value } = tuneForm.elements[name];
  return value === "" ? {} : { [name]: Number(value) };
}

async function order() {
  const accepted = await ask(...tuneRequest());
  showAccepted(accepted);
  watch(accepted.job_id);
}

function showAccepted({ accepted, ignored, ignored_lines: lines }) {
  const box = byId("tune-accepted");
  const left = ignored ? `, ${ignored} ${ignored === 1 ? "line was" : "lines were"} ignored:` : ".";
  box.replaceChildren(el("p", {}, `${accepted} pairs are used${left}`));
  if (ignored) box.append(el("ul", {}, ...lines.map(({ line, reason }) => el("li", {}, `line ${line}: ${reason}`))));
  if (ignored > lines.length) box.append(el("p", {}, `and ${ignored - lines.length} more.`));
  box.hidden = false;
}

byId("example-pairs").addEventListener("click", () => {
  const { text_content, epochs, batch_size } = tuneForm.elements;
  text_content.value = EXAMPLE_TEXT;
  epochs.value = 10; // fifty pairs are but a few steps an epoch
  batch_size.value = 8;
  text_content.dispatchEvent(new Event("input", { bubbles: true }));
});

onSubmit(tuneForm, () => {
  byId("tune-accepted").hidden = true;
  return order();
});
offerCommand(tuneForm, tuneRequest);
