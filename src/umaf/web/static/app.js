// The page: one tab at a time, named in the address after the #.
import { ask, fault, h, number } from "./dom.js";
import { mapPage } from "./map.js";
import { searchPage } from "./search.js";
import { comparePage } from "./compare.js";
import { recordsPage } from "./records.js";
import { jobsPage } from "./jobs.js";
import { startPage } from "./start.js";

const PAGES = [
  ["map", "Map", mapPage],
  ["search", "Search", searchPage],
  ["compare", "Compare", comparePage],
  ["records", "Records", recordsPage],
  ["jobs", "Jobs", jobsPage],
  ["start", "Start", startPage],
];

const main = document.getElementById("main");
let about = null;
let leave = null;
let turn = 0;

async function show() {
  const [name, query] = location.hash.slice(1).split("?");
  if (name === "main") return;
  const found = PAGES.find(([key]) => key === name) ?? PAGES[about.store ? 0 : 3];
  const mine = ++turn;
  leave?.();
  leave = null;
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.dataset.page === found[0]) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${found[1]} · umaf`;
  const place = h("div", { "data-page": found[0] });
  main.replaceChildren(place);
  try {
    const end = await found[2](place, about, new URLSearchParams(query ?? ""));
    if (mine === turn) leave = end ?? null;
    else end?.();
  } catch (problem) {
    place.append(fault(problem));
  }
  if (mine === turn) place.dataset.ready = "yes";
}

async function begin() {
  try {
    about = await ask("/api/about");
  } catch (problem) {
    main.replaceChildren(fault(problem));
    return;
  }
  document.getElementById("tabs").append(...PAGES.map(([key, text]) =>
    h("li", {}, h("a", { href: `#${key}`, "data-page": key }, text))));
  const entries = about.store ? `${number(about.store.entries)} models in ${about.store.place.split("/").filter(Boolean).at(-1)}` : "no store";
  document.getElementById("footer").textContent = `umaf ${about.version} · ${entries} · records in ${about.roots.join(", ")}`;
  addEventListener("hashchange", () => {
    show();
    scrollTo(0, 0);
  });
  await show();
}

begin();
