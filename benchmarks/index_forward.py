"""What a fingerprint costs beside one plain pass over the same probes: CPU time, side by side.

    python -m benchmarks.index_forward

Texts of like length go together in the same batches on both sides, in float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.index_plan import DESIGN, task_of
from benchmarks.index_read import home
from umaf.errors import UmafError
from umaf.extraction import extract, load_answered
from umaf.files import write_json
from umaf.index.space import default_probes, make_space
from umaf.index.told import Ask, read_told
from umaf.models import Model, open_model
from umaf.readout.encode import encode, forward
from zoo.bank import place_of

HEADLINE = "llama-1m, answers"
ASK = Ask("sentiment", ("positive", "negative"))


def ratios(*, repeats: int = 9) -> dict[str, Any]:
    """Measure models of 1M and 22M parameters; the extractors answers and pca; the default probes and a thousand.

    The reader's places of the probes are the same for every model of a store and read once before; so are a base's
    answers, and no base is given here.
    """
    found: dict[str, Any] = {}
    texts = default_probes()
    many = tuple(dict.fromkeys(e.text for name in DESIGN[:6] for e in task_of(name).train[:180]))
    spaces = {"": make_space(texts), ", thousand": make_space(many)}
    compute = load_answered()
    for space in spaces.values():
        compute.space.places(space.texts)
    for name in ("llama-1m", "bert-1m", "minilm"):
        try:
            model = open_model(place_of(name))
        except UmafError as problem:
            found[name] = {"missing": str(problem)}
            continue
        told = [ASK] if model.head == "lm" else []
        for which, space in spaces.items():
            rounds = repeats if name != "minilm" else 5
            if which and name != "llama-1m":
                continue
            ways: dict[str, Callable[[], Any]] = {
                "answers": lambda: read_told(model, space, compute, told=told),  # noqa: B023
                "pca": lambda: extract(model, space.texts, truncate=True),  # noqa: B023
            }
            for way, make in ways.items():
                if way == "answers" or not (which or name == "bert-1m"):
                    found[f"{name}, {way}{which}"] = _side_by_side(model, space.texts, make, rounds)
    return found


def _side_by_side(model: Model, texts: Sequence[str], make: Callable[[], Any], rounds: int) -> dict[str, Any]:
    shares, seconds = [], []
    _plain(model, texts)
    make()
    for _ in range(rounds):
        plain = _timed(lambda: _plain(model, texts))
        spent = _timed(make)
        shares.append(spent / plain)
        seconds.append(spent)
    middle = float(np.median(seconds))
    return {"probes": len(texts), "ratios": shares, "cpu_s": middle, "per_minute": 60 / middle}


def _timed(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _plain(model: Model, texts: Sequence[str]) -> None:
    """Read the probes once, without any prompt, texts of like length together."""
    with torch.inference_mode():
        batch = encode(model, list(texts), None, truncate=True)
        for part in batch.mask.sum(1).argsort(stable=True).split(32):
            taken = batch.take(part)
            if model.kind == "encoder-decoder":
                model.net.get_encoder()(input_ids=taken.ids, attention_mask=taken.mask)
            else:
                forward(model, taken)


def main() -> None:
    """Measure on a quiet machine, and keep what was found."""
    torch.set_num_threads(1)
    found = ratios()
    write_json(home() / "forward.json", found)
    for name, values in found.items():
        print(name, {key: values[key] for key in values if key != "probes"}, flush=True)


if __name__ == "__main__":
    main()
