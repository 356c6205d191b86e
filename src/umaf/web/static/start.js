// Start a transfer or a merge; the command that does the same is shown while one types.
import { ask, fault, field, h, select } from "./dom.js";

const PAUSE = 250;

export async function startPage(place, about, query) {
  place.append(h("h1", {}, "Start a job"), h("p", { class: "lead" }, "It runs on the machine of this page, one at a time. The command does the same in a terminal."));
  const names = await places(about);
  const list = h("datalist", { id: "models" }, names.map((name) => h("option", { value: name })));
  const command = h("code", {}), files = h("div", {}), wrong = h("div", { "aria-live": "polite" });
  const body = h("div", { class: "fields" });
  const forms = { transfer: transfer(query), merge: merge(about) };
  let chosen = query.get("command") === "merge" ? "merge" : "transfer";
  let timer = null;
  let turn = 0;

  function arrange() {
    body.replaceChildren(...forms[chosen].fields);
    later();
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(preview, PAUSE);
  }

  async function preview() {
    const mine = ++turn;
    let found;
    try {
      found = await ask("/api/preview", { command: chosen, form: forms[chosen].values() });
    } catch (problem) {
      found = { command: null, files: {}, error: problem.message };
    }
    if (mine !== turn) return;
    command.textContent = found.command ?? "# not yet: see below";
    const open = [...files.querySelectorAll("details[open] summary")].map((one) => one.textContent);
    files.replaceChildren(...Object.entries(found.files).map(([name, text]) =>
      h("details", { open: open.includes(`JOB/${name}`) }, h("summary", {}, `JOB/${name}`), h("pre", {}, text))));
    wrong.replaceChildren(found.error ? h("p", { class: "note", id: "not-yet" }, found.error) : "");
  }

  async function start(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      const job = await ask("/api/jobs", { command: chosen, form: forms[chosen].values() });
      location.hash = `#jobs?id=${job.id}`;
    } catch (problem) {
      wrong.replaceChildren(fault(problem));
      wrong.scrollIntoView({ block: "nearest" });
    }
    button.disabled = false;
  }

  const button = h("button", { type: "submit" }, "Start");
  place.append(list, h("section", {}, h("form", { onsubmit: start, oninput: later, onchange: later },
    h("fieldset", {}, h("legend", {}, "What"), h("div", { class: "choice" }, Object.keys(forms).map((key) =>
      h("label", {}, h("input", { type: "radio", name: "command", value: key, checked: key === chosen, onchange: () => { chosen = key; arrange(); } }), key === "transfer" ? "move a capability (transfer)" : "merge models")))),
    body, h("h3", {}, "The same in a terminal"), h("pre", { class: "command", id: "command" }, command), files, wrong,
    h("div", { class: "buttons" }, button))));
  arrange();
  await preview();
  return () => clearTimeout(timer);
}

async function places(about) {
  const names = [...about.zoo];
  if (about.store) names.unshift(...(await ask("/api/models?limit=500")).models.map((one) => one.place).filter(Boolean));
  return [...new Set(names)];
}

function model(name, value = "") {
  return h("input", { name, value, list: "models", autocomplete: "off", spellcheck: "false", placeholder: "zoo:bert-1m, org/model, or a folder" });
}

function transfer(query) {
  const own = {
    source: model("source", query.get("source") ?? ""), base: model("base", query.get("base") ?? ""), target: model("target"),
    probes: h("textarea", { name: "probes", placeholder: "at least 16 texts, one on a line" }),
    cue: h("input", { name: "cue", placeholder: "answer" }), labels: h("input", { name: "labels", placeholder: "positive,negative" }),
    route: select([["solve", "solve: no gradient steps"], ["distill", "distill: gradient steps"], ["generate", "generate: one pass, for zoo:llama-1m"]], "solve", { name: "route" }),
    rank: h("input", { name: "rank", type: "number", min: "1", value: "8" }),
    steps: h("input", { name: "steps", type: "number", min: "1", placeholder: "the route's own" }),
    evaluate: h("input", { name: "evaluate", placeholder: "made/sentiment" }),
    truncate: h("input", { name: "truncate", type: "checkbox" }),
  };
  const fields = [
    h("div", { class: "row" }, field("Source", own.source, "has the capability"), field("Target", own.target, "receives it"), field("Base of the source", own.base, "if there is one")),
    field("Probes", own.probes, "Texts on which the capability shows, without labels: one on a line, at least 16."),
    h("div", { class: "row" }, field("Cue", own.cue, "the word before an answer"), field("Labels", own.labels, "none for a classifier's own"), field("Route", own.route), field("Rank", own.rank), field("Steps", own.steps, "for distill")),
    h("div", { class: "row" }, field("Measure on tasks", own.evaluate, "before and after"), h("label", { class: "flag" }, own.truncate, "cut probes that are too long")),
  ];
  const values = () => ({
    source: own.source.value, target: own.target.value, base: own.base.value, probes: own.probes.value, cue: own.cue.value, labels: own.labels.value,
    route: own.route.value, rank: Number(own.rank.value), steps: own.steps.value ? Number(own.steps.value) : null, evaluate: own.evaluate.value, truncate: own.truncate.checked,
  });
  return { fields, values };
}

function merge(about) {
  const method = select(about.methods.map((one) => [one.name, one.name]), "linear", { name: "method", onchange: () => tell() });
  const base = model("merge-base");
  const options = h("textarea", { name: "options", placeholder: "density: 0.5" });
  const dtype = select([["", "as the base's"], ["float32", "float32"], ["bfloat16", "bfloat16"], ["float16", "float16"]], "", { name: "dtype" });
  const rows = h("div", { class: "models" });
  const about_method = h("p", { class: "note" });
  function tell() {
    const found = about.methods.find((one) => one.name === method.value);
    const known = found.options.map((one) => one.default === null ? one.name : `${one.name} (${one.default})`).join(", ");
    about_method.textContent = `${found.summary} Base: ${found.base}.${known ? ` Options: ${known}.` : ""}`;
  }
  function add() {
    const name = model("model");
    name.setAttribute("aria-label", "Model");
    const weight = h("input", { type: "number", step: "any", placeholder: "weight", "aria-label": "Weight" });
    const row = h("div", { class: "one" }, name, weight, h("button", { type: "button", class: "quiet", "aria-label": "Take this model away", onclick: () => { row.remove(); rows.dispatchEvent(new Event("input", { bubbles: true })); } }, "×"));
    row.read = () => ({ model: name.value, weight: weight.value === "" ? null : Number(weight.value) });
    rows.append(row);
  }
  add();
  add();
  tell();
  const fields = [
    h("div", { class: "row" }, field("Method", method), field("Base", base, "what changes are taken from"), field("Stored as", dtype)), about_method,
    h("fieldset", {}, h("legend", {}, "Models and their weights"), rows, h("div", {}, h("button", { type: "button", class: "quiet small", onclick: add }, "One more model"))),
    field("Options of the method", options, "lines such as density: 0.5"),
  ];
  const values = () => ({ method: method.value, base: base.value, models: [...rows.children].map((row) => row.read()), options: options.value, dtype: dtype.value });
  return { fields, values };
}
