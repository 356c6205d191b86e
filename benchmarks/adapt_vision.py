"""Experts inside a model that sees: trained on text and used on pictures, and trained on pictures.

    python -m benchmarks.adapt_vision [--seeds 0 1 2]

A LLaVA-style model is made of a zoo language model and a small fresh vision tower. First it learns to see: tower and
projector bring a picture's token to where the language model has the word for it (digits and the letters O, X, T
and L as shapes); the language model stays as it is. Then experts of questions (is the digit odd, is it high, is it a
digit at all) are trained in the language model alone, on words; they are attached inside the seeing model and asked
about test pictures. Beside them: the seeing model without an expert, the expert of another question, and an expert
trained inside the seeing model on training pictures. Digits are MNIST's where the data folder has them, and drawn by
the project otherwise; shapes are always drawn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.adapt_parts import keep_part
from benchmarks.pictures import NAMES, SIZE, Pictures, pictures
from umaf import seeds
from umaf.evaluation.statistics import mean_interval
from umaf.evaluation.summary import Figure
from umaf.experts import Factored, attached, bounded, decompose, svf_modules
from umaf.experts.vision import language_of, with_eyes
from umaf.files import hash_texts, write_json
from umaf.models import Model, open_model
from umaf.readout.verbaliser import label_tokens

Factors = Mapping[str, Factored]
ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "adapt" / "vision"
SOURCES = ("benchmarks/adapt_vision.py", "benchmarks/pictures.py", "src/umaf/experts/vision.py")
LANGUAGE = "zoo:llama-1m"
SEEDS = (0, 1, 2)
SEE, STEPS, RATE, BATCH, TEST = 800, 120, 0.05, 32, 500
QUESTIONS: dict[str, tuple[str, Mapping[str, str]]] = {
    "parity": ("parity", {name: "odd" if int(name) % 2 else "even" for name in NAMES if name.isdigit()}),
    "height": ("height", {name: "high" if int(name) > 4 else "low" for name in NAMES if name.isdigit()}),
    "kind": ("kind", {name: "number" if name.isdigit() else "shape" for name in NAMES}),
}
"""Per question, the word before the answer and the answer by what is seen."""


@dataclass(frozen=True)
class Question:
    """One question of the plan, as tokens: after the thing comes the cue, and then one of two labels."""

    cue: tuple[int, ...]
    labels: tuple[int, ...]
    truth: Mapping[int, int]


def question(model: Model, name: str) -> Question:
    """Turn a question into tokens; things by their number in NAMES."""
    cue, answers = QUESTIONS[name]
    words = tuple(dict.fromkeys(answers.values()))
    ids = model.tokenizer(f"\n{cue}:", add_special_tokens=False)["input_ids"]
    truth = {NAMES.index(thing): words.index(word) for thing, word in answers.items()}
    return Question(tuple(ids), tuple(label_tokens(model.tokenizer, list(words))), truth)


def things(model: Model) -> list[int]:
    """Give the one token that each thing's name is."""
    found = [model.tokenizer(name, add_special_tokens=False)["input_ids"] for name in NAMES]
    assert all(len(ids) == 1 for ids in found)
    return [ids[0] for ids in found]


def learn_to_see(model: Model, shown: Pictures, seed: int) -> None:
    """Train tower and projector so that a picture's token lies at its word; nothing of the language model moves."""
    words = model.net.get_input_embeddings().weight[things(model)].detach()
    parts = [model.net.model.vision_tower, model.net.model.multi_modal_projector]
    free = [parameter for part in parts for parameter in part.parameters()]
    optimiser = torch.optim.AdamW(free, lr=2e-3)
    draw, spread = seeds.generator(seed, "see"), words.std()
    for step in range(SEE):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / SEE)
        rows = torch.randint(len(shown.names), (64,), generator=draw)
        seen = model.net.model.get_image_features(shown.pixels[rows]).pooler_output
        seen = (
            torch.stack([each.squeeze(0) for each in seen])
            if not isinstance(seen, Tensor)
            else seen.squeeze(1)
        )
        apart = torch.cdist(seen / spread, words / spread).square()
        value = (
            functional.cross_entropy(-apart / 8, shown.names[rows])
            + apart.gather(1, shown.names[rows, None]).mean() / 100
        )
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()


def look(model: Model, pixels: Tensor) -> Tensor:
    """Give the one token of every picture as the language model gets it, ``[picture, hidden]``."""
    return torch.cat(list(model.net.model.get_image_features(pixels).pooler_output))


def decide(model: Model, asked: Question, first: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Give logits of the labels ``[row, label]`` for things by their tokens, or by pictures where these are given."""
    begin = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
    rows = [[*begin, int(token), *asked.cue] for token in first]
    more = {} if pixels is None else {"pixel_values": pixels}
    ids = torch.tensor(rows)
    logits = model.net(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **more).logits[
        :, -1
    ]
    return logits[:, list(asked.labels)]


def train(
    model: Model, factored, loss: Callable[[Tensor], Tensor], draw: torch.Generator
) -> dict[str, Tensor]:
    """Train multipliers; `loss` gets random numbers in [0, 1) to choose its rows by."""
    free = {name: torch.zeros_like(f.s, requires_grad=True) for name, f in factored.items()}
    optimiser = torch.optim.Adam(free.values(), lr=RATE)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        with attached(model, factored, {name: bounded(p) for name, p in free.items()}, form="whole"):
            value = loss(torch.rand(BATCH, generator=draw))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
    return {name: bounded(p.detach()) for name, p in free.items()}


@dataclass(frozen=True)
class Seeing:
    """A model that has learned to see.

    Attributes:
        model: the whole of it.
        inside: its language model, the same modules.
        factored: decompositions by the names that each of the two gives its weights.
        tokens: the word of every thing, ``[thing]``.
    """

    model: Model
    inside: Model
    factored: tuple[Factors, Factors]
    tokens: Tensor

    @property
    def image(self) -> int:
        """The token that stands for a picture."""
        return int(self.model.config.image_token_index)


def opened(shown: Pictures, seed: int) -> Seeing:
    """Make a model that sees, and freeze it."""
    torch.manual_seed(seeds.derive(seed, "eyes"))
    model = with_eyes(open_model(LANGUAGE), image_size=SIZE, patch_size=SIZE, channels=1, width=64)
    learn_to_see(model, shown, seed)
    model.net.requires_grad_(False)
    inside = language_of(model)
    factored = decompose(model, svf_modules(model)), decompose(inside, svf_modules(inside))
    return Seeing(model, inside, factored, torch.tensor(things(model)))


def on_words(eyes: Seeing, asked: Question, draw: torch.Generator) -> dict[str, Tensor]:
    """Train an expert of a question in the language model alone."""
    known = torch.tensor(sorted(asked.truth))

    def loss(draws: Tensor) -> Tensor:
        chosen = known[(draws * len(known)).long()]
        return functional.cross_entropy(
            decide(eyes.inside, asked, eyes.tokens[chosen]), answers_of(asked, chosen)
        )

    return train(eyes.inside, eyes.factored[1], loss, draw)


def on_pictures(eyes: Seeing, asked: Question, shown: Pictures, draw: torch.Generator) -> dict[str, Tensor]:
    """Train an expert of a question inside the model that sees, on training pictures."""
    fitting = torch.isin(shown.names, torch.tensor(sorted(asked.truth))).nonzero().squeeze(1)

    def loss(draws: Tensor) -> Tensor:
        rows = fitting[(draws * len(fitting)).long()]
        logits = decide(eyes.model, asked, torch.full_like(rows, eyes.image), shown.pixels[rows])
        return functional.cross_entropy(logits, answers_of(asked, shown.names[rows]))

    return train(eyes.model, eyes.factored[0], loss, draw)


def answers_of(asked: Question, names: Tensor) -> Tensor:
    """The number of the right label for each thing."""
    return torch.tensor([asked.truth[int(name)] for name in names])


def right(eyes: Seeing, asked: Question, test: Pictures) -> list[bool]:
    """Say which test pictures are answered rightly, with whatever is attached."""
    rows = torch.isin(test.names, torch.tensor(sorted(asked.truth))).nonzero().squeeze(1)[:TEST]
    with torch.no_grad():
        logits = decide(eyes.model, asked, torch.full_like(rows, eyes.image), test.pixels[rows])
    return (logits.argmax(1) == answers_of(asked, test.names[rows])).tolist()


def measure(seed: int) -> dict:
    """Measure one seed: per question, which test pictures are answered rightly, in every way."""
    shown, test = pictures("train", seed), pictures("test", seed)
    eyes = opened(shown, seed)
    asked = {name: question(eyes.model, name) for name in QUESTIONS}
    spoken = {name: on_words(eyes, one, seeds.generator(seed, "words", name)) for name, one in asked.items()}
    found: dict = {"seen": _seen(eyes.model, test), "questions": {}}
    for number, (name, one) in enumerate(asked.items()):
        other = list(spoken)[(number + 1) % len(spoken)]
        shares = {"bare": right(eyes, one, test)}
        for way, z in (("language_expert", spoken[name]), ("other_expert", spoken[other])):
            with attached(eyes.inside, eyes.factored[1], z):
                shares[way] = right(eyes, one, test)
        z = on_pictures(eyes, one, shown, seeds.generator(seed, "pictures", name))
        with attached(eyes.model, eyes.factored[0], z):
            shares["visual_expert"] = right(eyes, one, test)
        found["questions"][name] = shares
    return found


def _seen(model: Model, test: Pictures) -> float:
    """Share of test pictures whose token is nearest to their own word."""
    words = model.net.get_input_embeddings().weight[things(model)]
    with torch.no_grad():
        seen = model.net.model.get_image_features(test.pixels).pooler_output
    seen = (
        torch.stack([each.squeeze(0) for each in seen]) if not isinstance(seen, Tensor) else seen.squeeze(1)
    )
    return float((torch.cdist(seen, words).argmin(1) == test.names).float().mean())


def home() -> Path:
    """Give the folder of results of the code as it is now."""
    return WORK / hash_texts((ROOT / name).read_text(encoding="utf-8") for name in SOURCES)[:12]


def summarise(results: Mapping[int, Mapping]) -> dict[str, Figure]:
    """Keep figures and numbers for the summary of the whole benchmark."""
    contrasts = {
        "vision.language_expert_over_base": ("language_expert", "bare"),
        "vision.language_expert_over_other_expert": ("language_expert", "other_expert"),
        "vision.visual_expert_over_base": ("visual_expert", "bare"),
    }
    figures, shares = {}, {}
    for name, (over, under) in contrasts.items():
        values, groups = [], []
        for seed, found in results.items():
            for asked, each in found["questions"].items():
                values += np.subtract(each[over], each[under], dtype=float).tolist()
                groups += [f"{seed} {asked}"] * len(each[over])
        each = mean_interval(values, groups=groups)
        figures[name] = Figure(
            round(each.value, 4), round(each.low, 4), round(each.high, 4), n=each.n, aim="> 0"
        )
    for seed, found in results.items():
        shares[str(seed)] = {
            asked: {way: round(float(np.mean(one)), 4) for way, one in each.items()}
            for asked, each in found["questions"].items()
        } | {"seen": round(found["seen"], 4)}
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    keep_part("vision", figures=figures, numbers={"shares": shares, "language": LANGUAGE, "when": when})
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = {}
    for seed in asked.seeds:
        path = home() / f"{seed}.json"
        if not path.exists():
            write_json(path, measure(seed))
        results[seed] = json.loads(path.read_text(encoding="utf-8"))
        for name, right in results[seed]["questions"].items():
            print(
                seed, name, {way: round(float(np.mean(each)), 3) for way, each in right.items()}, flush=True
            )
    for name, figure in summarise(results).items():
        print(f"{name}: {figure.value} [{figure.low}, {figure.high}], n {figure.n}")


if __name__ == "__main__":
    main()
