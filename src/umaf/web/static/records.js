// Records: a list by kind, and the report of one.
import { ago, ask, field, h, number, select, table } from "./dom.js";

export async function recordsPage(place, about, query) {
  const records = await ask("/api/records");
  const open = query.get("id");
  if (open) {
    const found = records.find((one) => one.id === open);
    place.append(h("h1", {}, found?.name ?? "A record"), h("p", { class: "buttons" },
      h("a", { class: "button small quiet", href: "#records" }, "All records"),
      h("a", { class: "button small quiet", href: `/records/${open}.html`, target: "_blank", rel: "noopener" }, "In a tab of its own"),
      found?.adapter ? h("a", { class: "button small", href: `/records/${open}.zip`, download: true }, "Download the adapter") : null,
      found?.kind === "monitor" ? h("a", { class: "button small", href: `#jobs?run=${open}` }, "Watch it run") : null),
    h("iframe", { src: `/records/${open}.html`, title: `Report of ${found?.name ?? "the record"}`, sandbox: "allow-popups" }));
    return;
  }
  place.append(h("h1", {}, "Records"), h("p", { class: "lead" }, `What was transferred, merged and measured, in ${about.roots.join(", ")}.`));
  if (!records.length) {
    place.append(h("section", {}, h("h2", {}, "None yet"), h("p", {}, "Nothing here was written by umaf; start a transfer, or name another folder with --records.")));
    return;
  }
  const kinds = [...new Map(records.map((one) => [one.kind, one.what]))];
  const list = h("div", {});
  const word = h("input", { type: "search", placeholder: "part of a name", oninput: () => show() });
  const kind = select([["", `all (${number(records.length)})`], ...kinds.map(([key, what]) => [key, `${what} (${records.filter((one) => one.kind === key).length})`])], "", { onchange: () => show() });
  function show() {
    const wanted = records.filter((one) => (!kind.value || one.kind === kind.value) && `${one.name} ${one.place}`.toLowerCase().includes(word.value.toLowerCase()));
    list.replaceChildren(table("", [{ name: "record" }, { name: "what" }, { name: "lies at" }, { name: "written", number: true }],
      wanted.slice(0, 300).map((one) => [h("a", { href: `#records?id=${one.id}` }, one.name), one.what, one.place, ago(one.time)])));
    if (wanted.length > 300) list.append(h("p", { class: "note" }, `${number(wanted.length - 300)} more; narrow the list.`));
  }
  show();
  place.append(h("section", {}, h("div", { class: "row" }, field("Kind", kind), field("Name", word)), list));
}
