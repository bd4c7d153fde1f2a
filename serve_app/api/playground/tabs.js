// The three tabs, with the arrow keys; the address remembers which one is open. Then the page starts.

const TABS = [...document.querySelectorAll("[role=tab]")];

function showTab(name) {
  for (const tab of TABS) {
    const open = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(open));
    tab.tabIndex = open ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !open;
  }
  history.replaceState(null, "", `#${name}`);
  if (name === "fine-tune") openJobs();
}

const nameOf = (tab) => tab.id.replace("tab-", "");

TABS.forEach((tab, i) => {
  tab.addEventListener("click", () => showTab(nameOf(tab)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = TABS[(i + step + TABS.length) % TABS.length];
    showTab(nameOf(next));
    next.focus();
  });
});

async function start() {
  const opened = TABS.map(nameOf).find((name) => location.hash === `#${name}`) ?? "similarity";
  showTab(opened);
  try {
    await loadModels();
  } catch (error) {
    showError(similarityForm, error);
  }
}

document.addEventListener("key", () => {
  for (const form of document.querySelectorAll("main form")) clearError(form);
  start();
});

start();
