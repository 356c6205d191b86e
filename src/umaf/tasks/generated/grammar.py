"""The small grammar engine that every generated kind shares: templates, slots, and two sides that never meet.

A template is an answer and a text with slots. ``{thing}`` draws a content word from the list "thing";
``{thing1}`` and ``{thing2}`` draw two different ones; ``{verb.2}`` takes the third form of "go/goes/went".
A grammar has two sides. Train and validation come from `seen`, test from `unseen`, and neither the templates
nor the content words (the words that fill slots) of one side are on the other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from umaf.errors import TaskError
from umaf.seeds import derive
from umaf.tasks.task import Example, Task

SLOT = re.compile(r"\{([a-z]+)(\d*)(?:\.(\d))?\}")
# Words of phrases that fill slots without being content: both sides may use them.
FUNCTION_WORDS = frozenset(
    "a an the some any my me it is of to at in on for if how that will up out off over with along two".split()
)
TRIES = 200

Sizes = tuple[int, int, int]
Template = tuple[str, str]


@dataclass(frozen=True)
class Side:
    """One half of a grammar.

    Args:
        words: the content words by slot name; forms of one word are parted by "/".
        templates: pairs of answer (a label, or a short text with slots) and text with slots.
    """

    words: Mapping[str, tuple[str, ...]]
    templates: tuple[Template, ...]


@dataclass(frozen=True)
class Grammar:
    """One kind of generated task.

    Args:
        name: the kind, such as "sentiment"; the task is "made/sentiment".
        cue: the word shown before the answer.
        labels: the label words; () for a function.
        seen: makes train and validation.
        unseen: makes test.
        answer: computes the answer from the whole text, where no template can say it.
    """

    name: str
    cue: str
    labels: tuple[str, ...]
    seen: Side
    unseen: Side
    answer: Callable[[str], str] | None = None

    @property
    def kind(self) -> Literal["classification", "function"]:
        return "classification" if self.labels else "function"


def words(text: str) -> tuple[str, ...]:
    """Read a list of content words or phrases, parted by commas.

    Example:
        >>> words("dog, old cat, goose/geese")
        ('dog', 'old cat', 'goose/geese')
    """
    return tuple(" ".join(word.split()) for word in text.split(",") if word.strip())


def labelled(label: str, *texts: str) -> tuple[Template, ...]:
    """Give every text the same answer."""
    return tuple((label, text) for text in texts)


def mirrored(labels: tuple[str, str], swaps: Mapping[str, str], *texts: str) -> tuple[Template, ...]:
    """Give every text the first label, and its mirror image (slots swapped) the second.

    Both labels then have the same frames, so that no word of a frame gives a label away.

    Example:
        >>> mirrored(("positive", "negative"), {"good": "bad"}, "it was not {bad}")
        (('positive', 'it was not {bad}'), ('negative', 'it was not {good}'))
    """
    both = {**swaps, **{right: left for left, right in swaps.items()}}

    def mirror(slot: re.Match[str]) -> str:
        return "{" + both.get(slot[1], slot[1]) + slot[0][len(slot[1]) + 1 :]

    return labelled(labels[0], *texts) + labelled(labels[1], *(SLOT.sub(mirror, text) for text in texts))


def each(labels: tuple[str, ...], *texts: str) -> tuple[Template, ...]:
    """Copy every text for every label; the slot ``{x}`` becomes the label's own list of words.

    Example:
        >>> each(("sport", "food"), "about the {x1}")
        (('sport', 'about the {sport1}'), ('food', 'about the {food1}'))
    """
    return tuple((label, text.replace("{x", "{" + label)) for label in labels for text in texts)


def expand(rng: random.Random, side: Side, template: Template) -> Template:
    """Fill the slots of one template: one slot keeps one word, numbered slots take different ones."""
    drawn: dict[tuple[str, str], str] = {}

    def fill(slot: re.Match[str]) -> str:
        name, copy, form = slot[1], slot[2], int(slot[3] or 0)
        if (name, copy) not in drawn:
            taken = {word for (other, _), word in drawn.items() if other == name}
            drawn[name, copy] = rng.choice([word for word in side.words[name] if word not in taken])
        return drawn[name, copy].split("/")[form]

    answer, text = template
    filled = SLOT.sub(fill, text)
    return SLOT.sub(fill, answer), re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", filled)


def draw(rng: random.Random, grammar: Grammar, side: Side) -> Iterator[Example]:
    """Yield examples without end; the labels of a classification take turns."""
    pools = [[t for t in side.templates if t[0] == label] for label in grammar.labels] or [[*side.templates]]
    while True:
        for pool in pools:
            answer, text = expand(rng, side, rng.choice(pool))
            yield Example(text, grammar.answer(text) if grammar.answer else answer)


def distinct(
    examples: Iterator[Example], grammar: Grammar, *, count: int, used: Iterable[Example] = ()
) -> list[Example]:
    """Take `count` examples with different texts, none of them in `used`, with labels as even as can be.

    Raises:
        TaskError: the grammar cannot make so many.
    """
    turns = len(grammar.labels) or 1
    quota = {label: (count + turns - 1 - i) // turns for i, label in enumerate(grammar.labels)}
    seen = {example.text.lower() for example in used}
    taken: list[Example] = []
    for example in islice(examples, TRIES * count):
        open_label = not quota or quota[example.answer] > 0
        if open_label and example.text.lower() not in seen:
            seen.add(example.text.lower())
            taken.append(example)
            if quota:
                quota[example.answer] -= 1
        if len(taken) == count:
            break
    if len(taken) == count:
        return taken
    raise TaskError(
        f"Task made/{grammar.name} was asked for {count} different texts, but its grammar made only "
        f"{len(taken)}; ask for fewer."
    )


def make(grammar: Grammar, seed: int, sizes: Sizes) -> Task:
    """Make the task of a grammar.

    Args:
        seed: the same seed gives the same task, whatever else was made before.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: a size is negative, or larger than the grammar can make.
    """
    if min(sizes) < 0:
        raise TaskError(f"Task made/{grammar.name} was asked for {sizes} examples; sizes must be 0 or more.")
    name = f"made/{grammar.name}"
    train, validation, test = sizes

    def stream(part: str, side: Side) -> Iterator[Example]:
        return draw(random.Random(derive(seed, name, part)), grammar, side)

    known = distinct(stream("seen", grammar.seen), grammar, count=train)
    held = distinct(stream("validation", grammar.seen), grammar, count=validation, used=known)
    new = distinct(stream("unseen", grammar.unseen), grammar, count=test)
    return Task(
        name=name,
        kind=grammar.kind,
        labels=grammar.labels,
        cue=grammar.cue,
        train=_shuffled(known, seed, name, "train"),
        validation=_shuffled(held, seed, name, "validation"),
        test=_shuffled(new, seed, name, "test"),
        source="made by umaf's own grammars",
        licence="Apache-2.0",
    )


def _shuffled(examples: list[Example], seed: int, name: str, split: str) -> tuple[Example, ...]:
    random.Random(derive(seed, name, "order", split)).shuffle(examples)
    return tuple(examples)
