// How the page speaks to the service it came from. The key stays in this tab.

const BASE = location.pathname.replace(/\/*$/, "/");
const KEY = "retrieval-api-key";
let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // storage is blocked: the key lives as long as the page
  }
}

function useKey(value) {
  key = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // see above
  }
}

/** An answer that is not 2xx, or none at all (status 0). */
class Refusal extends Error {
  constructor(status, body, headers) {
    super(body.detail ?? body.error ?? `the service answered with the status ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.errorId = body.error_id;
    this.retryAfter = headers?.get("Retry-After");
  }
}

/** Refuses what would be of no use to send. */
function refuse(detail) {
  throw new Refusal(0, { detail, code: "not sent" });
}

/** GETs a path, or POSTs a body to it; gives the response, or throws a Refusal. */
async function send(path, body, { method = body === undefined ? "GET" : "POST", headers = {}, signal } = {}) {
  const all = { ...headers, ...(key && { Authorization: `Bearer ${key}` }) };
  if (body !== undefined) all["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(BASE + path, { method, headers: all, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { detail: "the service can not be reached; is it still running?", code: "no answer" });
  }
  if (reply.ok) return reply;
  if (reply.status === 401 || reply.status === 403) askForKey();
  throw new Refusal(reply.status, await reply.json().catch(() => ({})), reply.headers);
}

/** The same, and the reply's JSON. */
const ask = async (path, body, options) => (await send(path, body, options)).json();

function askForKey() {
  byId("key-form").hidden = false;
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  byId("key").value = "";
  byId("key-form").hidden = true;
  document.dispatchEvent(new Event("key"));
});
