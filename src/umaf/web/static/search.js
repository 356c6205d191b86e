// Search: by texts that show a task, by a model of the store, or by words; filters on the card.
import { Fault, ask, fault, field, fixed, h, number, say, select, table } from "./dom.js";
import { bar, showCard } from "./card.js";

export async function searchPage(place, about, query) {
  place.append(h("h1", {}, "Find a model"));
  if (!about.store) {
    place.append(h("p", { class: "lead" }, "This page has no store of fingerprints; start umaf web with --store."));
    return;
  }
  const known = await ask("/api/models?limit=2000");
  const models = known.models;
  const texts = h("textarea", { id: "texts", name: "texts", placeholder: "I loved every minute of it\tgood\nA dull and noisy film\tbad" });
  const model = modelSelect(models, query.get("model"), "model");
  const words = h("input", { name: "words", placeholder: "reviews of films" });
  const metric = select(about.metrics.map((one) => [one, one]), "cosine", { name: "metric" });
  const perBase = h("input", { type: "checkbox", name: "per_base" });
  const filters = {
    architecture: select([["", "any"], ...known.values.architecture.map((one) => [one, one])], "", { name: "architecture" }),
    base: select([["", "any"], ...known.values.base.map((one) => [one, one])], "", { name: "base" }),
    licence: select([["", "any"], ...known.values.licence.map((one) => [one, one])], "", { name: "licence" }),
    most: h("input", { name: "most", type: "number", min: "0", placeholder: "any" }),
  };
  const groups = {
    texts: field("Texts", texts, "One on a line, and after a tab its label if you know it: who does this task?"),
    model: h("div", { class: "row" }, field("Model", model), field("Compared by", metric),
      h("label", { class: "flag" }, perBase, "take off what all models of a base share")),
    words: field("Words", words, "Looked for in names, model cards and measured tasks."),
  };
  const results = h("div", { "aria-live": "polite" });
  const cardPlace = h("section", { class: "card", hidden: true });
  let by = query.get("model") ? "model" : "texts";
  const choice = h("fieldset", {}, h("legend", {}, "Search by"), h("div", { class: "choice" },
    [["texts", "texts"], ["model", "a model of the store"], ["words", "words"]].map(([key, text]) =>
      h("label", {}, h("input", { type: "radio", name: "by", value: key, checked: key === by, onchange: () => { by = key; arrange(); } }), text))));
  function arrange() {
    for (const [key, group] of Object.entries(groups)) group.hidden = key !== by;
  }
  arrange();

  async function search(event) {
    event?.preventDefault();
    results.replaceChildren(h("p", { class: "wait" }, "searching …"));
    try {
      const found = await ask("/api/search", body());
      results.replaceChildren(...shown(found, cardPlace));
      say(`${found.hits.length} models found`);
    } catch (problem) {
      results.replaceChildren(fault(problem));
    }
  }

  function body() {
    const filter = {};
    for (const [name, control] of Object.entries(filters)) {
      if (control.value) filter[name] = name === "most" ? Number(control.value) : control.value;
    }
    const asked = { by, filter };
    if (by === "texts") {
      const rows = texts.value.split("\n").filter((line) => line.trim()).map((line) => line.split("\t"));
      if (!rows.length) throw new Fault("A search by texts needs a text; paste at least one.");
      asked.texts = rows.map((row) => row[0]);
      const labels = rows.map((row) => (row[1] ?? "").trim());
      asked.labels = labels.some(Boolean) ? labels.filter(Boolean) : [];
    } else if (by === "model") {
      Object.assign(asked, { model: model.value, metric: metric.value, per_base: perBase.checked });
    } else {
      if (!words.value.trim()) throw new Fault("A search by words needs a word; type one.");
      asked.words = words.value;
    }
    return asked;
  }

  place.append(
    h("section", {}, h("form", { onsubmit: search }, choice, ...Object.values(groups),
      h("fieldset", {}, h("legend", {}, "Only models with"), h("div", { class: "row" },
        field("architecture", filters.architecture), field("base", filters.base),
        field("licence", filters.licence), field("parameters, at most", filters.most))),
      h("div", { class: "buttons" }, h("button", { type: "submit" }, "Search")))),
    results, cardPlace);
  if (query.get("model")) await search();
}

export function modelSelect(models, chosen, name) {
  return select(models.map((one) => [one.key, one.base ? `${one.model} (${one.architecture})` : one.model]), chosen ?? models[0]?.key, { name });
}

function shown(found, cardPlace) {
  const how = found.by === "words" ? "words in names and cards" : `${found.by}, ${found.metric}`;
  const note = h("p", { class: "note" }, `${number(found.hits.length)} of ${number(found.searched)} models by ${how}, in ${number(1000 * found.seconds, 0)} ms${found.exact ? "" : `, through an index (recall ${number(found.recall, 2)})`}.`);
  if (!found.hits.length) return [h("section", {}, h("h2", {}, "Nothing fits"), h("p", {}, "No model of the store passes these conditions; take one away."))];
  const open = (hit) => async () => {
    cardPlace.hidden = false;
    await showCard(cardPlace, hit.key);
    cardPlace.scrollIntoView({ block: "nearest" });
  };
  const rows = found.hits.map((hit) => [
    hit.model,
    [fixed(hit.similarity), bar(hit.similarity)],
    hit.architecture ?? "known by outputs",
    hit.base ?? "–",
    number(hit.parameters),
    best(hit.scores),
    h("button", { class: "quiet", type: "button", "aria-label": `Card of ${hit.model}`, onclick: open(hit) }, "Card"),
  ]);
  const columns = [{ name: "model" }, { name: "similarity", number: true }, { name: "architecture" }, { name: "base" },
    { name: "parameters", number: true }, { name: "best measured" }, { name: "card" }];
  return [h("section", {}, h("h2", {}, "Found"), note, table("", columns, rows))];
}

function best(scores) {
  const [task, value] = Object.entries(scores).sort((a, b) => b[1] - a[1])[0] ?? [];
  return task ? `${task} ${fixed(value, 2)}` : "–";
}
