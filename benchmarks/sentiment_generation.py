"""Sentiment-aware generation: does a decoder write as a classifier of another architecture likes, and at what cost?

    python -m benchmarks.sentiment_generation [--minutes 60] [--only-summary]

A BERT learned to tell praise from blame in remarks on products. By `umaf.generation.tilt` its judgement of a LLaMA's
own continuations becomes a LoRA, one towards praise and one towards blame. Two judges that took no part read what is
then written after openings nobody used: a linear model on words, and a published sentence encoder fine-tuned on film
reviews. Cells are kept under out/sentiment, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from benchmarks.sentiment_judge import Judges, openings, plain_lines
from umaf.adapters import attach
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import mean_interval
from umaf.evaluation.summary import Figure, write_summary
from umaf.files import hash_texts, write_json
from umaf.generation.tilt import drafts, tilt
from umaf.models import Model, open_model
from umaf.readout import bits_per_byte, label_scores, samples
from umaf.tasks.door import load_task
from zoo.bank import expert_of

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "comparison" / "sentiment-generation"
SOURCES = ("benchmarks/sentiment*.py", "zoo/*.py", "src/umaf/generation/tilt.py", "src/umaf/readout/*.py")
BASE, TASK, WANTED = "bert-1m", "pros_cons", "good"
# Another capability of two labels, from the same base.
WRONG, WRONG_WANTED = "clinc150/requests", "order"
TARGETS, SEEDS = ("llama-1m", "llama-5m"), (0, 1, 2)
COST, DRAWS, OPENINGS = 0.07, 16, 256
TESTS, EACH, TEMPERATURE, BEST_OF = 200, 2, 0.7, 8


def main() -> None:
    """Measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no new cell after this long")
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    home = ROOT / "out" / "sentiment" / hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]
    until = time.monotonic() + 60 * asked.minutes
    for seed in SEEDS:
        for name in TARGETS:
            file = home / f"{name}--{seed}.json"
            if file.exists() or asked.only_summary or time.monotonic() > until:
                continue
            began = time.process_time()
            write_json(file, {"target": name, "seed": seed, **measure(name, seed)})
            print(f"{file.stem}: {time.process_time() - began:.0f} s of CPU", flush=True)
    cells = [json.loads(file.read_text()) for file in sorted(home.glob("*.json"))]
    if not cells:
        raise SystemExit("sentiment: nothing has been measured yet.")
    summarise(cells)


def liking(task: str, wanted: str, seed: int):
    """Give the log-odds of one of two labels by an expert, as a judgement of texts."""
    model = open_model(expert_of(BASE, load_task(task), seed=seed))
    place = model.labels.index(wanted)

    def log_odds(texts):
        scores = label_scores(model, texts, (), None, truncate=True)
        return scores[:, place] - scores[:, 1 - place]

    return log_odds


def measure(name: str, seed: int) -> dict:
    """Make every adapter for a target with one seed, and let each write."""
    target, source = open_model(f"zoo:{name}"), liking(TASK, WANTED, seed)
    began = time.process_time()
    own = drafts(target, openings("train", OPENINGS, seed), draws=DRAWS, seed=seed)
    liked = source(own.texts)
    seconds = {"drafts": time.process_time() - began}
    order = torch.randperm(len(liked), generator=torch.Generator().manual_seed(seed))
    judgements = {
        "praise": (liked, False),
        "blame": (liked, True),
        "control_wrong_source": (liking(WRONG, WRONG_WANTED, seed)(own.texts), False),
        "control_shuffled": (liked[order], False),
    }
    judges, forms = Judges(), {"bare": target}
    for who, (judged, away) in judgements.items():
        began = time.process_time()
        forms[who] = attach(target, tilt(target, own, judged, cost=COST, away=away))
        seconds[who] = time.process_time() - began
    found = {who: written(model, target, judges, seed) for who, model in forms.items()}
    found["best_of"] = best_of(target, source, judges, seed)
    return {"forms": found, "cpu": seconds, "judges": judges.accuracies()}


def written(model: Model, bare: Model, judges: Judges, seed: int) -> dict:
    """Let a form of the target write, have it judged, and take bits per byte of plain text."""
    tests, rows = openings("test", TESTS, 0), {}
    for label, temperature in (("", TEMPERATURE), ("_at_1", 1.0)):
        drawn = samples(model, tests, count=EACH, temperature=temperature, seed=seed + 1000)
        texts = [
            opening + draft.rstrip() for opening, each in zip(tests, drawn, strict=True) for draft in each
        ]
        rows[f"words{label}"] = judges.words(texts)
        if not label:
            rows["encoder"] = judges.encoder(texts)
            rows["letters"] = sum(map(len, texts)) / len(texts)
            rows["bits_by_bare"] = bits_per_byte(bare, texts)
            rows["examples"] = texts[:12:EACH]
    return rows | {"bits": bits_per_byte(model, plain_lines(), truncate=True)}


def best_of(target: Model, source, judges: Judges, seed: int) -> dict:
    """What the source could choose at decoding time: the best of some continuations of each opening."""
    tests = openings("test", TESTS, 0)
    chosen = []
    for opening, each in zip(
        tests, samples(target, tests, count=BEST_OF, temperature=TEMPERATURE, seed=seed + 1000), strict=True
    ):
        texts = [opening + draft.rstrip() for draft in each]
        chosen += [texts[int(source(texts).argmax())]] * EACH
    return {"words": judges.words(chosen), "encoder": judges.encoder(chosen)}


def summarise(cells: list[dict]) -> None:
    """Write record and summary; intervals draw whole cells (a target and a seed)."""

    def figure(who: str, less: str, key: str, aim: str | None = None) -> Figure:
        values, groups = [], []
        for cell in cells:
            here, there = (cell["forms"][one][key] for one in (who, less))
            here, there = (one if isinstance(one, list) else [one] for one in (here, there))
            values += [a - b for a, b in zip(here, there, strict=True)]
            groups += [f"{cell['target']} {cell['seed']}"] * len(here)
        found = mean_interval(values, groups=groups)
        return Figure(found.value, found.low, found.high, n=found.n, aim=aim)

    figures = {
        "shift.praise": figure("praise", "bare", "words", ">= 0.10"),
        "shift.blame": figure("blame", "bare", "words", "<= -0.10"),
        "spread": figure("praise", "blame", "words", ">= 0.20"),
        "spread.encoder": figure("praise", "blame", "encoder", ">= 0.10"),
        "spread.at_1": figure("praise", "blame", "words_at_1"),
        "bits.praise": figure("praise", "bare", "bits", "<= 0.05"),
        "bits.blame": figure("blame", "bare", "bits", "<= 0.05"),
        "bits_by_bare.praise": figure("praise", "bare", "bits_by_bare"),
        "control.wrong_source": figure("control_wrong_source", "bare", "words", "<= 0.03"),
        "control.shuffled": figure("control_shuffled", "bare", "words", "<= 0.03"),
        "shift.best_of": figure("best_of", "bare", "words"),
        "cells": Figure(len(cells), n=len(cells), aim=f">= {len(TARGETS) * len(SEEDS)}"),
    }
    for name in TARGETS:
        mine = [cell for cell in cells if cell["target"] == name]
        if mine:
            every, cells = cells, mine
            figures[f"spread.{name}"] = figure("praise", "blame", "words")
            cells = every
    config = {
        "source": f"{BASE} on {TASK}", "wrong_source": WRONG, "targets": TARGETS, "seeds": SEEDS, "cost": COST,
        "draws": DRAWS, "openings": OPENINGS, "tests": TESTS, "each": EACH, "temperature": TEMPERATURE,
    }  # fmt: skip
    numbers = {"figures": {name: vars(one) for name, one in figures.items()}, "cells": cells}
    record = new_record("sentiment-generation", config=config, numbers=numbers)
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)
    for name, one in figures.items():
        span = "" if one.low is None else f"{one.low:+.3f} to {one.high:+.3f}"
        print(f"{name:24} {one.value:+.3f}  {span:20} n {one.n}  {one.aim or ''}")


if __name__ == "__main__":
    main()
