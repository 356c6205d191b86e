"""Merging, measured: eight experts of one base by every method at its default, and what is left of each.

    python -m benchmarks.merge [--base llama-1m minilm] [--seeds 0 1 2] [--methods ties …] [--only-summary]

Experts are made once and kept; so is every result, as long as the code that made it is the same. At the end all of
them become a dated record, comparison/merge/summary.json, and a table.
"""

from __future__ import annotations

import argparse
import copy
import functools
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from benchmarks.merge_experts import Asked, accuracy, first, heads_of, make, open_base, texts_of
from benchmarks.merge_plan import ALONE, BASES, CHOOSING, SCALED, SCALES, SEEDS, TASKS, Base
from benchmarks.speed_run import ROOT, Cost, merge_cost
from umaf.files import hash_texts, write_json
from umaf.merging.registry import METHODS, method_of
from umaf.merging.stores import PACKERS
from umaf.models import bare, open_model

WORK = ROOT / "out" / "merge"
SOURCES = (
    "src/umaf/merging/**/*.py",
    "src/umaf/tensors/*.py",
    "benchmarks/merge_experts.py",
    "benchmarks/merge_plan.py",
    "constraints.txt",
)
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


@functools.cache
def asked_of(base: Base, split: str, seed: int) -> dict[str, Asked]:
    """Draw the texts that every model of a base is asked; the tokenizer is the base's in all of them."""
    return texts_of(open_base(base), split, seed)


def scores(net: nn.Module, texts: dict[str, Asked], heads: dict) -> dict[str, float]:
    """Accuracy of one encoder on every task, each read by its own fixed head."""
    return {name: accuracy(net.eval(), texts[name], heads[name]) for name in TASKS}


def opened(folder: Path) -> nn.Module:
    """Open the encoder in a folder."""
    return bare(open_model(folder, head="base").net).eval()


def references(base: Base, seed: int, cache: Path) -> dict[str, dict]:
    """Measure what needs no merging: the base, each expert on its own task, and the model of all tasks.

    "alone.S" is S times an expert's delta on the base, asked the expert's own task: what a merge that gives each expert
    this share would keep if the others did not disturb it.
    """
    heads, texts = heads_of(cache), asked_of(base, "test", seed)
    start, own = opened(cache / "base"), {}
    alone: dict[float, dict[str, float]] = {share: {} for share in ALONE}
    for name in TASKS:
        expert = opened(cache / name)
        own[name] = accuracy(expert, texts[name], heads[name])
        for share, net in between(start, expert, ALONE):
            alone[share][name] = accuracy(net, texts[name], heads[name])
    return {
        "base": {"scores": scores(start, texts, heads)},
        "multitask": {"scores": scores(opened(cache / "multitask"), texts, heads)},
        **{f"alone.{share:g}": {"scores": found} for share, found in alone.items()},
        "experts": {"scores": own, "apart": apart(cache)},
    }


def between(start: nn.Module, end: nn.Module, shares: Sequence[float]) -> Iterator[tuple[float, nn.Module]]:
    """Give the models on the line from one to another, one after the other: 0 is the first, 1 the second."""
    net, first, last = copy.deepcopy(start), start.state_dict(), end.state_dict()
    for share in shares:
        moved = {
            name: torch.lerp(value, last[name], share) if value.is_floating_point() else value
            for name, value in first.items()
        }
        net.load_state_dict(moved)
        yield share, net


def apart(cache: Path) -> dict[str, float]:
    """Measure how far experts are from their base and from each other.

    Returns:
        `length`: of a delta, as a share of the base's, the mean over experts. `cosine` between deltas of two experts,
        the mean over pairs. `rank`: share of a delta's energy in the first of every eight singular directions, the mean
        over experts and some of the matrices.
    """
    base = load_file(cache / "base" / "model.safetensors")
    experts = [load_file(cache / name / "model.safetensors") for name in TASKS]
    gram, total, shares = torch.zeros(len(TASKS), len(TASKS), dtype=torch.float64), 0.0, []
    for place, (name, value) in enumerate(sorted(base.items())):
        deltas = torch.stack([expert[name] - value for expert in experts]).flatten(1)
        gram += (deltas @ deltas.T).double()
        total += float(value.double().square().sum())
        if value.ndim == 2 and "embed" not in name and place % 4 == 0:
            energy = torch.linalg.svdvals(deltas.view(len(TASKS), *value.shape)).square()
            kept = energy[:, : energy.shape[1] // len(TASKS)].sum(1) / energy.sum(1)
            shares.append(float(kept.mean()))
    length = gram.diagonal().sqrt()
    cosine = gram / length.outer(length)
    others = cosine[~torch.eye(len(TASKS), dtype=torch.bool)]
    return {
        "length": float(length.mean()) / total**0.5,
        "cosine": float(others.mean()),
        "rank": sum(shares) / len(shares),
    }


def merged(base: Base, seed: int, cache: Path, method: str) -> dict:
    """Merge by the command line, open the result, and ask it every task."""
    cost = merge_by(method, cache)
    result = scores(opened(cache / "merged"), asked_of(base, "test", seed), heads_of(cache))
    shutil.rmtree(cache / "merged")
    return {"scores": result, **vars(cost)}


def merge_by(method: str, cache: Path) -> Cost:
    """Merge the experts in a folder by the command line into its folder `merged`."""
    file = cache / "recipe.yml"
    file.write_text(yaml.safe_dump(recipe(method, cache)))
    return merge_cost([UMAF, "merge", file], cache / "merged")


def scaled(base: Base, seed: int, cache: Path, method: str) -> dict:
    """Merge by a method, and multiply the merged delta by what does best on validation texts (`scale` in a recipe)."""
    cost, heads = merge_by(method, cache), heads_of(cache)
    texts = {name: first(asked, CHOOSING) for name, asked in asked_of(base, "validation", seed).items()}
    start, end = opened(cache / "base"), opened(cache / "merged")
    tried = {scale: scores(net, texts, heads) for scale, net in between(start, end, SCALES)}
    best = max(tried, key=lambda scale: sum(tried[scale].values()))
    ((_, net),) = between(start, end, [best])
    result = scores(net, asked_of(base, "test", seed), heads)
    shutil.rmtree(cache / "merged")
    curve = {f"{scale:g}": sum(found.values()) / len(TASKS) for scale, found in tried.items()}
    return {"scores": result, **vars(cost), "scale": best, "validation": curve}


def stored(base: Base, seed: int, cache: Path, way: str) -> dict:
    """Pack the experts, restore each, and ask each its own task."""
    out, heads = cache / "store", heads_of(cache)
    texts = asked_of(base, "test", seed)
    experts = [part for task in TASKS for part in ("--expert", f"{task}={cache / task}")]
    cost: Cost = merge_cost([UMAF, "compress", way, "--base", cache / "base", *experts], out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    whole = sum(path.stat().st_size for task in TASKS for path in (cache / task).glob("*.safetensors"))
    found = {}
    for task in TASKS:
        back = cache / "restored"
        merge_cost([UMAF, "restore", out, "--base", cache / "base", "--expert", task], back)
        found[task] = accuracy(opened(back), texts[task], heads[task])
        shutil.rmtree(back)
    shutil.rmtree(out)
    return {"scores": found, **vars(cost), "bytes": size, "bytes_of_experts": whole}


def measure(base: Base, seed: int, home: Path, chosen: Sequence[str] | None = None) -> None:
    """Measure what is missing for one base and seed; of chosen methods, or of all."""
    cache = WORK / base.name / str(seed)
    cache.mkdir(parents=True, exist_ok=True)
    make(base, seed, cache)
    work = {name: lambda name=name: merged(base, seed, cache, name) for name in methods()}
    work["task_arithmetic_swept"] = lambda: scaled(base, seed, cache, "task_arithmetic")
    work |= {f"store.{way}": lambda way=way: stored(base, seed, cache, way) for way in PACKERS.names()}
    work |= {f"scaled.{name}": lambda name=name: scaled(base, seed, cache, name) for name in SCALED}
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
    parser.add_argument("--earlier", type=Path, help="a record that gives cells that are not measured yet")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    home = results()
    if not asked.only_summary:
        for seed in asked.seeds:
            for base in BASES:
                if asked.base is None or base.name in asked.base:
                    measure(base, seed, home, asked.methods)
    from benchmarks.merge_summary import summarise

    summarise(home, asked.earlier)


if __name__ == "__main__":
    main()
