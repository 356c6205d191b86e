"""Generated sets that only measure: one of each form, so that nothing has to be downloaded to try them."""

from __future__ import annotations

import random

from umaf.seeds import derive
from umaf.tasks.generated.lexicon import SEEN, UNSEEN
from umaf.tasks.graded.lexicon import KINDS
from umaf.tasks.measured import Answers, Choices, Corpus, Measured, Pair, Pairs, Question

SOURCE = "made by umaf's own grammars"
NAMES = ("made/which_kind", "made/sums", "made/agreement", "made/prose")


def measure(name: str, *, seed: int = 0, size: int = 200) -> Measured:
    """Make one of the generated sets.

    Args:
        name: one of `NAMES`.
        seed: the same seed gives the same set.
        size: how many items.

    Example:
        >>> measure("made/which_kind", size=2).questions[0].choices
        ('an animal', 'a fruit', 'a tool', 'a garment')
        >>> measure("made/sums", size=1).compared
        'number'
    """
    maker = {
        "made/which_kind": _which_kind,
        "made/sums": _sums,
        "made/agreement": _agreement,
        "made/prose": _prose,
    }[name]
    return maker(name, random.Random(derive(seed, name)), size)


def _which_kind(name: str, rng: random.Random, size: int) -> Choices:
    kinds = ("animal", "fruit", "tool", "garment")
    choices = tuple(f"{'an' if kind == 'animal' else 'a'} {kind}" for kind in kinds)
    words = [(word, kind) for kind in kinds for word in KINDS[kind]]
    rng.shuffle(words)
    questions = [
        Question(f"What is a {word}?", choices, kinds.index(kind)) for word, kind in words[: max(1, size)]
    ]
    return Choices(name, tuple(questions), source=SOURCE)


def _sums(name: str, rng: random.Random, size: int) -> Answers:
    pairs = [(a, b) for a in range(1, 30) for b in range(1, 30)]
    chosen = rng.sample(pairs, min(size, len(pairs)))
    texts = tuple((f"What is {a} plus {b}?", str(a + b)) for a, b in chosen)
    return Answers(name, texts, "number", tokens=8, source=SOURCE)


def _agreement(name: str, rng: random.Random, size: int) -> Pairs:
    """Sentences whose verb, noun or reflexive agrees, and the same with one word in the wrong form."""
    both = {slot: (*SEEN[slot], *UNSEEN[slot]) for slot in ("thing", "person", "place", "action")}
    pairs = []
    for number in range(size):
        thing = rng.choice(both["thing"]).split("/")
        person, place = rng.choice(both["person"]), rng.choice(both["place"])
        plain, third, *_ = rng.choice(both["action"]).split("/")
        pairs.append(
            (
                Pair(
                    f"The {thing[1]} in the {place} are old.",
                    f"The {thing[1]} in the {place} is old.",
                    "verb",
                ),
                Pair(f"The {person} {third}.", f"The {person} {plain}.", "person"),
                Pair(f"There are two {thing[1]} here.", f"There are two {thing[0]} here.", "number"),
            )[number % 3]
        )
    return Pairs(name, tuple(pairs), SOURCE)


def _prose(name: str, rng: random.Random, size: int) -> Corpus:
    both = {slot: (*SEEN[slot], *UNSEEN[slot]) for slot in ("name", "person", "place", "action", "animal")}
    frames = (
        "{name} and the {person} went to the {place}.",
        "In the {place} the {person} {past}.",
        "The {animal} waited while {name} {past}.",
        '"I like this {place}," said the {person}.',
    )
    pieces = []
    for _ in range(size):
        lines = [
            frame.format(
                past=rng.choice(both["action"]).split("/")[2],
                **{slot: rng.choice(both[slot]) for slot in ("name", "person", "place", "animal")},
            )
            for frame in rng.sample(frames, 4)
        ]
        pieces.append(" ".join(lines))
    return Corpus(name, tuple(pieces), SOURCE)
