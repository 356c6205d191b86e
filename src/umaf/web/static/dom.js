// Small parts of every page: making elements, asking the server, numbers as text.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return filled(element, attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return filled(element, attributes, children);
}

// Children become text nodes, never markup: a model's name may hold anything.
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" && "value" in element) element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export class Fault extends Error {}

export async function ask(path, body) {
  const how = body === undefined
    ? {}
    : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, how);
  } catch {
    throw new Fault("The server cannot be reached; see whether umaf web still runs.");
  }
  let found = null;
  try {
    found = await answer.json();
  } catch {
    throw new Fault(`The server answered with ${answer.status} and no JSON; reload the page.`);
  }
  if (!answer.ok) throw new Fault(found?.error?.message ?? `The server answered with ${answer.status}.`);
  return found;
}

export function fault(problem) {
  return h("p", { class: "fault", role: "alert" }, h("b", {}, "This did not work."), problem.message ?? String(problem));
}

export function say(text) {
  document.getElementById("said").textContent = text;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en").replaceAll(",", "\u202f");
  return Math.abs(value) >= 1e-3 || value === 0 ? value.toFixed(digits) : value.toExponential(1);
}

// A share or a similarity, which JSON may hold as a whole number.
export function fixed(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−");
}

export function ago(seconds) {
  const gone = Date.now() / 1000 - seconds;
  for (const [size, word] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    const count = Math.floor(gone / size);
    if (count >= 1) return `${count} ${word}${count > 1 ? "s" : ""} ago`;
  }
  return "now";
}

export function field(label, control, note) {
  return h("label", {}, label, note ? h("small", {}, note) : null, control);
}

export function select(options, value, attributes = {}) {
  return h("select", attributes, options.map(([key, text]) =>
    h("option", { value: key, selected: key === value }, text)));
}

// A table that becomes a list of cards on a phone; cells are texts, numbers or elements.
export function table(caption, columns, rows) {
  return h("div", { class: "table" }, h("table", {},
    h("caption", { class: caption ? null : "out-of-sight" }, caption || "results"),
    h("thead", {}, h("tr", {}, columns.map((column) =>
      h("th", { scope: "col", class: column.number ? null : "words" }, column.name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, at) => at === 0
      ? h("th", { scope: "row" }, cell)
      : h("td", { class: columns[at].number ? null : "words", "data-label": columns[at].name },
        h("div", {}, h("span", { class: "value" }, cell)))))))));
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
