// A model's card.
import { ask, facts, fault, fixed, h, number } from "./dom.js";

export async function showCard(place, key) {
  place.replaceChildren(h("p", { class: "wait" }, "…"));
  let found;
  try {
    found = await ask(`/api/models/${encodeURIComponent(key)}`);
  } catch (problem) {
    place.replaceChildren(fault(problem));
    return;
  }
  place.replaceChildren(...card(found));
}

export function card(found) {
  const own = found.card ?? {};
  const scores = Object.entries(found.scores).sort((a, b) => b[1] - a[1]).slice(0, 12);
  return [
    h("h2", {}, found.model),
    found.about ? h("p", { class: "note" }, found.about.slice(0, 240)) : null,
    facts([
      ["architecture", own.architecture],
      ["base", own.base],
      ["parameters", own.parameters ? number(own.parameters) : null],
      ["layers", own.layers],
      ["width", own.width],
      ["licence", found.licence],
      ["lies at", found.place],
      ["known by", found.fingerprint ? (own.base ? "what it learned since its base" : "what it is") : "its outputs alone"],
      ["change", own.base && own.strength !== undefined ? (own.unchanged ? "none" : number(own.strength)) : null],
    ]),
    scores.length ? h("h3", {}, "Measured") : null,
    scores.length ? facts(scores.map(([task, value]) => [task, [fixed(value), bar(value)]])) : null,
    h("div", { class: "buttons" },
      h("a", { class: "button small", href: `#search?model=${encodeURIComponent(found.key)}` }, "Alike"),
      h("a", { class: "button small quiet", href: `#compare?a=${encodeURIComponent(found.key)}` }, "Compare"),
      found.place ? h("a", { class: "button small quiet", href: `#start?source=${encodeURIComponent(found.place)}${own.base ? `&base=${encodeURIComponent(own.base)}` : ""}` }, "Transfer from it") : null),
  ].filter(Boolean);
}

export function bar(value) {
  const inner = h("i");
  inner.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, inner);
}
