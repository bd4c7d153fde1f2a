// One job, live: how far it is, its loss, what it was worth.

let watching = new AbortController();

async function watch(jobId) {
  watching.abort();
  const { signal } = (watching = new AbortController());
  const view = jobView(jobId);
  const losses = new Map(); // by step: a resumed job takes some again
  try {
    for await (const { event, data } of jobEvents(jobId, signal)) {
      if (event === "event") addEntry(view, data);
      else if (event === "job") await showJob(view, data, losses);
    }
  } catch (error) {
    if (!signal.aborted) showError(tuneForm, error);
  }
}

/** The parts that change while a job goes on; they stay where they are. */
function jobView(jobId) {
  const part = (tag, name) => el(tag, { class: name });
  const view = {
    title: el("h3"),
    bar: el("progress", { max: 100, value: 0, "aria-label": "Progress" }),
    message: part("p", "message"),
    facts: part("p", "hint"),
    curve: part("div", "frame"),
    metrics: el("div"),
    actions: part("p", "actions"),
    diary: part("ol", "diary"),
  };
  const { diary, ...above } = view;
  byId("job").dataset.job = jobId;
  byId("job").replaceChildren(...Object.values(above), el("details", {}, el("summary", {}, "What happened"), diary));
  return view;
}

function addEntry({ diary }, { time, level, message }) {
  const clock = new Date(time * 1000).toLocaleTimeString();
  diary.append(el("li", { class: `level-${level}` }, el("time", {}, clock), span(message)));
  announce(message);
}

async function showJob(view, job, losses) {
  if (job.loss !== null && job.steps) losses.set(job.steps, job.loss);
  view.title.replaceChildren(job.model_name, pill(job.status));
  view.bar.value = job.progress;
  view.message.textContent = job.status === "pending" ? (job.pending_reason ?? job.message) : job.message;
  view.facts.textContent = facts(job);
  view.metrics.replaceChildren(...metricsTable(job));
  if (view.status !== job.status) {
    view.status = job.status;
    view.actions.replaceChildren(...actions(job));
    loadJobs().catch(() => {}); // else the list stays as it was
  }
  view.curve.replaceChildren(await curveOf(job, [...losses]));
  if (hasEnded(job)) ended(job);
}

const pill = (status) => span(status, `pill ${status}`);

function facts(job) {
  const known = [
    `${{ full: "all weights", lora: "LoRA", qlora: "Q-LoRA" }[job.kind]} of ${job.base_model}`,
    job.total_steps && `step ${job.steps} of ${job.total_steps}`,
    job.train_pairs && `${job.train_pairs} pairs trained on, ${job.eval_pairs} held out`,
    job.seconds_left && !hasEnded(job) && `${Math.ceil(job.seconds_left)} s left`,
    job.attempts > 1 && `attempt ${job.attempts}`,
  ];
  return known.filter(Boolean).join(" · ");
}

/** Drawn from what was seen live; of a job that had ended before, the service's own picture. */
async function curveOf(job, points) {
  if (!hasEnded(job) || points.length > 1) return lossCurve(points.sort(([a], [b]) => a - b), job.total_steps);
  try {
    const picture = URL.createObjectURL(await (await send(`jobs/${job.job_id}/loss.svg`)).blob());
    const free = () => URL.revokeObjectURL(picture);
    return el("img", { src: picture, alt: "Loss by step", width: 640, height: 320, load: free, error: free });
  } catch {
    return el("p", { class: "empty" }, "No loss was recorded.");
  }
}

function actions(job) {
  const safely = (act) => () => act().catch((error) => showError(tuneForm, error));
  const button = (text, act) => el("button", { type: "button", class: "quiet", click: safely(act) }, text);
  if (!hasEnded(job)) return [button("Cancel", () => ask(`jobs/${job.job_id}/cancel`, {}))];
  return job.status === "completed" ? [button("Try it", () => loadModels().then(() => tryModel(job.model_name)))] : [];
}

function ended(job) {
  announce(job.message);
  loadModels().catch(() => {});
}
