// The request that a form would send, as a command to take away.

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function curlOf(path, body) {
  const header = key ? " \\\n  -H 'Authorization: Bearer KEY'" : ""; // never the key itself
  const data = quoted(JSON.stringify(body));
  return `curl ${location.origin}${BASE}${path} -H 'Content-Type: application/json'${header} \\\n  -d ${data}`;
}

/** Keeps a form's "as curl" up to date; request() gives path and body. */
function offerCommand(form, request) {
  const code = el("code");
  const button = el("button", { type: "button", class: "quiet", click: () => copy(code, button) }, "Copy");
  const shown = el("pre", { tabindex: "0" }, code);
  const details = el("details", { class: "curl" }, el("summary", {}, "as curl"), shown, button);
  const update = () => details.open && code.replaceChildren(curlOf(...request()));
  details.addEventListener("toggle", update);
  form.addEventListener("input", update);
  form.append(details);
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code); // no clipboard without TLS
    button.textContent = "Selected: press Ctrl+C";
  }
  await sleep(2000);
  button.textContent = "Copy";
}
