"""Cells of the transfer benchmark -> a dated record, comparison/transfer/summary.json, and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import transfer_ablations, transfer_counts, transfer_space
from benchmarks.first_light_summary import as_figure, as_numbers, mean_recovery, over_capabilities, recovered
from benchmarks.making import LABELS, RANK
from benchmarks.transfer_plan import CAPABILITIES, FUSED, FUSED_RANK, PAIRS, PROBES, SEEDS, TEST, groups
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import LEAST_GAIN, ratio_interval
from umaf.evaluation.summary import Figure, write_summary

HOME = Path(__file__).resolve().parents[1] / "comparison" / "transfer"
WHO = ("closed_form", "solve", "distill", "multitask", "nearest", "mean", "text")
CONTROLS = ("control_shuffled_probes", "control_wrong_source", "control_random_fingerprint")
ENCODERS = ("bert-1m", "minilm")
BESIDE, APART = ("retrieval.", "silhouette.", "ablation."), "recovery.generate.trained_on."
"""Beginnings of the names of figures that are measured beside the cells; the last ones each by themselves."""


def summarise(home: Path) -> None:
    """Write record and summary of every cell measured so far, and print the figures."""
    cells = [json.loads(path.read_text()) for path in sorted((home / "cells").glob("*.json"))]
    if not cells:
        raise SystemExit("transfer: nothing has been measured yet.")
    rows, again = transfer_space.fingerprints(home), _kept_once(home)
    figures = {
        **headline(cells),
        **spaces(rows),
        **transfer_counts.figures(home),
        **transfer_ablations.figures(home),
    }
    figures["recovery.train_capabilities"] = as_figure(
        over_capabilities([tuple(pair) for pair in again]), ">= 0.98"
    )
    kept, compared = _taken(home, figures), figures.get("retrieval.top1", Figure(None))
    config = {
        "pairs": PAIRS, "capabilities": CAPABILITIES, "seeds": SEEDS, "fused": FUSED, "fused_rank": FUSED_RANK,
        "probes": PROBES, "test_texts": TEST, "rank": RANK, "oracle": vars(LABELS),
        "cells_planned": sum(map(len, groups())), "cells_measured": len(cells), "experts_compared": compared.n,
        "of_earlier_records": kept,
    }  # fmt: skip
    record = new_record(
        "transfer", config=config, numbers={"figures": as_numbers(figures), "train": again, "cells": cells}
    )
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)
    table = Table("figure", "value", "95 % interval", "n", "aim", title="transfer")
    for name, figure in figures.items():
        span = "" if figure.low is None else f"{figure.low:.3f} to {figure.high:.3f}"
        value = "" if figure.value is None else f"{figure.value:.3f}"
        table.add_row(name, value, span, str(figure.n), str(figure.aim or ""))
    Console().print(table)


def headline(cells: Sequence[dict]) -> dict[str, Figure]:
    """Compute every figure of the cells: means over cells, intervals draw whole capabilities."""
    single = [one for one in cells if one["cell"]["kind"] == "single"]
    controls = [found for name in CONTROLS if (found := mean_recovery(single, name))]
    figures = {
        "recovery.generate": as_figure(mean_recovery(single, "generate"), ">= 0.60"),
        "recovery.generate_refined50": as_figure(mean_recovery(single, "generate_refined50"), ">= 0.85"),
        "gain.generate_over_multitask": as_figure(_gain(single, "multitask"), "> 0"),
        "gain.generate_over_nearest": as_figure(_gain(single, "nearest"), "> 0"),
        "gain.generate_over_mean": as_figure(_gain(single, "mean"), "> 0"),
        "time.generate_over_lora": as_figure(_time(single, ("generate",)), "<= 0.005"),
        "time.generate_with_answers_over_lora": as_figure(_time(single, ("generate", "told")), None),
        "time.generate_refined50_over_lora": as_figure(_time(single, ("generate_refined50",)), None),
        "fused4.kept": as_figure(_kept(cells, 4), ">= 0.90"),
        "fused3.kept": as_figure(_kept(cells, 3), None),
        "fused2.kept": as_figure(_kept(cells, 2), None),
        "control.worst": as_figure(max(controls, key=lambda one: one.value, default=None), "<= 0.10"),
        "cells": Figure(
            sum(recovered(one, "oracle") is not None for one in single), n=len(single), aim=">= 288"
        ),
    }
    for who in (*WHO, *CONTROLS):
        figures[f"recovery.{who}"] = as_figure(mean_recovery(single, who), None)
    for target in dict.fromkeys(one["cell"]["target"] for one in single):
        some = [one for one in single if one["cell"]["target"] == target]
        figures[f"recovery.generate.into.{target}"] = as_figure(mean_recovery(some, "generate"), None)
    # A source can teach what it does better than the bare target.
    ahead = [one for one in single if one["scores"]["source"] - one["scores"]["bare"] >= LEAST_GAIN]
    figures["recovery.generate.source_ahead"] = as_figure(mean_recovery(ahead, "generate"), None)
    figures["recovery.generate_refined50.source_ahead"] = as_figure(
        mean_recovery(ahead, "generate_refined50"), None
    )
    crossing = [
        one for one in single if (one["cell"]["source"] in ENCODERS) != (one["cell"]["target"] in ENCODERS)
    ]
    figures["recovery.generate.between_encoder_and_decoder"] = as_figure(
        mean_recovery(crossing, "generate"), None
    )
    return figures


def spaces(rows: Sequence[dict]) -> dict[str, Figure]:
    """Compute the figures of fingerprints alone; "wordless" ones have numbers in the place of label words."""
    figures: dict[str, Figure] = {}
    if not rows:
        return figures
    for vectors, ending in (("words", ""), ("wordless", ".wordless")):
        found = transfer_space.retrieval(rows, vectors)
        for top, aim in (("top1", ">= 0.90"), ("top5", ">= 0.98")):
            pairs = [(one["capability"], one[top]) for one in found]
            figures[f"retrieval.{top}{ending}"] = as_figure(over_capabilities(pairs), aim)
        for by, name, aim in (("capability", "capability", ">= 0.50"), ("model", "architecture", None)):
            pairs = transfer_space.silhouettes(rows, vectors, by)
            figures[f"silhouette.{name}{ending}"] = as_figure(over_capabilities(pairs), aim)
    return figures


def _kept_once(home: Path) -> list:
    """Measure the train capabilities once, and keep it."""
    file = home / "train.json"
    if not file.exists():
        file.write_text(json.dumps(transfer_space.train_capabilities("llama-1m", home)))
    return json.loads(file.read_text())


def _taken(home: Path, figures: dict[str, Figure]) -> dict:
    """Take figures that are of no cells from earlier records where they rest on more there; tell which."""
    file = home / "taken.json"
    earlier = json.loads(file.read_text()) if file.exists() else {"records": {}, "figures": {}}
    taken = []
    for family in BESIDE:
        # Whole families, since figures of one are compared with each other.
        theirs = {name: Figure(**one) for name, one in earlier["figures"].items() if name.startswith(family)}
        mine = [name for name in figures if name.startswith(family)]
        if max((one.n for one in theirs.values()), default=0) > max(
            (figures[name].n for name in mine), default=0
        ):
            for name in mine:
                del figures[name]
            figures.update(theirs)
            taken += theirs
    for name, one in earlier["figures"].items():
        if name.startswith(APART) and name not in figures:
            figures[name] = Figure(**one)
            taken.append(name)
    return {"cells": earlier["records"], "figures": taken}


def _gain(cells: Sequence[dict], over: str):
    """Recovery of `generate` less that of a rival, on the same cells."""
    pairs = [(one["cell"]["capability"], recovered(one, "generate"), recovered(one, over)) for one in cells]
    return over_capabilities([(name, a - b) for name, a, b in pairs if a is not None and b is not None])


def _time(cells: Sequence[dict], who: Sequence[str]):
    """CPU seconds over those of LoRA fine-tuning on labels, of cells that took both in one run."""
    cells = [one for one in cells if one["one_run"]]
    if not cells:
        return None
    return ratio_interval(
        [sum(one["cpu"][part] for part in who) for one in cells],
        [one["cpu"]["oracle"] for one in cells],
        groups=[one["cell"]["capability"] for one in cells],
    )


def _kept(cells: Sequence[dict], count: int):
    """Gain of a fused adapter on each of its capabilities over the gain of that capability's own adapter."""
    kept = []
    for one in cells:
        if one["cell"]["kind"] == "fused" and one["count"] == count:
            for name, scores in one["scores"].items():
                alone = scores["alone"] - scores["bare"]
                if alone >= LEAST_GAIN:
                    kept.append((name, (scores["fused"] - scores["bare"]) / alone))
    return over_capabilities(kept)
