"""Merging, measured: eight experts of one base by every method at its default, and what is left of each.

    python -m benchmarks.merge [--base llama-1m minilm] [--seeds 0 1 2] [--methods ties …] [--only-summary]

Experts are made once and kept; so is every result, as long as the code that made it is the same. At the end all of
them become a dated record, comparison/merge/summary.json, and a table.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from benchmarks.merge_experts import Asked, accuracy, heads_of, make, open_base, texts_of
from benchmarks.merge_plan import BASES, SCALES, SEEDS, TASKS, Base
from benchmarks.speed_run import ROOT, Cost, merge_cost
from umaf.files import hash_texts, write_json
from umaf.merging.registry import METHODS, method_of
from umaf.merging.stores import PACKERS
from umaf.models import Model, bare, open_model

WORK = ROOT / "out" / "merge"
SOURCES = ("src/umaf/merging/**/*.py", "src/umaf/tensors/*.py", "benchmarks/merge_*.py", "constraints.txt")
LEFT_OUT = {
    "passthrough": "one model",
    "slerp": "two models",
    "nuslerp": "two models",
    "nearswap": "two models",
    "mwa": "checkpoints of one run",
    "layer_swap": "two experts, one of them a language",
    "somf": "needs a mask",
}
"""Methods that are no answer to eight experts of one base, each with its reason."""
UMAF = Path(sys.executable).with_name("umaf")


def methods() -> list[str]:
    """List the methods that merge any number of experts."""
    return [name for name in METHODS.names() if name not in LEFT_OUT]


def recipe(method: str, cache: Path, options: dict | None = None) -> dict:
    """Give the recipe of a method at its defaults."""
    needs = method_of(method).needs
    based = {"base": str(cache / "base")} if needs.base != "none" else {}
    models = [str(cache / task) for task in TASKS]
    return {
        "umaf": 1,
        "method": method,
        **based,
        "models": models,
        **({"options": options} if options else {}),
    }


def scores(model: Model, texts: dict[str, Asked], heads: dict) -> dict[str, float]:
    """Accuracy of one encoder on every task, each read by its own fixed head."""
    net = bare(model.net).eval()
    return {name: accuracy(net, texts[name], heads[name]) for name in TASKS}


def references(base: Base, seed: int, cache: Path) -> dict[str, dict]:
    """Measure what needs no merging: the base, each expert on its own task, and the model of all tasks."""
    model, heads = open_base(base), heads_of(cache)
    texts = texts_of(model, "test", seed)
    own = {}
    for name in TASKS:
        net = bare(open_model(cache / name, head="base").net).eval()
        own[name] = accuracy(net, texts[name], heads[name])
    multitask = open_model(cache / "multitask", head="base")
    return {
        "base": {"scores": scores(model, texts, heads)},
        "experts": {"scores": own},
        "multitask": {"scores": scores(multitask, texts, heads)},
    }


def merged(
    base: Base, seed: int, cache: Path, method: str, options: dict | None = None, split: str = "test"
) -> dict:
    """Merge by the command line, open the result, and ask it every task."""
    file, out = cache / "recipe.yml", cache / "merged"
    file.write_text(yaml.safe_dump(recipe(method, cache, options)))
    cost = merge_cost([UMAF, "merge", file], out)
    model = open_model(out, head="base")
    result = {"scores": scores(model, texts_of(model, split, seed), heads_of(cache)), **vars(cost)}
    shutil.rmtree(out)
    return result


def swept(base: Base, seed: int, cache: Path) -> dict:
    """Task arithmetic at the scale that does best on validation texts."""
    tried = {
        scale: merged(base, seed, cache, "task_arithmetic", {"scale": scale}, "validation")["scores"]
        for scale in SCALES
    }
    best = max(tried, key=lambda scale: sum(tried[scale].values()))
    return {**merged(base, seed, cache, "task_arithmetic", {"scale": best}), "scale": best}


def stored(base: Base, seed: int, cache: Path, way: str) -> dict:
    """Pack the experts, restore each, and ask each its own task."""
    out, heads = cache / "store", heads_of(cache)
    texts = texts_of(open_base(base), "test", seed)
    experts = [part for task in TASKS for part in ("--expert", f"{task}={cache / task}")]
    cost: Cost = merge_cost([UMAF, "compress", way, "--base", cache / "base", *experts], out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    whole = sum(path.stat().st_size for task in TASKS for path in (cache / task).glob("*.safetensors"))
    found = {}
    for task in TASKS:
        back = cache / "restored"
        merge_cost([UMAF, "restore", out, "--base", cache / "base", "--expert", task], back)
        net = bare(open_model(back, head="base").net).eval()
        found[task] = accuracy(net, texts[task], heads[task])
        shutil.rmtree(back)
    shutil.rmtree(out)
    return {"scores": found, **vars(cost), "bytes": size, "bytes_of_experts": whole}


def measure(base: Base, seed: int, home: Path, chosen: Sequence[str] | None = None) -> None:
    """Measure what is missing for one base and seed; of chosen methods, or of all."""
    cache = WORK / base.name / str(seed)
    cache.mkdir(parents=True, exist_ok=True)
    make(base, seed, cache)
    work = {name: lambda name=name: merged(base, seed, cache, name) for name in methods()}
    work["task_arithmetic_swept"] = lambda: swept(base, seed, cache)
    work |= {f"store.{way}": lambda way=way: stored(base, seed, cache, way) for way in PACKERS.names()}
    found = home / f"{base.name}--{seed}"
    found.mkdir(parents=True, exist_ok=True)
    if not (found / "experts.json").exists():
        for name, result in references(base, seed, cache).items():
            write_json(found / f"{name}.json", result)
    for name, run in work.items():
        if (found / f"{name}.json").exists() or (chosen is not None and name not in chosen):
            continue
        result = run()
        write_json(found / f"{name}.json", result)
        average = sum(result["scores"].values()) / len(TASKS)
        print(f"{base.name} {seed} {name}: {average:.3f}, {result['wall']:.1f} s", flush=True)


def results() -> Path:
    """Give the folder for results of the code as it is now."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return WORK / "results" / hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", nargs="+", choices=[base.name for base in BASES], default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument(
        "--methods", nargs="+", default=None, help="some of them, stores as store.NAME; all without it"
    )
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    home = results()
    if not asked.only_summary:
        for seed in asked.seeds:
            for base in BASES:
                if asked.base is None or base.name in asked.base:
                    measure(base, seed, home, asked.methods)
    from benchmarks.merge_summary import summarise

    summarise(home)


if __name__ == "__main__":
    main()
