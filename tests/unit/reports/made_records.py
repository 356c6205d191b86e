"""Records of every kind, made small by hand: what a report has to understand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from umaf.evaluation.assess import Result
from umaf.evaluation.change import Change, change_numbers, comparison_row, result_row
from umaf.evaluation.compare import compare, holm
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import mean_interval
from umaf.evaluation.summary import Figure, write_summary
from umaf.extraction import Fingerprint, FingerprintCard
from umaf.monitor import Monitor
from umaf.pulse import tell

EVIL = "<script>alert(1)</script>"


def _result(model: str, task: str, share: float, *, seed: int) -> Result:
    items = (np.random.default_rng(seed).random(120) < share).astype(float)
    found = mean_interval(items)
    return Result(model, task, "accuracy", found.value, found.low, found.high, 120, 0.25, 1.0, tuple(items))


def evaluated(folder: Path) -> Path:
    """Three models on two tasks."""
    rows = [
        _result(model, task, share, seed=seed)
        for seed, (model, task, share) in enumerate(
            [("small", "a", 0.3), ("small", "b", 0.5), ("large", "a", 0.7), ("large", "b", 0.55),
             (EVIL, "a", 0.4), (EVIL, "b", 0.5)]
        )
    ]  # fmt: skip
    found = [compare(rows[place], rows[place + 2]) for place in range(4)]
    numbers = {
        "results": [result_row(one) for one in rows],
        "comparisons": [comparison_row(one) for one in holm(found)],
        "against": None,
        "parameters": {"small": 10**6, "large": 5 * 10**6, EVIL: 2 * 10**6},
    }
    config = {"model": ["small", "large"], "task": ["a", "b"], "limit": 120, "adapter": []}
    write_record(folder / "evaluate.json", new_record("evaluate", config=config, numbers=numbers))
    return folder / "evaluate.json"


def changed(folder: Path, kind: str) -> Path:
    """A transfer or a merge that was asked what it brought and cost."""
    before = [_result("target", name, 0.3, seed=1) for name in ("wanted", "other", "third")]
    after = [_result("target", name, share, seed=2) for name, share in
             (("wanted", 0.8), ("other", 0.25), ("third", 0.3))]  # fmt: skip
    rows = holm([compare(one, other) for one, other in zip(before, after, strict=True)])
    change = Change(
        tuple(before), tuple(after), tuple(rows[:1]), tuple(rows[1:]),
        mean_interval([one.lost or 0.0 for one in rows[1:]]), {"made/prose": "it writes nothing"},
    )  # fmt: skip
    more = {"sources": [{"model": "s", "base": None, "weight": 1.0, "probes": 25, "strength": 1.0, "unchanged": False}],
            "history": [{"divergence": 0.2, "bare": 2.0}]}  # fmt: skip
    if kind == "merged":
        more = {"experts": {"2 one": {"wanted": result_row(before[0])}}}
    config = {"target": "t", "source": ["s"], "recipe": "recipe.yml", "out": "out", "rank": 4}
    numbers = {**change_numbers(change), **more}
    write_record(folder / "record.json", new_record(kind, config=config, numbers=numbers))
    return folder / "record.json"


def summarised(folder: Path) -> Path:
    """Headline figures, with aims reached and missed, one of them not measured."""
    figures = {
        "recovery.solve": Figure(0.72, 0.6, 0.8, 9, ">= 0.70"),
        "recovery.distill": Figure(0.5, 0.4, 0.6, 9, 0.9),
        "recovery.none": Figure(math.nan),
        "seconds": Figure(1200.0, n=3, aim="<= 2000"),
    }
    write_summary(folder / "summary.json", figures)
    return folder / "summary.json"


def benchmarked(folder: Path) -> Path:
    """A dated record of a benchmark: methods of a base over two seeds, and figures."""
    runs = {
        f"base--{seed}": {
            name: {"scores": {"a": share + 0.01 * seed, "b": share}, "cpu": cost}
            for name, share, cost in (("linear", 0.5, 1.0), ("ties", 0.6, 2.0), ("slow", 0.55, 9.0))
        }
        for seed in range(2)
    }
    numbers = {
        "figures": {"a.b": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3, "aim": None}},
        "results": runs,
    }
    write_record(folder / "2026-01-01-0000.json", new_record("merge", config={}, numbers=numbers))
    return folder / "2026-01-01-0000.json"


def merged(folder: Path) -> Path:
    """The manifest of a merged folder."""
    data = {
        "kind": "merge",
        "recipe": {"umaf": 1, "method": "ties", "base": "b", "models": [{"model": "m", "options": {}}]},
        "parents": [{"model": "b", "identity": "sha256:0", "licence": None, "donor": True},
                    {"model": EVIL, "identity": "sha256:1", "licence": "mit", "donor": False}],
        "seed": 3, "notes": ["one note"], "versions": {"umaf": "0.1.0"}, "made": "2026-01-01", "shards": [],
        "tensors": {"w": {"method": "ties"}, "v": {"method": "copy"}},
    }  # fmt: skip
    (folder / "umaf.json").write_text(json.dumps(data))
    return folder / "umaf.json"


def adapted(folder: Path) -> Path:
    """An adapter's folder, with factors."""
    data = {
        "umaf": "0.1.0", "target": {"model": "zoo:llama-1m"},
        "provenance": {"route": "solve", "rank": 2, "sources": [{"model": "s", "labels": ["x", "y"], "cue": "c"}]},
    }  # fmt: skip
    (folder / "umaf.json").write_text(json.dumps(data))
    factors = {}
    for layer in range(3):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        factors[f"{name}.lora_A.weight"] = torch.ones(2, 4)
        factors[f"{name}.lora_B.weight"] = torch.full((4, 2), float(layer + 1))
    save_file(factors, folder / "adapter_model.safetensors")
    return folder / "umaf.json"


def differed(folder: Path) -> Path:
    """What `umaf diff --json` prints."""

    def row(name: str, relative: float | None) -> dict:
        return {"name": name, "entries": 4, "relative": relative, "cosine": 0.9, "changed": 0.5, "largest": 1.0,
                "norm": 1.0}  # fmt: skip

    tensors = [row(f"model.layers.{layer}.mlp.up_proj.weight", 0.1 * layer) for layer in range(4)]
    data = {
        "first": "a", "second": "b", "total": row("all", 0.2), "kinds": [row("mlp.up_proj.weight", 0.2)],
        "layers": [row(f"model.layers.{layer}", 0.1 * layer) for layer in range(4)] + [row("outside", None)],
        "tensors": [*tensors, row("lm_head.weight", None)], "only_first": ["x"], "only_second": [], "reshaped": [],
    }  # fmt: skip
    (folder / "diff.json").write_text(json.dumps(data))
    return folder / "diff.json"


def monitored(folder: Path) -> Path:
    """A run that a monitor wrote, with a NaN in it."""
    with Monitor(folder / "run", name="a run"):
        for step in range(80):
            loss = math.nan if step == 70 else 2 / (1 + step) + 0.1 * math.sin(step)
            tell("train", step, loss=loss, rate=0.1, texts=step)
        for step in range(9):
            tell("again", step, loss=1.0 - 0.05 * step)
    return folder / "run"


def trained(folder: Path) -> Path:
    """An expert's card."""
    card = {
        "name": "sums", "base": "zoo:llama-1m", "base_identity": "0", "architecture": "llama", "modules": ["a", "b"],
        "description": "adds", "objective": "reinforce", "reward": "numeric", "data": {"task": "graded/stories"},
        "settings": {"rate": 0.002}, "scores": {"validation": 0.4, "base": 0.1}, "versions": {},
        "curves": {"reward": [0.1, 0.2, None, 0.4], "validation_step": [0, 4], "validation": [0.1, 0.4]},
    }  # fmt: skip
    (folder / "expert.json").write_text(json.dumps(card))
    return folder / "expert.json"


def fingerprinted(folder: Path) -> Path:
    """Ten fingerprints of two capabilities in two architectures."""
    draw = np.random.default_rng(0)
    middles = {name: draw.standard_normal(512) for name in ("sentiment", "topic")}
    for place in range(10):
        kind, build = ("sentiment", "topic")[place % 2], ("bert", "llama")[place // 5]
        vector = middles[kind] + 0.5 * draw.standard_normal(512)
        card = FingerprintCard(
            model=f"{kind} {place}", base="b", architecture=build, parameters=10**6, layers=4, width=128,
            tokenizer="t", probes="p", probe_count=64, truncated=0, anchors="a", extractor="e",
            normalisation="centred", depths=(0.5,), strength=1.0, unchanged=False, scaled_to=None, sources=(),
            weights=(), umaf="0.1.0",
        )  # fmt: skip
        unit = torch.tensor(vector / np.linalg.norm(vector), dtype=torch.float32)[None]
        Fingerprint(unit, card).save(folder / "prints" / f"{kind}-{build}-{place}.safetensors")
    return folder / "prints"


def quick(folder: Path) -> Path:
    """A quickstart's record."""

    def cell(share: float) -> dict:
        row = {"value": share, "low": share - 0.05, "high": share + 0.05, "n": 100}
        gain = {**row, "recovery": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 100}}
        return {
            "source": row,
            "bare": row,
            "solve": gain,
            "distill": {**gain, "recovery": None},
            "oracle": row,
        }

    numbers = {
        "similarity": {"models": ["BERT · question", "GPT-2 · tense", "LLaMA · both, solve"],
                       "cosine": [[1, 0.2, 0.1], [0.2, 1, 0.3], [0.1, 0.3, 1]]},
        "routes": {"solve": {"seconds": 10.0, "history": []}, "distill": {"seconds": 20.0, "history": []}},
        "scores": {"new sentences": {"question": cell(0.9), "tense": cell(0.8)}},
        "kept": "solve", "bits_per_byte": {"bare": 2.3, "solve": 2.4}, "seconds": {"wall": 57.0, "cpu": 50.0},
    }  # fmt: skip
    write_record(folder / "quick.json", new_record("quickstart", config={}, numbers=numbers))
    return folder / "quick.json"


MAKERS = {
    "quickstart": quick,
    "transfer": lambda folder: changed(folder, "transfer"),
    "merged": lambda folder: changed(folder, "merged"),
    "evaluate": evaluated,
    "measured": benchmarked,
    "summary": summarised,
    "merge": merged,
    "adapter": adapted,
    "diff": differed,
    "monitor": monitored,
    "expert": trained,
    "fingerprint": fingerprinted,
}
"""How a record of each kind is made: kind -> function of a folder, which gives the record's place."""
