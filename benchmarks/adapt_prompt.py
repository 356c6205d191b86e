"""Which expert a request of a train task gets, by prompt, classifier and probe: there the right name is known.

    python -m benchmarks.adapt_prompt

Validation texts of the train tasks are sorted by the dispatchers of `benchmarks.adapt_unseen`, which have learnt from
texts of the train side: 16 requests per expert for the prompt, 120 for the classifier and the probe. How the prompt
reads scores, and the classifier's question, were chosen on texts of seeds 97 to 99, which are not reported. A fifth
outcome, none of the experts, is open to all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.adapt import task_of
from benchmarks.adapt_parts import keep_part
from benchmarks.adapt_plan import SEEDS, TASKS
from benchmarks.adapt_unseen import BATCH, dispatcher_of
from umaf.evaluation.summary import Figure

SORTED = 40
"""Validation texts per train task and seed that are sorted by name."""
WAYS = ("prompt", "classifier", "probe")


def chosen(by: str, seed: int) -> dict[str, list[str]]:
    """Give by task which expert every text gets; "other" where it gets the base."""
    found, decide = {}, dispatcher_of(by, seed)
    for task in TASKS:
        texts = [one.text for one in task_of(task, seed).validation[:SORTED]]
        names: list[str] = []
        for start in range(0, len(texts), BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                decision = decide(texts[start : start + BATCH])
            for row in decision.weights:
                names.append(decision.names[int(row.argmax())] if row.any() else "other")
        found[task] = names
    return found


def interval(parts: Sequence[np.ndarray]) -> Figure:
    """Give a mean over everything, with an interval that draws parts, then what is in them."""
    random = np.random.default_rng(0)
    draws = [
        np.concatenate(
            [random.choice(parts[i], len(parts[i])) for i in random.integers(0, len(parts), len(parts))]
        ).mean()
        for _ in range(2000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    whole = np.concatenate(parts)
    return Figure(round(float(whole.mean()), 4), round(float(low), 4), round(float(high), 4), n=len(whole))


def main(arguments: Sequence[str] | None = None) -> None:
    """Sort every text, print and keep."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args(arguments)
    torch.set_num_threads(1)
    figures, table = {}, {}
    for by in WAYS:
        sorted_ = [chosen(by, seed) for seed in SEEDS]
        right = [
            np.array([float(name == task.partition("/")[2]) for task in TASKS for name in one[task]])
            for one in sorted_
        ]
        figures[f"first_pass.named_rightly.{by}"] = interval(right)
        table[by] = {
            task: {name: sum(one[task].count(name) for one in sorted_) for name in _names(sorted_, task)}
            for task in TASKS
        }
        print(by, figures[f"first_pass.named_rightly.{by}"], table[by], flush=True)
    keep_part("unseen_prompt", figures=figures, numbers={"texts": SORTED, "chosen": table})


def _names(sorted_: Sequence[dict[str, list[str]]], task: str) -> list[str]:
    return sorted({name for one in sorted_ for name in one[task]})


if __name__ == "__main__":
    main()
