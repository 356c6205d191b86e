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
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import index_experts, index_kills, index_scale, web_load
from benchmarks.index_experts import SCORED, Member, collection, home, members
from benchmarks.index_regret import additivity, regrets
from benchmarks.index_spaces import Measured, architecture_probe, chance, retrieval, spaces, tables
from umaf.errors import UmafError
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import Bootstrap, mean_interval
from umaf.evaluation.summary import Figure, write_summary
from umaf.extraction import extract
from umaf.files import write_json
from umaf.models import open_model
from umaf.readout.encode import encode, forward
from zoo.bank import place_of

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "comparison" / "index"
PARTS = ("collection", "forward", "kills", "scale", "web")
# What an expert must be better than chance by to count as having learned its task.
LEARNED = 0.15


def found_by(measured: Measured) -> dict[str, Any]:
    """Measure retrieval and geometry of a collection."""
    who = list(measured)
    alike, rows = spaces(measured), tables(measured)
    found: dict[str, Any] = {"experts": len(who), "chance": chance(who)}
    found["retrieval"] = {name: retrieval(table, who) for name, table in alike.items()}
    found["silhouette"] = {name: _silhouettes(vectors.numpy(), who) for name, vectors in rows.items()}
    found["architecture"] = {name: architecture_probe(vectors, who) for name, vectors in rows.items()}
    return found


def learned(measured: Measured) -> Measured:
    """Keep the experts that do what they were trained for."""
    kept = {}
    for member, values in measured.items():
        labels = index_experts.task_of(member.task).labels
        if float(values["score"]) >= (1 / len(labels) if labels else 0) + LEARNED:
            kept[member] = values
    return kept


def forward_ratio(*, repeats: int = 5) -> dict[str, Any]:
    """Compare the CPU time of a fingerprint with that of one plain pass over the same probes, side by side."""
    found: dict[str, Any] = {}
    texts = index_experts.probes()
    many = tuple(
        dict.fromkeys(e.text for name in index_experts.TASKS for e in index_experts.task_of(name).train[:90])
    )
    for name in ("llama-1m", "minilm"):
        try:
            model = open_model(place_of(name))
        except UmafError as problem:
            found[name] = {"missing": str(problem)}
            continue
        for label, probes in (("default", texts), ("thousand", many)):
            rounds = repeats if name != "minilm" or label == "default" else 2
            found[f"{name}, {label}"] = _side_by_side(model, probes, rounds)
    return found


def _side_by_side(model: Any, probes: Sequence[str], rounds: int) -> dict[str, Any]:
    ratios, seconds = [], []
    for _ in range(rounds):
        began = time.process_time()
        with torch.inference_mode():
            batch = encode(model, list(probes), None, truncate=True)
            order = batch.mask.sum(1).argsort(stable=True)
            for part in order.split(32):
                taken = batch.take(part)
                if model.kind == "encoder-decoder":
                    model.net.get_encoder()(input_ids=taken.ids, attention_mask=taken.mask)
                else:
                    forward(model, taken)
        plain = time.process_time() - began
        began = time.process_time()
        extract(model, probes, truncate=True)
        spent = time.process_time() - began
        ratios.append(spent / plain)
        seconds.append(spent)
    middle = float(np.median(seconds))
    return {"probes": len(probes), "ratios": ratios, "cpu_s": middle, "per_minute": 60 / middle}


def figures(data: Mapping[str, Any]) -> dict[str, Figure]:
    """Make the headline figures of what was measured."""
    made: dict[str, Figure] = {}
    whole = data.get("collection", {}).get("all")
    if whole:
        for name, aim in (("top1", ">= 0.9"), ("top5", ">= 0.98")):
            for space in (
                "fingerprint",
                "answers",
                "fingerprint, per base",
                "answers, per base",
                "both, per base",
                "rsa",
                "cka",
            ):
                key = (
                    f"retrieval.{name}"
                    if space == "fingerprint"
                    else f"retrieval.{name}.{space.replace(', ', '_').replace(' ', '_')}"
                )
                made[key] = _mean(whole["retrieval"][space][name], aim)
            made[f"retrieval.{name}.chance"] = Figure(whole["chance"][name == "top5"], n=whole["experts"])
        made["silhouette.capability"] = Figure(
            whole["silhouette"]["fingerprint"]["capability"], n=whole["experts"], aim=">= 0.5"
        )
        made["silhouette.architecture"] = Figure(
            whole["silhouette"]["fingerprint"]["architecture"], n=whole["experts"]
        )
        guess, usual = whole["architecture"]["fingerprint"]
        made["architecture.above_chance"] = Figure(100 * (guess - usual), n=whole["experts"], aim="<= 5")
        made["experts"] = Figure(whole["experts"], n=whole["experts"], aim=">= 200")
    for name, values in data.get("collection", {}).get("regret", {}).items():
        key = "regret.points" if name == "answers" else f"regret.points.{name}"
        made[key] = _mean(values, "<= 2")
    added = data.get("collection", {}).get("additivity")
    if added:
        made["additivity.cosine"] = _mean(added, "> 0.8")
    for name, values in data.get("forward", {}).items():
        if "ratios" in values:
            key = (
                "fingerprint_over_forward"
                if name == "llama-1m, default"
                else f"fingerprint_over_forward.{name.replace(', ', '_')}"
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


def summarise() -> None:
    """Write a dated record and the summary of everything measured so far."""
    data: dict[str, Any] = {}
    for part in ("collection", "forward", "kills"):
        path = home() / f"{part}.json"
        if path.exists():
            data[part] = json.loads(path.read_text(encoding="utf-8"))
    sizes = {str(size): index_scale.home() / f"{size}.json" for size in index_scale.SIZES}
    data["scale"] = {
        size: json.loads(path.read_text(encoding="utf-8")) for size, path in sizes.items() if path.exists()
    }
    load = web_load.home() / "web.json"
    if load.exists():
        data["web"] = json.loads(load.read_text(encoding="utf-8"))
    made = figures(data)
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    config = {"scored_texts": SCORED, "queries": index_experts.QUERIES, "probes": len(index_experts.probes())}
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
        index_experts.build(minutes=asked.minutes)
        measured = {member: values for member, values in collection().items() if member in set(members())}
        kept = {"all": found_by(measured), "learned": found_by(learned(measured))}
        kept |= {"regret": regrets(measured), "additivity": additivity(measured)}
        scores = {member.name: float(values["score"]) for member, values in measured.items()}
        write_json(home() / "collection.json", {**kept, "scores": scores})
    if "forward" in parts:
        write_json(home() / "forward.json", forward_ratio())
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
