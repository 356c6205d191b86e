"""One model scored on anything: tasks, multiple choice, written answers, minimal pairs, plain text."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from umaf.evaluation.evaluate import Split, evaluate
from umaf.evaluation.metrics import matches
from umaf.evaluation.statistics import Bootstrap, Interval, mean_interval, ratio_interval
from umaf.models.model import Model
from umaf.readout.generate import check_writes, continuations
from umaf.readout.likelihood import answer_likelihood, text_likelihood
from umaf.seeds import derive
from umaf.tasks.measured import BLANK, Answers, Choices, Corpus, Measured, Pairs, Question
from umaf.tasks.task import Task

Item = TypeVar("Item")
UNIFORM_BITS = 8.0
"""Bits per byte of a model that knows nothing: every byte as likely as any other."""

_LONE = re.compile(rf"(?<!\w){BLANK}(?!\w)")


@dataclass(frozen=True)
class Result:
    """How well a model did on one task, with a number for each item so that models can be compared in pairs.

    Attributes:
        model: who was asked.
        task: what was asked.
        metric: what `value` is: "accuracy", "exact match", "F1", "bits per byte", or a name of the harness.
        value: the score.
        low: lower end of its 95% bootstrap interval over items.
        high: upper end.
        n: how many items.
        chance: the score of guessing; None where nobody can say.
        perfect: the best score there is; 0 for bits per byte, where less is better.
        items: a number per item: 0 or 1, a share, or bits.
        weights: what each item counts; () for all alike (bytes for bits per byte).
        also: further numbers of the same run, by name.
        predictions: what the model said, one per item; () where it says nothing.
        truncated: how many texts lost something to the model's window.
    """

    model: str
    task: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    chance: float | None
    perfect: float
    items: tuple[float, ...]
    weights: tuple[float, ...] = ()
    also: Mapping[str, float] = field(default_factory=dict)
    predictions: tuple[str, ...] = ()
    truncated: int = 0

    @property
    def normalised(self) -> Interval | None:
        """The score with chance at 0 and perfect at 1; None where chance is not known.

        Example:
            >>> Result("m", "t", "accuracy", 0.75, 0.5, 1.0, 4, 0.5, 1.0, (1, 1, 1, 0)).normalised.value
            0.5
        """
        if self.chance is None:
            return None
        ends = [
            (each - self.chance) / (self.perfect - self.chance) for each in (self.value, self.low, self.high)
        ]
        low, high = sorted(ends[1:])
        return Interval(ends[0], low, high, self.n)


def assess(
    model: Model,
    task: Measured,
    *,
    split: Split = "test",
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> Result:
    """Score a model on a task of any form.

    A classification is answered by the likeliest label, a function and a question by what the model writes. Of
    choices the one with the highest likelihood per byte is taken, so that long ones are not at a loss (Gao, 2021,
    "Multiple choice normalization in LM evaluation"); `also` has the plain sum. A pair is right where the good
    sentence is the likelier one. Text is scored in bits per byte, comparable between tokenizers.

    Args:
        model: any opened model, with or without an adapter.
        task: what `umaf.tasks.door.load_measured` gave.
        split: which texts of a task that has splits.
        limit: at most so many items, drawn by the seed; the same for every model.
        seed: draws the items and the interval.
        batch_size: texts per pass.

    Raises:
        TaskError: this model cannot answer this form, or there is nothing to ask.

    Example:
        >>> from umaf.models import open_model
        >>> from umaf.tasks.door import load_measured
        >>> assess(open_model("zoo:llama-1m"), load_measured("made/agreement"), limit=8).chance
        0.5
    """
    if isinstance(task, Task):
        return _task(model, task, split=split, limit=limit, seed=seed)
    ask = {Choices: _choices, Answers: _answers, Pairs: _pairs, Corpus: _corpus}[type(task)]
    return ask(model, task, limit, Bootstrap(seed=seed), batch_size)  # type: ignore[arg-type]


def drawn(items: Sequence[Item], limit: int | None, *, seed: int, name: str) -> list[Item]:
    """Draw items by a seed, in their order; a smaller limit gives a part of a larger one's.

    Example:
        >>> drawn("abcdef", 3, seed=0, name="t") == drawn("abcdef", 3, seed=0, name="t")
        True
    """
    if limit is None or limit >= len(items):
        return list(items)
    order = list(range(len(items)))
    random.Random(derive(seed, "assess", name)).shuffle(order)
    return [items[i] for i in sorted(order[:limit])]


def _task(model: Model, task: Task, *, split: Split, limit: int | None, seed: int) -> Result:
    score = evaluate(model, task, split=split, limit=limit, seed=seed)
    return Result(
        model.name,
        task.name,
        score.metric,
        score.value,
        score.low,
        score.high,
        score.n,
        chance=1 / len(task.labels) if task.labels else 0.0,
        perfect=1.0,
        items=tuple(map(float, score.correct)),
        predictions=score.predictions,
        truncated=score.truncated,
    )


def _shares(
    model: Model, name: str, metric: str, items: Sequence[float], chance: float, bootstrap: Bootstrap, **more
) -> Result:
    """Put a result together whose items are shares of one."""
    found = mean_interval(items, bootstrap=bootstrap)
    return Result(
        model.name,
        name,
        metric,
        found.value,
        found.low,
        found.high,
        found.n,
        chance,
        1.0,
        tuple(items),
        **more,
    )


def _choices(model: Model, task: Choices, limit: int | None, bootstrap: Bootstrap, batch_size: int) -> Result:
    questions = drawn(task.questions, limit, seed=bootstrap.seed, name=task.name)
    texts, answers = [], []
    for question in questions:
        for choice in question.choices:
            text, answer = _asked(question, choice, task.cue)
            texts.append(text)
            answers.append(answer)
    blank = bool(_LONE.search(questions[0].text))
    if blank:
        read = text_likelihood(model, [text + answer for text, answer in zip(texts, answers, strict=True)])
    else:
        read = answer_likelihood(model, texts, answers, task.cue, batch_size=batch_size)
    each, plain, said, place = [], [], [], 0
    for question in questions:
        mine = slice(place, place + len(question.choices))
        place = mine.stop
        sums = read.nats[mine]
        per_byte = [nats / max(1, size) for nats, size in zip(sums, read.size[mine], strict=True)]
        # Completed sentences differ by the choice alone; its length is no part of the question.
        best = _best(sums if blank else per_byte)
        said.append(question.choices[best])
        each.append(float(best == question.right))
        plain.append(float(_best(sums) == question.right))
    chance = sum(1 / len(question.choices) for question in questions) / len(questions)
    also = {} if blank else {"accuracy by sum": sum(plain) / len(plain)}
    return _shares(model, task.name, "accuracy", each, chance, bootstrap, also=also, predictions=tuple(said))


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: values[place])


def _asked(question: Question, choice: str, cue: str) -> tuple[str, str]:
    """Give the text and what is read after it; a blank is filled, and the whole is read."""
    found = _LONE.search(question.text)
    if found is None:
        return question.text, choice
    return question.text[: found.start()], choice + question.text[found.end() :]


def _answers(model: Model, task: Answers, limit: int | None, bootstrap: Bootstrap, batch_size: int) -> Result:
    questions = drawn(task.questions, limit, seed=bootstrap.seed, name=task.name)
    texts, right = [text for text, _ in questions], [answer for _, answer in questions]
    most = task.tokens if model.window is None else min(task.tokens, max(1, model.window // 2))
    said = continuations(model, texts, task.cue, max_new_tokens=most, batch_size=batch_size, truncate=True)
    exact = [float(one) for one in _agree(said, right, task.compared == "number")]
    if task.compared == "overlap":
        items = [overlap(one, other) for one, other in zip(said, right, strict=True)]
        also = {"exact match": sum(exact) / len(exact)}
        return _shares(model, task.name, "F1", items, 0.0, bootstrap, also=also, predictions=tuple(said))
    return _shares(model, task.name, "exact match", exact, 0.0, bootstrap, predictions=tuple(said))


def _agree(said: Sequence[str], right: Sequence[str], numbers: bool) -> list[bool]:
    if numbers:
        return [
            last_number(one) is not None and last_number(one) == last_number(other)
            for one, other in zip(said, right, strict=True)
        ]
    return matches([_plain(one) for one in said], [_plain(one) for one in right]).tolist()


def last_number(text: str) -> float | None:
    """Read the last number in a text, thousands parted by commas or not.

    Example:
        >>> last_number("48 + 24 = $1,272.50."), last_number("none")
        (1272.5, None)
    """
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+", text)
    return float(found[-1].replace(",", "")) if found else None


def overlap(said: str, right: str) -> float:
    """Give the F1 of the words two texts have in common (Rajpurkar et al., 2016, SQuAD).

    Example:
        >>> overlap("the red fox", "a red fox")
        0.6666666666666666
    """
    one, other = Counter(_plain(said).split()), Counter(_plain(right).split())
    shared = sum((one & other).values())
    return 2 * shared / (sum(one.values()) + sum(other.values())) if shared else 0.0


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())


def _pairs(model: Model, task: Pairs, limit: int | None, bootstrap: Bootstrap, batch_size: int) -> Result:
    pairs = drawn(task.pairs, limit, seed=bootstrap.seed, name=task.name)
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    nats = text_likelihood(model, texts, batch_size=batch_size).nats
    items = [float(good > bad) for good, bad in zip(nats[::2], nats[1::2], strict=True)]
    by_group: dict[str, list[float]] = {}
    for pair, item in zip(pairs, items, strict=True):
        by_group.setdefault(pair.group, []).append(item)
    also = {group: sum(each) / len(each) for group, each in sorted(by_group.items())}
    return _shares(model, task.name, "accuracy", items, 0.5, bootstrap, also=also)


def _corpus(model: Model, task: Corpus, limit: int | None, bootstrap: Bootstrap, batch_size: int) -> Result:
    check_writes(model)  # what a masked model says of a text adds up to no probability
    pieces = drawn(task.pieces, limit, seed=bootstrap.seed, name=task.name)
    read = text_likelihood(model, pieces, batch_size=batch_size)
    bits = [-nats / math.log(2) for nats in read.nats]
    found = ratio_interval(bits, read.size, bootstrap=bootstrap)
    also = {"perplexity per token": math.exp(min(700.0, -sum(read.nats) / sum(read.tokens)))}
    return Result(
        model.name,
        task.name,
        "bits per byte",
        found.value,
        found.low,
        found.high,
        found.n,
        chance=UNIFORM_BITS,
        perfect=0.0,
        items=tuple(bits),
        weights=tuple(map(float, read.size)),
        also=also,
    )
