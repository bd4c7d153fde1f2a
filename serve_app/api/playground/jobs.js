// The latest jobs, so that a page that was reloaded finds the running one.

const SHOWN = 8;

async function loadJobs() {
  const { jobs } = await ask(`jobs?limit=${SHOWN}`);
  byId("jobs").replaceChildren(...jobs.map(jobLine));
  byId("jobs-title").hidden = !jobs.length;
  return jobs;
}

function jobLine(job) {
  const when = new Date(job.created_at * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  const button = el("button", { type: "button", class: "job-line", click: () => watch(job.job_id) });
  button.append(span(job.model_name), pill(job.status), el("time", {}, when));
  return el("li", {}, button);
}

/** The running job, or the latest one; the first time that the tab is opened. */
async function openJobs() {
  if (byId("job").dataset.job) return;
  try {
    const jobs = await loadJobs();
    const first = jobs.find((job) => !hasEnded(job)) ?? jobs[0];
    if (first && !byId("job").dataset.job) watch(first.job_id);
  } catch (error) {
    showError(tuneForm, error);
  }
}
