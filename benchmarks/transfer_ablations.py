"""What a generated adapter owes to which part: the share of the trained LoRA, the probes, the fingerprint.

    python -m benchmarks.transfer_ablations [--minutes 30]

Four sources, one target, every held-out capability, one seed. Kept as it comes; the summary of the benchmark reads it.

- `weights`: no training through the target at all: kernel ridge regression from fingerprints to the weights of LoRAs
  that were trained on train capabilities, all from the same fresh A, so that their factors compare. First source only.
- `answers`: the source's answers themselves in place of what the fingerprint says of each probe.
- `probes48` to `probes768`: so many probes in place of 384, or as many as there are.
- `share50`, `share75`, `share100`: so many hundredths of the shared LoRA, whatever the generator keeps.
- `refined50`, `refined50_probes768`: 50 gradient steps more, with 384 and 768 probes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.first_light_summary import as_figure, mean_recovery
from benchmarks.making import RANK, bare, oracle
from benchmarks.transfer import cache, prepare
from benchmarks.transfer_cells import Told, bare_score, fingerprint_of, generator, score, told
from benchmarks.transfer_plan import CAPABILITIES, PROBES, REFINE
from benchmarks.transfer_rivals import alone, material
from umaf import seeds
from umaf.adapters import Factors, attach, combine
from umaf.adapters.factors import truncate
from umaf.evaluation.summary import Figure
from umaf.extraction import Answers, bind
from umaf.files import write_json
from umaf.generation import forward as route
from umaf.generation.forward import forward
from umaf.generation.generator import Generator, with_plain
from umaf.generation.goals import part
from umaf.training.lesson import SHARES, says, view

SOURCES, TARGET, SEED = ("bert-1m", "gpt2-1m", "t5-1m", "mixtral-1m"), "llama-1m", 0
TAUGHT = 48
"""LoRAs of train capabilities that weights are regressed on."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
FEWER, MORE = (48, 96, 192), 768


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no new capability after this long")
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * parser.parse_args().minutes
    home = cache()
    prepare(home, (TARGET,))
    for source in SOURCES:
        for name in CAPABILITIES:
            if time.monotonic() < until:
                print(source, name, measure(home, source, name)["scores"], flush=True)


def measure(home: Path, source: str, name: str) -> dict:
    """Score every variant on a held-out capability, or read what was scored before."""
    file = home / "ablations" / f"{source}--{name.replace('/', '-')}.json"
    if not file.exists():
        target = bare(TARGET)
        scores = {"bare": bare_score(TARGET, name)}
        scores["oracle"] = score(attach(target, oracle(TARGET, name, SEED, home, "ablations").value), name)
        for who, make in variants(home, source, name).items():
            scores[who] = score(attach(target, make()), name)
        write_json(file, {"cell": {"source": source, "capability": name}, "scores": scores})
    return json.loads(file.read_text())


def variants(home: Path, source: str, name: str) -> dict[str, Callable[[], Factors]]:
    """List the ways an adapter is made of what a source shows of a capability."""
    own, target = generator(TARGET, home / "generators"), bare(TARGET)
    shown, more = (told(source, TARGET, name, SEED, home, count) for count in (PROBES, MORE))

    def generated(one: Told, *, by: Generator = own, refine: int = 0) -> Factors:
        given = {"generator": by, "fingerprint": one.fingerprint, "refine": refine}
        return forward(target, [one.goal], rank=RANK, **given).factors

    def few(count: int) -> Factors:
        goal = part(shown.goal, range(min(count, len(shown.goal.texts))))
        found = fingerprint_of(bare(source), goal, goal.wanted)
        return generated(replace(shown, goal=goal, fingerprint=found))

    def shared(share: float) -> Factors:
        kept = replace(own, card=replace(own.card, share=share))
        return generated(shown, by=with_plain(kept, target))

    def answered() -> Factors:
        said = functional.one_hot(shown.goal.wanted.argmax(1), len(shown.goal.labels)).float()
        with mock.patch.object(route, "calls", return_value=[said]):
            return generated(shown)

    found: dict[str, Callable[[], Factors]] = {"generate": lambda: generated(shown), "answers": answered}
    found |= {f"probes{count}": lambda count=count: few(count) for count in FEWER}
    found |= {f"probes{MORE}": lambda: generated(more)}
    found |= {f"share{share * 100:.0f}": lambda share=share: shared(share) for share in SHARES}
    found |= {f"refined{REFINE}": lambda: generated(shown, refine=REFINE)}
    found |= {f"refined{REFINE}_probes{MORE}": lambda: generated(more, refine=REFINE)}
    if source == SOURCES[0]:
        found["weights"] = lambda: regressed(home, shown.fingerprint.vector[0])
    return found


def regressed(home: Path, vector: Tensor) -> Factors:
    """Predict an adapter's weights from a fingerprint: a weighted sum of trained ones, as kernel ridge gives it.

    The strength is the one that predicts best when each trained adapter is left out in turn.
    """
    whole, target = material(home), bare(TARGET)
    some = [one for one in whole.of("train") if len(one.labels) <= RANK and says(target, one.cue, one.labels)]
    order = np.random.default_rng(seeds.derive(0, "transfer", "weights")).permutation(len(some))[:TAUGHT]
    chosen = [some[at] for at in order]
    known = []
    for one in chosen:
        words = Answers(one.cue, one.labels, torch.zeros(1, len(one.labels))).words
        parts = view(whole, one, torch.arange(len(one.rows)))
        known.append(bind(dict(zip(words, parts, strict=True))))
    rows = functional.normalize(torch.stack(known).double(), dim=1)
    asked = functional.normalize(vector.double(), dim=0)
    adapters = [alone(TARGET, one, home) for one in chosen]
    kernel, inner = rows @ rows.T, _inner(adapters)
    best = min(RIDGES, key=lambda ridge: _left_out(kernel, inner, ridge))
    weights = torch.linalg.solve(kernel + best * torch.eye(len(kernel)).double(), rows @ asked)
    return truncate(combine(adapters, weights.tolist()), RANK)[0]


def _inner(adapters: list[Factors]) -> Tensor:
    """Give the inner products of updates, never forming one."""
    total, count = torch.zeros(len(adapters), len(adapters)).double(), len(adapters)
    for name in adapters[0]:
        down = torch.cat([one[name][0] for one in adapters]).double()
        up = torch.cat([one[name][1].mT for one in adapters]).double()
        both = (up @ up.T) * (down @ down.T)
        total += both.reshape(count, -1, count, both.shape[1] // count).sum((1, 3))
    return total


def _left_out(kernel: Tensor, inner: Tensor, ridge: float) -> float:
    """Mean squared error of every adapter as the others predict it, from inner products alone."""
    inverse = torch.linalg.inv(kernel + ridge * torch.eye(len(kernel)).double())
    # The closed form of leaving one out: the residual over the diagonal of the inverse.
    misses = inverse / inverse.diagonal()[:, None]
    return float((misses @ inner @ misses.T).diagonal().mean())


def figures(home: Path) -> dict[str, Figure]:
    """Compute the mean recovery of every variant over what was measured."""
    rows = [json.loads(file.read_text()) for file in sorted((home / "ablations").glob("*.json"))]
    names = dict.fromkeys(name for row in rows for name in row["scores"] if name not in ("bare", "oracle"))
    return {f"ablation.{name}": as_figure(mean_recovery(rows, name), None) for name in names}


if __name__ == "__main__":
    main()
