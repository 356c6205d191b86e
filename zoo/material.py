"""Make training material of the bank: for generators from base models alone, for extractors from experts.

    python -m zoo.material space --out zoo/space                    the universal space, of train texts
    python -m zoo.material texts --out out/material                 places of the train texts, for generators
    python -m zoo.material entries --out out/material --model bert-1m gpt2-1m --split train validation

Experts come from the bank (`umaf zoo bank --kind experts`), and those that are missing are left out and counted. All
are read on the same probes, those of a store: on texts of its own an untouched base would already tell a capability
from others, by what the texts are about. Only `entries --split heldout` reads held-out capabilities; what it makes is
measured with, never trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from umaf import seeds
from umaf.errors import TaskError
from umaf.extraction import Reading, fit_universal, load_bound, load_universal, read_inputs
from umaf.extraction.universal import FILE
from umaf.index import default_probes
from umaf.models import Model, open_model
from umaf.tasks import bank, door
from umaf.tasks.task import Example, Task
from umaf.training.entries import Entry, EntryCard
from umaf.training.material import gather
from zoo.bank import CACHE, Item, items, place_of

OUT = Path(__file__).resolve().parents[1] / "out" / "material"
SOURCES = ("bert-1m", "gpt2-1m", "llama-1m", "t5-1m", "mixtral-1m", "minilm")
LETTERS = 120
"""Texts are cut to this many characters: the models are small, and so is the time."""
EACH, CALIBRATION = 60, 4000


def tasks(split: str, *, each: int, data: str | None = None) -> list[Task]:
    """Load the classifications of a split, short: so many training texts of each label, drawn by the task's name.

    Texts that are in any validation or held-out capability are left out of train ones.
    """

    def read(name: str) -> Task:
        return door.load_task(name, data=data)

    forbidden = bank.heldout_texts(read) if split == "train" else frozenset()
    found = []
    for name in bank.names(split, "classification"):
        task = read(name)
        kept = [example for example in task.train if example.text.lower() not in forbidden]
        found.append(replace(task, train=tuple(_few(kept, name, each))))
    return [task for task in found if len({example.answer for example in task.train}) > 1]


def make_space(out: Path, *, reader: str, each: int, data: str | None) -> Path:
    """Write the universal space, of train texts as a reader arranges them."""
    texts = sorted({e.text for task in tasks("train", each=each, data=data) for e in task.train})
    order = np.random.default_rng(seeds.derive(0, "space")).permutation(len(texts))[:CALIBRATION]
    space = fit_universal([texts[at] for at in sorted(order)], reader=place_of(reader))
    return space.save(out / FILE)


def make_texts(out: Path, *, each: int, data: str | None) -> Path:
    """Write the material of generators: texts of train and validation capabilities, and their places."""
    compute = load_bound(out if (out / FILE).is_file() else None)
    asked = [
        (split, task) for split in ("train", "validation") for task in tasks(split, each=each, data=data)
    ]
    return gather(asked, compute).save(out / "material.safetensors")


def make_entries(
    out: Path,
    *,
    models: Sequence[str],
    splits: Sequence[str],
    seeds_of: Sequence[int],
    cache: Path,
    data: str | None,
) -> tuple[int, int]:
    """Write one entry for every expert that the bank holds; how many there are, and how many experts are missing."""
    made = missing = 0
    texts = default_probes()
    places = load_universal().places(texts)
    for model in models:
        base = open_model(place_of(model))
        for split in splits:
            short = {task.name: task for task in tasks(split, each=EACH, data=data)}
            wanted = items(["experts"], [model], list(short.values()), seeds_of, cache)
            for item in track(wanted, description=f"{model} {split}"):
                file = out / "entries" / f"{model}--{item.folder.name}.safetensors"
                if not file.exists() and item.built:
                    inputs = read_inputs(
                        open_model(item.folder),
                        texts,
                        base=base,
                        reading=Reading(truncate=True, behaviour=True),
                    )
                    card = _card(base, model, split, item)
                    Entry(replace(inputs, places=places), card).save(file)
                made, missing = made + file.exists(), missing + (not file.exists())
    return made, missing


def _card(base: Model, model: str, split: str, item: Item) -> EntryCard:
    return EntryCard(
        capability=item.task,
        split=split,
        base=model,
        architecture=str(base.config.model_type),
        parameters=base.parameters,
        layers=base.layers,
        width=base.width,
        seed=item.seed,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is asked for."""
    asked = _parser().parse_args(argv)
    torch.set_num_threads(asked.threads)
    console = Console()
    if asked.what == "space":
        console.print(f"wrote {make_space(asked.out, reader=asked.reader, each=asked.each, data=asked.data)}")
    elif asked.what == "texts":
        path = make_texts(asked.out, each=asked.each, data=asked.data)
        console.print(f"wrote {path}")
    else:
        made, missing = make_entries(
            asked.out,
            models=asked.model,
            splits=asked.split,
            seeds_of=asked.seed,
            cache=asked.cache,
            data=asked.data,
        )
        console.print(f"{made} entries in {asked.out / 'entries'}; {missing} experts are not built yet")


def _few(examples: Sequence[Example], name: str, each: int, *, total: int | None = None) -> list[Example]:
    """Keep so many different texts of each label, cut short, in an order drawn by a name."""
    order = np.random.default_rng(seeds.derive(0, "material", name)).permutation(len(examples))
    counts: dict[str, int] = {}
    found: dict[str, Example] = {}
    for at in order:
        one = replace(examples[at], text=examples[at].text[:LETTERS].strip())
        if one.text and one.text not in found and counts.get(one.answer, 0) < each:
            counts[one.answer] = counts.get(one.answer, 0) + 1
            found[one.text] = one
    return list(found.values())[:total]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.material", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("what", choices=("space", "texts", "entries"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--model", nargs="+", default=list(SOURCES), metavar="NAME", help="the sources")
    parser.add_argument("--reader", default="llama-1m", help="the model that reads texts into the space")
    parser.add_argument("--split", nargs="+", choices=bank.SPLITS, default=["train", "validation"])
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--each", type=int, default=EACH, help="texts of each label")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the bank is kept")
    parser.add_argument("--data", help="folder of real data")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    try:
        main()
    except TaskError as problem:
        raise SystemExit(str(problem)) from None
