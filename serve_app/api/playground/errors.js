// What went wrong, where the user looks: below the form, with the field's name, and the field marked.

const FIELD = /(^|; )([a-z_]+)((?:\[\d+\]|\.\w+)*): /g;

/** Shows an error in a form's box; fields are found by their names. */
function showError(form, error) {
  const box = form.querySelector(".error");
  if (!(error instanceof Refusal)) error = new Refusal(0, { detail: String(error), code: "a fault of this page" });
  const title = [error.status || "", error.code.replaceAll("_", " ")].join(" ").trim();
  box.replaceChildren(el("strong", {}, title), el("span", {}, ...withFields(form, error.message)));
  if (error.retryAfter) box.append(span(`Come back in ${error.retryAfter} s.`));
  if (error.errorId) box.append(el("span", {}, "The log has more under ", el("code", {}, error.errorId)));
  box.hidden = false;
}

function clearError(form) {
  form.querySelector(".error").hidden = true;
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

/** A message in pieces, field names set as code; those that the form has are marked. */
function withFields(form, message) {
  const pieces = [];
  let end = 0;
  for (const match of message.matchAll(FIELD)) {
    pieces.push(message.slice(end, match.index) + match[1], el("code", {}, match[2] + match[3]), ": ");
    end = match.index + match[0].length;
    form.elements[match[2]]?.setAttribute?.("aria-invalid", "true");
  }
  return [...pieces, message.slice(end)];
}

/** Runs a form's work when it is submitted, once at a time; Ctrl+Enter submits, too. */
function onSubmit(form, work) {
  const button = form.querySelector("[type=submit]");
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-busy") === "true") return;
    clearError(form);
    button.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      showError(form, error);
    } finally {
      button.setAttribute("aria-busy", "false");
    }
  });
}

/** Words for the texts that were cut to the model's limit, from a reply's headers. */
function truncation(reply) {
  const count = Number(reply.headers.get("X-Truncated-Count") ?? 0);
  return count ? ` ${count === 1 ? "One text was" : `${count} texts were`} cut to the model’s limit.` : "";
}
