// Jobs that were started here, and runs that a monitor writes elsewhere; asked again while something runs.
import { ago, ask, fault, h, number, table } from "./dom.js";
import { chart } from "./chart.js";

const EVERY = 1000;

export async function jobsPage(place, about, query) {
  const id = query.get("id"), run = query.get("run");
  const body = h("div", {});
  place.append(body);
  let going = true;
  let timer = null;
  async function look() {
    let again;
    try {
      again = id ? await job(body, id, look) : run ? await other(body, run) : await list(body);
    } catch (problem) {
      // Charts and log stay on the page while the server is away.
      body.querySelector(":scope > .fault")?.remove();
      body.append(fault(problem));
      again = true;
    }
    if (going && again) timer = setTimeout(look, EVERY);
  }
  await look();
  return () => { going = false; clearTimeout(timer); };
}

async function list(body) {
  const [jobs, records] = await Promise.all([ask("/api/jobs"), ask("/api/records")]);
  const runs = records.filter((one) => one.kind === "monitor");
  body.replaceChildren(h("h1", {}, "Jobs"),
    h("section", {}, h("h2", {}, "Started here"), jobs.length
      ? table("", [{ name: "job" }, { name: "state" }, { name: "asked", number: true }, { name: "said" }], jobs.map((one) => [
        h("a", { href: `#jobs?id=${one.id}` }, `${one.command} ${one.id}`), state(one.state), ago(Date.parse(one.asked) / 1000), one.error ?? "–"]))
      : h("p", {}, "None yet. ", h("a", { href: "#start" }, "Start a transfer or a merge."))),
    h("section", {}, h("h2", {}, "Runs that a monitor watches"), h("p", { class: "into" }, "Whatever was started with --monitor in the folders of this page."), runs.length
      ? table("", [{ name: "run" }, { name: "lies at" }, { name: "last number", number: true }], runs.slice(0, 100).map((one) => [
        h("a", { href: `#jobs?run=${one.id}` }, one.name), one.place, ago(one.time)]))
      : h("p", {}, "There is none.")));
  return jobs.some((one) => !one.over);
}

async function job(body, id, look) {
  const found = await ask(`/api/jobs/${encodeURIComponent(id)}`);
  const cancel = async (event) => {
    event.target.disabled = true;
    try {
      await ask(`/api/jobs/${encodeURIComponent(id)}/cancel`, {});
    } catch (problem) {
      body.append(fault(problem));
    }
  };
  const focused = document.activeElement?.id === "cancel";
  const opened = body.querySelector("details")?.open;
  body.replaceChildren(h("h1", {}, `${found.command} `, state(found.state)),
    h("section", {},
      h("p", { class: "into" }, lasted(found)),
      found.error ? h("p", { class: "fault", role: "alert" }, h("b", {}, "The job failed."), found.error) : null,
      h("div", { class: "buttons" },
        found.state === "done" ? h("a", { class: "button", href: `/api/jobs/${id}/result.zip`, download: true }, found.command === "merge" ? "Download the merged model" : "Download the adapter") : null,
        found.over ? h("a", { class: "button quiet", href: "#start" }, "Start another") : h("button", { id: "cancel", type: "button", class: "quiet", onclick: cancel }, "Cancel"),
        h("a", { class: "button quiet", href: "#jobs" }, "All jobs")),
      h("pre", { class: "command" }, h("code", {}, found.line))),
    found.run?.curves.length ? curves(found.run) : null,
    h("section", {}, h("details", { open: opened ?? (found.log !== "" && found.over) }, h("summary", {}, "What it printed"), h("pre", { class: "log", tabindex: "0" }, found.log || "Nothing yet."))));
  if (focused) document.getElementById("cancel")?.focus();
  return !found.over;
}

async function other(body, id) {
  const run = await ask(`/api/runs/${encodeURIComponent(id)}`);
  body.replaceChildren(h("h1", {}, `${run.name} `, state(run.state)),
    h("p", { class: "buttons" }, h("a", { class: "button small quiet", href: "#jobs" }, "All jobs"), h("a", { class: "button small quiet", href: `#records?id=${id}` }, "Its report")),
    run.error ? h("p", { class: "fault", role: "alert" }, h("b", {}, "The run failed."), run.error) : null, curves(run));
  return run.state === "running";
}

function curves(run) {
  return h("section", {}, h("h2", {}, "Numbers"),
    h("p", { class: "into" }, `${number(run.curves.length)} curves over ${number(run.seconds, 0)} s.`),
    ...run.alarms.map((text) => h("p", { class: "fault" }, h("b", {}, "This looks wrong."), text)),
    h("div", { class: "charts" }, run.curves.slice(0, 24).map(chart)));
}

function lasted(found) {
  const end = found.ended ? Date.parse(found.ended) : Date.now();
  if (!found.started) return found.state === "waiting" ? "It waits for the jobs before it." : "It never ran.";
  const seconds = Math.max(0, (end - Date.parse(found.started)) / 1000);
  return `${found.over ? "It ran" : "It has run for"} ${number(seconds, 1)} s${found.over ? "" : " so far"}.`;
}

function state(word) {
  return h("span", { class: `state ${word}` }, word);
}
