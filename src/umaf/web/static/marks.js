// Colours and shapes of points: Okabe and Ito's palette, hollow after one round, and a shape for each architecture.
import { s } from "./dom.js";

const r = 6;
const SHAPES = [
  `M0 ${-r}A${r} ${r} 0 1 1 0 ${r}A${r} ${r} 0 1 1 0 ${-r}Z`,
  `M${-r * 0.9} ${-r * 0.9}H${r * 0.9}V${r * 0.9}H${-r * 0.9}Z`,
  `M0 ${-r * 1.15}L${r * 1.1} ${r * 0.85}H${-r * 1.1}Z`,
  `M0 ${-r * 1.25}L${r * 1.25} 0L0 ${r * 1.25}L${-r * 1.25} 0Z`,
  "M-2.3 -6.5H2.3V-2.3H6.5V2.3H2.3V6.5H-2.3V2.3H-6.5V-2.3H-2.3Z",
  "M-6.2 -3.1L-3.1 -6.2L0 -3.1L3.1 -6.2L6.2 -3.1L3.1 0L6.2 3.1L3.1 6.2L0 3.1L-3.1 6.2L-6.2 3.1L-3.1 0Z",
  `M0 ${r * 1.15}L${r * 1.1} ${-r * 0.85}H${-r * 1.1}Z`,
  "M0 -7.5L1.9 -2.6L7.1 -2.3L3.1 1L4.4 6.1L0 3.3L-4.4 6.1L-3.1 1L-7.1 -2.3L-1.9 -2.6Z",
  `M${-r * 1.15} 0L${r * 0.85} ${-r * 1.1}V${r * 1.1}Z`,
  `M${r * 1.15} 0L${-r * 0.85} ${-r * 1.1}V${r * 1.1}Z`,
];

export function shape(place) {
  return SHAPES[place % SHAPES.length];
}

// The colour of the n-th kind, as a report draws it; the page's dark mode lifts the same ones.
export function paint(path, place, about) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const plain = about.palette[place % about.palette.length];
  const colour = (dark && about.dark[plain]) || plain;
  const hollow = place >= about.palette.length;
  path.style.fill = hollow ? "var(--page)" : colour;
  if (hollow) {
    path.classList.add("hollow");
    path.style.stroke = colour;
  }
  return path;
}

export function sample(kind, place, about) {
  const path = s("path", { d: kind === "shape" ? shape(place) : SHAPES[0] });
  if (kind === "shape") path.style.fill = "var(--muted)";
  else paint(path, place, about);
  return s("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" }, path);
}
