"""How recovery grows with the number of capabilities that a generator was trained on.

    python -m benchmarks.transfer_counts [--seeds 1] [--counts 8 32 64 128 256 0]

Generators for one target, alike in everything but how many train capabilities they saw; each number's capabilities are
among those of the next, and 0 is all of them. All take the same steps, and adapters get all of what is trained. Kept as
it comes; the summary of the benchmark reads it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.first_light_summary import as_figure, mean_recovery
from benchmarks.making import RANK, bare, oracle
from benchmarks.transfer import cache, prepare
from benchmarks.transfer_cells import bare_score, score, told
from benchmarks.transfer_plan import CAPABILITIES
from umaf import seeds
from umaf.adapters import attach
from umaf.evaluation.summary import Figure
from umaf.extraction import load_bound
from umaf.files import write_json
from umaf.generation.forward import forward
from umaf.generation.generator import Generator, load_generator, save_generator
from umaf.training.generator import train_generator
from umaf.training.lesson import GeneratorSettings
from umaf.training.material import Material, load_material

TARGET, SOURCES = "llama-1m", ("bert-1m", "gpt2-1m")
COUNTS = (8, 32, 64, 128, 256, 0)
"""0 is all of them."""
STEPS = 120


def some(whole: Material, count: int, seed: int) -> Material:
    """Keep some of the train capabilities, drawn in an order that the seed fixes, and all others."""
    train = whole.of("train")
    order = np.random.default_rng(seeds.derive(seed, "transfer", "counts")).permutation(len(train))
    kept = tuple(train[at] for at in order[: count or len(train)])
    return replace(whole, capabilities=(*kept, *whole.of("validation")))


def taught(home: Path, count: int, seed: int) -> Generator:
    """Train a generator on so many capabilities, or open it where that was done."""
    folder = home / "counts" / f"{TARGET}--{count or 'all'}--{seed}"
    if not folder.exists():
        material = some(load_material(home / "material.safetensors"), count, seed)
        plan = GeneratorSettings(steps=STEPS, look_every=STEPS, keep_every=20, seed=seed, share=1.0)
        state = folder.with_suffix(".unfinished")
        made, _ = train_generator(bare(TARGET), material, load_bound(), settings=plan, folder=state)
        save_generator(made, folder)
    return load_generator(folder)


def measure(home: Path, count: int, seed: int) -> list[dict]:
    """Score the held-out capabilities from every source."""
    file = home / "counts" / f"{count or 'all'}--{seed}.json"
    if not file.exists():
        own, target, found = taught(home, count, seed), bare(TARGET), []
        for source in SOURCES:
            for name in CAPABILITIES:
                shown = told(source, TARGET, name, 0, home)
                made = forward(target, [shown.goal], rank=RANK, generator=own, fingerprint=shown.fingerprint)
                best = oracle(TARGET, name, 0, home, "counts").value
                scores = {
                    "bare": bare_score(TARGET, name),
                    "generate": score(attach(target, made.factors), name),
                    "oracle": score(attach(target, best), name),
                }
                found.append({"source": source, "capability": name, "scores": scores})
        write_json(file, found)
    return json.loads(file.read_text())


def figures(home: Path) -> dict[str, Figure]:
    """Compute the mean recovery per number of capabilities, over what was measured."""
    found = {}
    for count in COUNTS:
        rows = [
            {"cell": {"capability": one["capability"]}, "scores": one["scores"]}
            for file in sorted((home / "counts").glob(f"{count or 'all'}--*.json"))
            for one in json.loads(file.read_text())
        ]
        if rows:
            name = f"recovery.generate.trained_on.{count or 'all'}"
            found[name] = as_figure(mean_recovery(rows, "generate"), None)
    return found


def main() -> None:
    """Train and measure what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    home = cache()
    prepare(home, ())
    for seed in range(asked.seeds):
        for count in asked.counts:
            rows = measure(home, count, seed)
            print(count or "all", seed, np.mean([one["scores"]["generate"] for one in rows]), flush=True)


if __name__ == "__main__":
    main()
