// A small line chart of one number over the steps of a job.
import { h, number, s } from "./dom.js";

const WIDE = 400, HIGH = 150;

export function chart(curve) {
  const pairs = curve.steps.map((step, at) => [step, curve.values[at]]).filter(([, value]) => value !== null);
  const title = `${curve.job}: ${curve.metric}`;
  if (!pairs.length) return h("figure", { class: "chart" }, h("figcaption", {}, `${title} has no number.`));
  const xs = pairs.map(([x]) => x), ys = pairs.map(([, y]) => y);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (value) => WIDE * (right > left ? (value - left) / (right - left) : 0.5);
  const y = (value) => HIGH * (high > low ? 1 - (value - low) / (high - low) : 0.5);
  const line = pairs.map(([a, b], at) => `${at ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const last = pairs.at(-1);
  return h("figure", { class: "chart" },
    s("svg", { viewBox: `-2 -6 ${WIDE + 4} ${HIGH + 12}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}, from ${number(ys[0])} to ${number(last[1])} in ${number(last[0])} steps` },
      s("path", { class: "frame", d: `M0 0V${HIGH}H${WIDE}` }),
      s("path", { d: pairs.length === 1 ? `M${WIDE * 0.5 - 4} ${y(ys[0])}h8` : line })),
    h("figcaption", {}, `${title} is ${number(last[1])} at step ${number(last[0])} (${number(low)} to ${number(high)})`));
}
