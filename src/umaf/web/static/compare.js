// Two models side by side.
import { ask, fault, field, fixed, h, number, table } from "./dom.js";
import { bar, card } from "./card.js";
import { modelSelect } from "./search.js";

export async function comparePage(place, about, query) {
  place.append(h("h1", {}, "Compare two models"));
  if (!about.store) {
    place.append(h("p", { class: "lead" }, "This page has no store of fingerprints; start umaf web with --store."));
    return;
  }
  const { models } = await ask("/api/models?limit=2000");
  if (models.length < 2) {
    place.append(h("p", { class: "lead" }, "The store has fewer than two models."));
    return;
  }
  const first = query.get("a") ?? models[0].key;
  const a = modelSelect(models, first, "a");
  const b = modelSelect(models, query.get("b") ?? models.find((one) => one.key !== first).key, "b");
  const result = h("div", { "aria-live": "polite" });
  async function compare(event) {
    event?.preventDefault();
    result.replaceChildren(h("p", { class: "wait" }, "comparing …"));
    try {
      result.replaceChildren(...shown(await ask(`/api/compare?a=${encodeURIComponent(a.value)}&b=${encodeURIComponent(b.value)}`)));
    } catch (problem) {
      result.replaceChildren(fault(problem));
    }
  }
  place.append(h("section", {}, h("form", { onsubmit: compare },
    h("div", { class: "row" }, field("One", a), field("Other", b)),
    h("div", { class: "buttons" }, h("button", { type: "submit" }, "Compare")))), result);
  if (query.get("a") && query.get("b")) await compare();
}

function shown(found) {
  const likeness = found.similarities.map((one) => [one.metric, one.distance ? number(one.value) : [fixed(one.value), bar(one.value)],
    one.distance ? "a distance: 0 is the same" : "1 is the same"]);
  const text = (value) => value === null || value === undefined || value === "" ? "–" : Array.isArray(value) ? value.join(", ") : typeof value === "number" ? number(value) : /^[0-9a-f]{40,}$/.test(value) ? `${value.slice(0, 12)}…` : String(value);
  const scores = [...new Set([...Object.keys(found.a.scores), ...Object.keys(found.b.scores)])].sort();
  const near = (hits, other) => table("", [{ name: "model" }, { name: "similarity", number: true }],
    hits.map((hit) => [hit.key === other ? `${hit.model} (the other)` : hit.model, fixed(hit.similarity)]));
  return [
    h("section", {}, h("h2", {}, "How alike"), found.why_not ? h("p", { class: "note" }, found.why_not) : null,
      likeness.length ? table("", [{ name: "compared by" }, { name: "value", number: true }, { name: "means" }], likeness) : h("p", {}, "Nothing of them can be compared.")),
    h("div", { class: "halves" }, h("section", { class: "card" }, ...card(found.a)), h("section", { class: "card" }, ...card(found.b))),
    h("section", {}, h("h2", {}, "What differs"), found.differs.length
      ? table("", [{ name: "on the card" }, { name: found.a.model }, { name: found.b.model }], found.differs.map((row) => [row.name, text(row.a), text(row.b)]))
      : h("p", {}, "Nothing on their cards."),
    scores.length ? table("Measured", [{ name: "task" }, { name: found.a.model, number: true }, { name: found.b.model, number: true }],
      scores.map((task) => [task, fixed(found.a.scores[task]), fixed(found.b.scores[task])])) : null),
    h("div", { class: "halves" },
      h("section", {}, h("h2", {}, `Nearest to ${found.a.model}`), near(found.near_a, found.b.key)),
      h("section", {}, h("h2", {}, `Nearest to ${found.b.model}`), near(found.near_b, found.a.key))),
  ];
}
