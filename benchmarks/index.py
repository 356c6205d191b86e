"""The index, measured: who is found, what the found model achieves, and what a search costs.

    python -m benchmarks.index [--minutes 60] [--parts collection forward kills scale web] [--only-summary]

The collection is built first (benchmarks/index_experts.py); search in large stores is measured by
benchmarks/index_scale.py, kills by benchmarks/index_kills.py, and the page by benchmarks/web_load.py. All is kept and
gone on with. At the end what was measured so far becomes a dated record and comparison/index/summary.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import index_experts, index_forward, index_kills, index_scale, web_load
from benchmarks.index_plan import DESIGN, HELDOUT, QUERIES, SCORED, Member, task_of
from benchmarks.index_read import collection, home, probes, read
from benchmarks.index_regret import additivity, regrets
from benchmarks.index_said import hear_all
from benchmarks.index_spaces import Measured, architecture_probe, chance, cosines, retrieval, spaces, tables
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import Bootstrap, mean_interval
from umaf.evaluation.summary import Figure, write_summary
from umaf.files import write_json

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "comparison" / "index"
PARTS = ("collection", "forward", "kills", "scale", "web")
# What an expert must be better than chance by to count as having learned its task.
LEARNED = 0.15
# Whose vectors a linear probe reads the architecture from.
PROBED = ("fingerprint", "arrangement", "pca", "pca, per base")


def found_by(measured: Measured) -> dict[str, Any]:
    """Measure retrieval and geometry of a collection.

    Whoever was trained on a held-out task is looked for among all members; the tasks that the design was chosen on
    stand beside. Geometry is that of the held-out tasks' members alone.
    """
    who = list(measured)
    alike = spaces(measured)
    held = [at for at, member in enumerate(who) if member.task in HELDOUT]
    rows = {name: vectors[held] for name, vectors in tables(measured).items()}
    those = [who[at] for at in held]
    found: dict[str, Any] = {"experts": len(who), "held_out": len(held), "chance": chance(who, HELDOUT)}
    found["architectures"] = sorted({member.model for member in who})
    found["retrieval"] = {name: retrieval(table, who, HELDOUT) for name, table in alike.items()}
    found["retrieval, kin"] = {
        name: retrieval(table, who, HELDOUT, kin=True) for name, table in alike.items()
    }
    found["retrieval, design"] = {name: retrieval(table, who, DESIGN) for name, table in alike.items()}
    found["silhouette"] = {name: _silhouettes(vectors.numpy(), those) for name, vectors in rows.items()}
    found["architecture"] = {name: architecture_probe(rows[name], those) for name in PROBED}
    return found


def learned(measured: Measured) -> Measured:
    """Keep the experts that do what they were trained for."""
    kept = {}
    for member, values in measured.items():
        if float(values["score"]) >= 1 / len(task_of(member.task).labels) + LEARNED:
            kept[member] = values
    return kept


def figures(data: Mapping[str, Any]) -> dict[str, Figure]:
    """Make the headline figures of what was measured."""
    made: dict[str, Figure] = {}
    whole = data.get("collection", {}).get("all")
    if whole:
        made |= _found_figures(whole, data["collection"]["learned"])
    for name, values in data.get("collection", {}).get("regret", {}).items():
        key = "regret.points" if name == "tried" else f"regret.points.{_plain(name)}"
        made[key] = _mean(list(values.values()), "<= 2")
    for name, values in data.get("collection", {}).get("additivity", {}).items():
        made["additivity.cosine" if name == "fingerprint" else f"additivity.cosine.{name}"] = _mean(
            values, "> 0.8"
        )
    for name, values in data.get("forward", {}).items():
        if "ratios" in values:
            key = (
                "fingerprint_over_forward"
                if name == index_forward.HEADLINE
                else f"fingerprint_over_forward.{_plain(name)}"
            )
            made[key] = _mean(values["ratios"], "<= 1.2")
    for size, values in data.get("scale", {}).items():
        word = {"1000000": "1m", "100000": "100k", "10000": "10k", "1000": "1k"}.get(size, size)
        made[f"search_{word}.median_ms"] = Figure(
            values["median_ms"], n=len(values["walls"]), aim="< 20" if word == "1m" else None
        )
        made[f"search_{word}.median_cpu_ms"] = Figure(values["median_cpu_ms"], n=len(values["walls"]))
        made[f"search_{word}.recall10"] = _mean(values["recalls"], ">= 0.98" if word == "1m" else None)
        made[f"search_{word}.peak_mb"] = Figure(values["peak_mb"], n=1)
        made[f"search_{word}.disk_mb"] = Figure(values["disk_mb"], n=1)
    kills = data.get("kills")
    if kills:
        made["store.lost"] = Figure(kills["lost"], n=kills["acknowledged"], aim="0")
        made["store.kills"] = Figure(kills["kills"], n=kills["kills"], aim=">= 100")
    web = data.get("web")
    if web:
        made["web.errors"] = Figure(web["errors"], n=web["requests"], aim="0")
        made["web.lost_writes"] = Figure(web["lost"], n=web["writes"], aim="0")
        made["web.median_ms"] = Figure(web["median_ms"], n=web["requests"])
        made["web.p95_ms"] = Figure(web["p95_ms"], n=web["requests"])
    return made


def _found_figures(whole: Mapping[str, Any], learned: Mapping[str, Any]) -> dict[str, Figure]:
    made: dict[str, Figure] = {}
    count = whole["held_out"]
    for name, aim in (("top1", ">= 0.9"), ("top5", ">= 0.98")):
        for space, found in whole["retrieval"].items():
            key = f"retrieval.{name}" + ("" if space == "fingerprint" else f".{_plain(space)}")
            made[key] = _mean(found[name], aim)
        for key, found in {
            "kin": whole["retrieval, kin"]["fingerprint"],
            "design": whole["retrieval, design"]["fingerprint"],
            "learned": learned["retrieval"]["fingerprint"],
        }.items():
            made[f"retrieval.{name}.{key}"] = _mean(found[name], aim)
        made[f"retrieval.{name}.chance"] = Figure(whole["chance"][name == "top5"], n=count)
    for space, found in whole["silhouette"].items():
        end = "" if space == "fingerprint" else f".{_plain(space)}"
        made[f"silhouette.capability{end}"] = Figure(found["capability"], n=count, aim=">= 0.5")
        made[f"silhouette.architecture{end}"] = Figure(found["architecture"], n=count)
        if space in whole["architecture"]:
            guess, usual = whole["architecture"][space]
            made[f"architecture.above_chance{end}"] = Figure(100 * (guess - usual), n=count, aim="<= 5")
    made["experts"] = Figure(whole["experts"], n=whole["experts"], aim=">= 200")
    made["experts.held_out"] = Figure(count, n=count)
    return made


def _newest(place: Path, name: str) -> dict[str, Any] | None:
    """Read what the code as it is measured, or else the newest that earlier code did, which then says so."""
    if (place / name).exists():
        return json.loads((place / name).read_text(encoding="utf-8"))
    kind = place.name.rpartition("-")[0]
    earlier = sorted(place.parent.glob(f"{kind}-*/{name}"), key=lambda path: path.stat().st_mtime)
    if not earlier:
        return None
    return {**json.loads(earlier[-1].read_text(encoding="utf-8")), "measured_by": "earlier code"}


def _plain(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


def summarise() -> None:
    """Write a dated record and the summary of everything measured so far."""
    data: dict[str, Any] = {}
    for part in ("collection", "forward", "kills"):
        path = home() / f"{part}.json"
        if path.exists():
            data[part] = json.loads(path.read_text(encoding="utf-8"))
    found = {str(size): _newest(index_scale.home(), f"{size}.json") for size in index_scale.SIZES}
    data["scale"] = {size: values for size, values in found.items() if values}
    load = _newest(web_load.home(), "web.json")
    if load:
        data["web"] = load
    made = figures(data)
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d-%H%M")
    config = {
        "scored_texts": SCORED,
        "queries": QUERIES,
        "probes": len(probes()),
        "design_tasks": list(DESIGN),
        "held_out_tasks": list(HELDOUT),
    }
    write_record(PLACE / f"{day}.json", new_record("index", config=config, numbers=data))
    write_summary(PLACE / "summary.json", made)
    for name, one in made.items():
        low = "" if one.low is None else f" ({one.low:.3f} to {one.high:.3f})"
        print(f"{name}: {one.value:.3f}{low}, n {one.n}, aim {one.aim}")


def _mean(values: Sequence[float], aim: str | None) -> Figure:
    if not values:
        return Figure(None, aim=aim)
    found = mean_interval(values, bootstrap=Bootstrap(seed=0))
    return Figure(found.value, found.low, found.high, n=found.n, aim=aim)


def _silhouettes(rows: np.ndarray, who: Sequence[Member]) -> dict[str, float | None]:
    from sklearn.metrics import silhouette_score

    found: dict[str, float | None] = {}
    for name, labels in {
        "capability": [member.task for member in who],
        "architecture": [member.architecture for member in who],
    }.items():
        usable = 1 < len(set(labels)) < len(labels)
        found[name] = float(silhouette_score(rows, labels, metric="cosine")) if usable else None
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no new expert after this long")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts = () if asked.only_summary else asked.parts
    if "collection" in parts:
        index_experts.train(minutes=asked.minutes)
        read(minutes=asked.minutes)
        hear_all(minutes=asked.minutes)
        measured = collection()
        who = list(learned(measured))
        alike = {"fingerprint": cosines(tables(learned(measured))["fingerprint"])}
        kept = {"all": found_by(measured), "learned": {"experts": len(who)}}
        kept["learned"]["retrieval"] = {name: retrieval(table, who, HELDOUT) for name, table in alike.items()}
        kept |= {"regret": regrets(measured), "additivity": additivity(measured)}
        scores = {member.name: float(values["score"]) for member, values in measured.items()}
        write_json(home() / "collection.json", {**kept, "scores": scores})
    if "forward" in parts:
        index_forward.main()
    if "kills" in parts:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            write_json(home() / "kills.json", index_kills.rounds(Path(folder) / "store", kills=asked.kills))
    if "scale" in parts:
        index_scale.main([])
    if "web" in parts:
        web_load.main([])
    summarise()


if __name__ == "__main__":
    main()
