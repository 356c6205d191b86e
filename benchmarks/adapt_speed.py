"""Tokens per second of a batch of 16 requests with 1, 4 and 16 different experts, beside the bare model.

    python -m benchmarks.adapt_speed [--rounds 9] [--only-summary]

Ways that answer the same 16 requests with the same number of tokens: the bare model; one batch in which the requests
share 1, 4 or 16 experts; and, for the same experts, weights that are rewritten for each of them, its requests answered
as a batch of their own, and the base's weights put back. Rounds are interleaved: every round runs every way once, in an
order that is drawn, so that a busy machine slows all of them alike. A ratio is taken within a round; the figure is the
median over rounds with a bootstrap interval. Experts are drawn at random and dense, so that no direction can be left
out; their values do not change the work.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.adapt_base import BASE, START
from benchmarks.adapt_parts import keep_part
from umaf import seeds
from umaf.adapters import weight_of
from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.chat import asked
from umaf.dispatch.decision import Decision
from umaf.dispatch.decode import Drawing
from umaf.dispatch.shelf import Shelf, open_shelf
from umaf.evaluation.summary import Figure
from umaf.experts.expert import Expert, identity_expert
from umaf.experts.products import laid_out, product
from umaf.models import Model, open_model
from umaf.tasks.door import load_task

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "adapt"
ROWS = 16
TOKENS = 32
COUNTS = (1, 4, 16)
REWRITTEN_EVERY = 3
Way = Callable[[], None]


def made_expert(model: Model, name: str) -> Expert:
    """Draw a dense expert."""
    plain = identity_expert(model, name)
    z = {
        module: 1 + 0.1 * torch.randn(one.shape, generator=seeds.generator(0, "speed", name, module))
        for module, one in plain.z.items()
    }
    return Expert(name, z, plain.card)


def decision_of(shelf: Shelf, count: int) -> Decision:
    """Give the 16 requests the first so many experts in turn; 0 is the base."""
    weights = torch.zeros(ROWS, len(shelf.names))
    for row in range(ROWS if count else 0):
        weights[row, row % count] = 1.0
    return Decision(shelf.names, weights, ("",) * ROWS)


@contextmanager
def rewritten(shelf: Shelf, which: int) -> Iterator[None]:
    """Put an expert into the weights themselves, as the authors' release does, and put the base's back."""
    saved = {}
    for name, z in shelf.experts[which].z.items():
        factors, weight = shelf.factored[name], weight_of(shelf.model, name)
        saved[name] = weight.detach().clone()
        with torch.no_grad():
            weight.copy_((factors.u * (factors.s * z)) @ factors.vh)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, old in saved.items():
                weight_of(shelf.model, name).copy_(old)


@contextmanager
def laid(shelf: Shelf, products: Mapping[str, Callable]) -> Iterator[None]:
    """Let the bare model multiply as experts do."""
    modules = {name: shelf.model.net.get_submodule(name) for name in products}
    try:
        for name, module in modules.items():
            module.forward = products[name]
        yield
    finally:
        for module in modules.values():
            vars(module).pop("forward", None)


def ways(shelf: Shelf, prompts: Sequence[str]) -> dict[str, Way]:
    """List what is timed, by name."""
    adaptive = AdaptiveModel(shelf)
    requests = [asked(shelf.model, text) for text in prompts]
    drawing = Drawing(TOKENS)
    nothing = decision_of(shelf, 0)

    def mixed(count: int) -> Way:
        decision = decision_of(shelf, count)
        return lambda: _counted(adaptive.generate(requests, drawing=drawing, experts=decision))

    def rewrites(count: int) -> Way:
        def run() -> None:
            for which in range(count):
                mine = requests[which::count]
                with rewritten(shelf, which):
                    _counted(adaptive.generate(mine, drawing=drawing, experts=nothing.take(range(len(mine)))))

        return run

    weights = {name: weight_of(shelf.model, name).detach() for name in shelf.modules}
    products = {name: product(weight, laid_out(weight)) for name, weight in weights.items()}

    def same_products() -> None:
        with laid(shelf, products):
            _counted(adaptive.generate(requests, drawing=drawing, experts=nothing))

    found: dict[str, Way] = {"bare": mixed(0), "bare_laid": same_products}
    for count in COUNTS:
        found[f"mixed{count}"] = mixed(count)
        found[f"rewritten{count}"] = rewrites(count)
    return found


def _counted(replies: Sequence) -> None:
    """Every way has to write as many tokens, or its time would mean nothing."""
    short = [reply for reply in replies if reply.tokens != TOKENS]
    if short:
        raise RuntimeError(f"a reply ended after {short[0].tokens} of {TOKENS} tokens")


def measure(shelf: Shelf, prompts: Sequence[str], rounds: int) -> list[dict[str, dict[str, float]]]:
    """Time every way once per round, in an order of the round's own."""
    known = ways(shelf, prompts)
    for way in known.values():
        way()
    found = []
    for number in range(rounds):
        # Rewriting weights 16 times takes as long as everything else together; every third round is enough of it.
        order = [name for name in known if number % REWRITTEN_EVERY == 0 or not name.startswith("rewritten")]
        random.Random(seeds.derive(0, "speed", number)).shuffle(order)
        times = {}
        for name in order:
            cpu, wall = time.process_time(), time.perf_counter()
            known[name]()
            times[name] = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        found.append(times)
        print(
            f"round {number}: bare {times['bare']['wall']:.2f} s, mixed16 {times['mixed16']['wall']:.2f} s",
            flush=True,
        )
    return found


def ratio(
    rounds: Sequence[Mapping[str, Mapping[str, float]]], name: str, clock: str, over: str = "bare"
) -> Figure:
    """Give tokens per second of one way over another's: the median over rounds, with a bootstrap interval."""
    values = np.array([one[over][clock] / one[name][clock] for one in rounds if name in one and over in one])
    draws = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.quantile(np.median(draws, 1), [0.025, 0.975])
    return Figure(
        round(float(np.median(values)), 4), round(float(low), 4), round(float(high), 4), n=len(values)
    )


def endless(model: Model) -> Model:
    """Let no reply end early: a token that never comes takes the place of the end."""
    model.tokenizer.eos_token = None
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=18)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = endless(open_model(BASE if BASE.exists() else START))
    shelf = open_shelf(model, [made_expert(model, f"e{at}") for at in range(ROWS)], cache=WORK / "factored")
    prompts = [f"{one.text}\nanswer:" for one in load_task("graded/stories").test[:ROWS]]
    rounds = measure(shelf, prompts, chosen.rounds)
    figures = {}
    for name in rounds[0]:
        if name == "bare":
            continue
        figures[f"throughput.{name}_over_bare"] = ratio(rounds, name, "wall")
        figures[f"throughput.{name}_over_bare.cpu"] = ratio(rounds, name, "cpu")
    for count in COUNTS:
        figures[f"throughput.mixed{count}_over_rewritten"] = ratio(
            rounds, f"mixed{count}", "wall", f"rewritten{count}"
        )
    for count in COUNTS:
        figures[f"throughput.mixed{count}_over_bare_laid"] = ratio(
            rounds, f"mixed{count}", "wall", "bare_laid"
        )
    main_one = figures["throughput.mixed16_over_bare"]
    figures["throughput.mixed16_over_bare"] = Figure(
        main_one.value, main_one.low, main_one.high, main_one.n, ">= 0.8"
    )
    speed = {
        name: ROWS * TOKENS / statistics.median(one[name]["wall"] for one in rounds if name in one)
        for name in rounds[0]
    }
    for name, figure in figures.items():
        print(f"{name}: {figure.value} ({figure.low} to {figure.high})")
    print({name: round(value) for name, value in speed.items()}, "tokens per second")
    about = {"model": model.name.rsplit("/", 1)[-1], "rows": ROWS, "tokens": TOKENS, "dtype": "float32"}
    keep_part(
        "speed", figures=figures, numbers={"about": about, "tokens_per_second": speed, "rounds": rounds}
    )


if __name__ == "__main__":
    main()
