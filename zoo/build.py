"""Build the zoo: train its tokenizers and models on the data folder, and write them with their cards.

    python -m zoo.build [--data DIR] [--only llama-1m ...] [--cache DIR]

Everything is seeded, resumes where it was stopped, and a model that is already there is left alone. The eight
models take about seventy minutes of one core in bfloat16.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from umaf.tasks import door
from zoo import card, corpus
from zoo.batches import encode, objective
from zoo.configs import ROWS
from zoo.pretrain import pretrain
from zoo.vocabulary import MAKERS

HERE = Path(__file__).resolve().parent
SEED = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Build what is asked for and missing."""
    parser = argparse.ArgumentParser(prog="umaf zoo build", description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of real data")
    parser.add_argument("--only", nargs="*", choices=sorted(ROWS), help="models to build; all when not given")
    parser.add_argument("--out", type=Path, default=HERE / "models")
    parser.add_argument("--cache", type=Path, default=HERE.parent / "out" / "zoo-cache")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args(argv)
    data = door.find_data(asked.data)
    if data is None:
        raise SystemExit("umaf zoo build: no folder of real data was found; name one with --data.")
    torch.set_num_threads(asked.threads)
    asked.cache.mkdir(parents=True, exist_ok=True)
    console = Console()
    text = corpus.read(data, SEED)
    lines = text.lines()
    console.print(
        f"{sum(map(len, lines)) / 1e6:.1f} million characters, {len(text.pairs):,} prompts with answers"
    )
    for name in asked.only or ROWS:
        if (asked.out / name / "model.safetensors").exists():
            console.print(f"{name}: already there")
            continue
        row = ROWS[name]
        tokenizer = MAKERS[row.vocabulary](lines)
        _, lead = objective(row.config.model_type)
        net = pretrain(row, encode(text, tokenizer, lead), tokenizer, asked.cache, SEED)
        tokenizer.model_max_length = 128
        curve = [json.loads(line) for line in (asked.cache / f"{name}.jsonl").read_text().splitlines()]
        card.write(asked.out / name, row, net, tokenizer, curve)
        console.print(f"{name}: written")


if __name__ == "__main__":
    main()
