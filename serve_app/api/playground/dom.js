// Tools to build the page with. Text goes in as text nodes and attributes: markup is never parsed.

const byId = (id) => document.getElementById(id);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined));
  return node;
}

const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const span = (text, name) => el("span", { class: name }, text);
const hint = (text) => el("p", { class: "hint" }, text);

/** A table of rows below the names of its columns. */
function table(name, columns, rows) {
  const head = columns.map((column) => el("th", { scope: "col" }, column));
  return el("table", { class: name }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
}

/** A number from 0 to 1 as a bar. */
const bar = (value) => share(el("i", { class: "bar" }), "--share", value);

/** Sets a custom property, which the style sheet turns into a colour or a width; 0 to 1. */
function share(node, name, value) {
  node.style.setProperty(name, Math.min(1, Math.max(0, value)).toFixed(4));
  return node;
}

/** The lines of a text area that are not blank. */
const linesOf = (area) => area.value.split("\n").map((line) => line.trim()).filter(Boolean);

/** Says something to those who can not see what has changed. */
function announce(message) {
  byId("announced").textContent = message;
}

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
