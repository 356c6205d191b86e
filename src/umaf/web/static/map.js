// The map of fingerprints: drag or arrow keys move from point to point, wheel, buttons and two fingers zoom.
import { ask, field, h, number, s, say, select } from "./dom.js";
import { showCard } from "./card.js";
import { paint, sample, shape } from "./marks.js";

const SIDE = 1000;
const COLOURS = [
  ["task", "best measured task"],
  ["group", "group of alike fingerprints"],
  ["base", "base"],
  ["architecture", "architecture"],
  ["licence", "licence"],
];

export async function mapPage(place, about) {
  if (!about.store) {
    place.append(h("h1", {}, "Map"), h("p", { class: "lead" }, "This page has no store of fingerprints; start umaf web with --store."));
    return;
  }
  place.append(h("h1", {}, "What these models can do"), h("p", { class: "wait" }, "drawing …"));
  const first = await ask("/api/map");
  place.lastChild.remove();
  const side = h("section", { class: "card", "aria-live": "polite" },
    h("h2", {}, "A point is a model"),
    h("p", { class: "into" }, "Models that lie together do alike things. Choose one to see its card."));
  const state = { data: first, by: first.points.some((one) => one.task) ? "task" : "group", only: null, side, about };
  const frame = h("div", { class: "map" });
  const legend = h("div", {});
  const colour = select(COLOURS, state.by, { onchange: (event) => { state.by = event.target.value; state.only = null; redraw(); } });
  const kind = select([
    ["true", `what was learned since the base (${number(first.difference ? first.whole : first.other)})`],
    ["false", `what the model is (${number(first.difference ? first.other : first.whole)})`],
  ], String(first.difference), { onchange: async (event) => { state.data = await ask(`/api/map?difference=${event.target.value}`); state.only = null; redraw(); } });
  const lead = h("p", { class: "lead" });
  place.append(lead, h("div", { class: "split" },
    h("section", {}, h("div", { class: "row" }, field("Colour", colour), field("Fingerprints of", kind)),
      h("p", {}), frame, legend), side));

  function redraw() {
    const { points, shares, whole } = state.data;
    lead.textContent = points.length
      ? `${number(whole)} fingerprints${points.length < whole ? `, of which ${number(points.length)} are drawn` : ""}, from 512 numbers to two directions with ${percent(shares[0])} and ${percent(shares[1])} of the variance.`
      : "There are no fingerprints of this kind in the store.";
    draw(frame, state, () => redraw());
    legends(legend, state, () => redraw());
  }
  redraw();
}

function percent(share) {
  return `${Math.round(100 * share)}%`;
}

function kinds(state, name) {
  const counted = new Map();
  for (const one of state.data.points) {
    const value = named(one, name);
    counted.set(value, (counted.get(value) ?? 0) + 1);
  }
  return [...counted].sort((a, b) => b[1] - a[1] || String(a[0]).localeCompare(b[0])).map(([value]) => value);
}

function named(one, name) {
  const value = one[name];
  if (name === "group") return value === null ? "not grouped" : `group ${value + 1}`;
  return value ?? "not known";
}

function draw(frame, state, redraw) {
  const { points } = state.data;
  const colours = kinds(state, state.by);
  const shapes = kinds(state, "architecture");
  const xs = points.map((one) => one.x), ys = points.map((one) => one.y);
  const middle = [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
  const reach = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 1e-9);
  const at = (one) => [SIDE * (0.88 * (one.x - middle[0]) / reach), -SIDE * (0.88 * (one.y - middle[1]) / reach)];
  const view = { x: 0, y: 0, size: SIDE };
  const svg = s("svg", { viewBox: "-500 -500 1000 1000", role: "group", "aria-label": "Map of fingerprints; arrow keys go to the nearest model in a direction" });
  const tip = h("div", { class: "tip", hidden: true });
  const marks = points.map((one, index) => {
    const path = paint(s("path", {
      d: shape(shapes.indexOf(one.architecture ?? "not known")), class: "point", tabindex: index === 0 ? "0" : "-1", role: "button",
      "aria-label": `${one.model}, ${named(one, state.by)}, ${one.architecture}`, "data-key": one.key,
    }), colours.indexOf(named(one, state.by)), state.about);
    path.place = at(one);
    path.classList.toggle("faint", state.only !== null && !state.only(one));
    const over = () => hint(frame, svg, tip, path, [one.model, named(one, state.by), one.architecture].filter(Boolean).join(" · "));
    path.addEventListener("pointerenter", over);
    path.addEventListener("focus", over);
    path.addEventListener("pointerleave", () => { tip.hidden = true; });
    path.addEventListener("blur", () => { tip.hidden = true; });
    return path;
  });
  svg.append(...marks);

  function choose(path) {
    marks.forEach((other) => { other.classList.toggle("chosen", other === path); other.setAttribute("tabindex", other === path ? "0" : "-1"); });
    path.parentNode.append(path);
    path.focus({ preventScroll: true });
    showCard(state.side, path.dataset.key).then(() => {
      if (matchMedia("(max-width: 900px)").matches) state.side.scrollIntoView({ block: "start" });
    });
  }

  function look() {
    const box = svg.getBoundingClientRect();
    const unit = view.size / Math.max(1, Math.min(box.width, box.height));
    svg.setAttribute("viewBox", `${view.x - view.size / 2} ${view.y - view.size / 2} ${view.size} ${view.size}`);
    // Points keep their size on the screen however near one looks.
    const scale = unit * (points.length > 400 ? 0.8 : 1.15);
    for (const path of marks) path.setAttribute("transform", `translate(${path.place[0]} ${path.place[1]}) scale(${scale})`);
  }

  function zoom(factor, x = view.x, y = view.y) {
    const size = Math.min(SIDE * 1.6, Math.max(SIDE / 400, view.size * factor));
    view.x = x + (view.x - x) * (size / view.size);
    view.y = y + (view.y - y) * (size / view.size);
    view.size = size;
    tip.hidden = true;
    look();
  }

  function reset() {
    Object.assign(view, { x: 0, y: 0, size: SIDE });
    look();
  }

  hands(svg, view, { look, zoom, choose, tip });
  keys(svg, marks, { look, zoom, choose, reset, view });
  const tools = [["+", "Zoom in", () => zoom(0.7)], ["−", "Zoom out", () => zoom(1 / 0.7)], ["⌂", "Show all", reset]].map(
    ([sign, label, act]) => h("button", { type: "button", "aria-label": label, title: label, onclick: act }, sign));
  frame.replaceChildren(svg, h("div", { class: "tools" }, tools), tip);
  new ResizeObserver(look).observe(svg);
}

function point(svg, event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
}

function hands(svg, view, { look, zoom, choose, tip }) {
  const held = new Map();
  let moved = 0;
  let pressed = null;
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const here = point(svg, event);
    zoom(Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY * 0.0016))), here.x, here.y);
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, event);
    if (held.size === 1) { moved = 0; pressed = event.target.closest(".point"); }
    svg.setPointerCapture(event.pointerId);
    svg.classList.add("held");
  });
  svg.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    if (held.size === 2) {
      const other = [...held.values()].find((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const here = point(svg, { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
      zoom(apart(before) / Math.max(1, apart(event)), here.x, here.y);
      moved = 99;
    } else {
      const from = point(svg, before), to = point(svg, event);
      moved += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
      if (moved > 5) { view.x -= to.x - from.x; view.y -= to.y - from.y; tip.hidden = true; look(); }
    }
    held.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    svg.addEventListener(name, (event) => {
      held.delete(event.pointerId);
      if (held.size) return;
      svg.classList.remove("held");
      if (name === "pointerup" && moved <= 5 && pressed) choose(pressed);
      pressed = null;
    });
  }
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function keys(svg, marks, { look, zoom, choose, reset, view }) {
  svg.addEventListener("keydown", (event) => {
    const path = event.target.closest(".point");
    if (event.key === "Enter" || event.key === " ") { if (path) choose(path); }
    else if (event.key === "+" || event.key === "=") zoom(0.7);
    else if (event.key === "-") zoom(1 / 0.7);
    else if (event.key === "0") reset();
    else if (event.key in WAYS && path) {
      const [dx, dy] = WAYS[event.key];
      const scored = marks.filter((other) => other !== path).map((other) => {
        const x = other.place[0] - path.place[0], y = other.place[1] - path.place[1];
        return [x * dx + y * dy, Math.abs(x * dy - y * dx), other];
      }).filter(([along, aside]) => along > 1e-6 && aside <= 2 * along + 1e-9);
      scored.sort((a, b) => (a[0] + 2 * a[1]) - (b[0] + 2 * b[1]));
      const next = scored[0]?.[2];
      if (next) {
        marks.forEach((other) => other.setAttribute("tabindex", other === next ? "0" : "-1"));
        if (Math.abs(next.place[0] - view.x) > view.size / 2 || Math.abs(next.place[1] - view.y) > view.size / 2) {
          [view.x, view.y] = next.place;
          look();
        }
        next.focus({ preventScroll: true });
        say(next.getAttribute("aria-label"));
      }
    } else return;
    event.preventDefault();
  });
}

function hint(frame, svg, tip, path, text) {
  const box = frame.getBoundingClientRect(), own = path.getBoundingClientRect();
  tip.textContent = text;
  tip.hidden = false;
  const left = own.left - box.left + own.width / 2, top = own.top - box.top;
  tip.style.left = `${Math.max(6, Math.min(left - tip.offsetWidth / 2, box.width - tip.offsetWidth - 6))}px`;
  tip.style.top = `${top > tip.offsetHeight + 10 ? top - tip.offsetHeight - 8 : top + own.height + 8}px`;
}

function legends(place, state, redraw) {
  const list = (title, name, kind) => {
    const values = kinds(state, name);
    return [h("p", { class: "legend-title" }, title), h("ul", { class: "legend" }, values.slice(0, 24).map((value, index) => {
      const mine = state.only?.value === value && state.only?.name === name;
      return h("li", {}, h("button", { type: "button", "aria-pressed": String(mine), onclick: () => {
        state.only = mine ? null : Object.assign((one) => named(one, name) === value, { value, name });
        redraw();
      } }, sample(kind, index, state.about), value));
    }))];
  };
  const title = COLOURS.find(([key]) => key === state.by)[1];
  place.replaceChildren(...list(`Colour: ${title}`, state.by, "colour"), ...list("Shape: architecture", "architecture", "shape"));
}
