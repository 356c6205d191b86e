"""Build the zoo: train its tokenizers and models on the data folder, and write them with their cards.

    python -m zoo.build [--data DIR] [--only llama-1m --only ...] [--cache DIR]        (the same as `umaf zoo build`)

Everything is seeded, resumes where it was stopped, and a model that is already there is left alone. The eight
models take about seventy minutes of one core in bfloat16.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from umaf.errors import ConfigError, did_you_mean
from umaf.tasks import door
from zoo import card, corpus
from zoo.batches import encode, objective
from zoo.configs import ROWS
from zoo.pretrain import pretrain
from zoo.vocabulary import MAKERS

HERE = Path(__file__).resolve().parent
SEED, DTYPE = 1, "bfloat16"


def build(
    only: Sequence[str] = (),
    *,
    data: str | Path | None = None,
    out: Path | None = None,
    cache: Path | None = None,
    seed: int = SEED,
    device: str = "cpu",
    dtype: str = DTYPE,
    say: Callable[[str], object] = print,
) -> list[dict]:
    """Build what is asked for and missing.

    Args:
        only: names of `ROWS`; all when none is given.
        data: folder of real data.
        out: where the models go.
        cache: where a build that is stopped leaves what it has.
        seed: of weights and batches.
        device: where to train.
        dtype: of the arithmetic; weights stay float32.
        say: called with a line for each model.

    Returns:
        Per model its name, its folder, and whether it was written now.

    Raises:
        ConfigError: a name that the zoo does not have, or no data.
    """
    out, cache = out or HERE / "models", cache or HERE.parent / "out" / "zoo-cache"
    for name in only:
        if name not in ROWS:
            raise ConfigError(
                f"The zoo was asked for {name!r}, but it has {', '.join(ROWS)}.{did_you_mean(name, ROWS)}"
            )
    found = door.find_data(data)
    if found is None:
        raise ConfigError("umaf zoo build: no folder of real data was found; name one with --data.")
    if (seed, dtype) != (SEED, DTYPE):
        cache = cache / f"{seed}-{dtype}"
    cache.mkdir(parents=True, exist_ok=True)
    text = corpus.read(found, seed)
    lines = text.lines()
    say(f"{sum(map(len, lines)) / 1e6:.1f} million characters, {len(text.pairs):,} prompts with answers")
    rows = []
    for name in only or ROWS:
        missing = not (out / name / "model.safetensors").exists()
        if missing:
            row = ROWS[name]
            tokenizer = MAKERS[row.vocabulary](lines)
            _, lead = objective(row.config.model_type)
            kind = getattr(torch, dtype)
            net = pretrain(
                row, encode(text, tokenizer, lead), tokenizer, cache, seed, device=device, dtype=kind
            )
            tokenizer.model_max_length = 128
            curve = [json.loads(line) for line in (cache / f"{name}.jsonl").read_text().splitlines()]
            card.write(out / name, row, net, tokenizer, curve)
        say(f"{name}: {'written' if missing else 'already there'}")
        rows.append({"name": name, "folder": str(out / name), "written": missing})
    return rows


if __name__ == "__main__":
    from umaf.cli import main

    main(["zoo", "build", *sys.argv[1:]])
