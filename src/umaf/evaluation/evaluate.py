"""A model answers a task's held-out texts, and is scored."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from umaf.errors import TaskError
from umaf.evaluation.metrics import matches
from umaf.evaluation.statistics import Bootstrap, mean_interval
from umaf.models.model import Model
from umaf.readout.encode import encode
from umaf.readout.generate import continuations
from umaf.readout.scores import label_scores
from umaf.seeds import derive
from umaf.tasks.task import Example, Task

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Score:
    """How well a model did on a task.

    Attributes:
        task: the task's name.
        metric: "accuracy" for a classification, "exact match" for a function.
        value: share of texts answered rightly.
        low: lower end of its 95% bootstrap interval over texts.
        high: upper end.
        n: how many texts were asked.
        predictions: what the model said, one per text.
        correct: whether that was right; pairs up with another model's on the same task and seed.
        truncated: how many texts lost their end to the model's window.
    """

    task: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    predictions: tuple[str, ...]
    correct: tuple[bool, ...]
    truncated: int


def evaluate(
    model: Model,
    task: Task,
    *,
    split: Split = "test",
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    truncate: bool = True,
) -> Score:
    """Ask a model a task's texts and score its answers.

    A classification is answered by the likeliest of the label words, a function by what the model
    writes up to the end of the line, compared exactly.

    Args:
        model: any opened model, with or without an adapter; a function needs one that writes.
        task: what to ask.
        split: which of the task's texts.
        limit: at most so many texts, drawn by the seed; the same for every model.
        batch_size: texts per forward pass.
        seed: draws the texts and the interval.
        truncate: cut texts that do not fit the model's window (their number is in the score);
            otherwise such a text is an error.

    Returns:
        The score with its interval and every prediction.

    Raises:
        TaskError: the split is empty or unknown, the limit is not positive, or the task's labels
            cannot be read from this model.
        ProbeError: a text does not fit and may not be cut.

    Example:
        >>> from umaf.tasks.door import load_task
        >>> task = load_task("made/tense")
        >>> len(chosen_examples(task, limit=5))  # then: evaluate(open_model("bert"), task, limit=5)
        5
    """
    examples = chosen_examples(task, split=split, limit=limit, seed=seed)
    texts = [example.text for example in examples]
    if task.kind == "classification":
        metric, ask = "accuracy", _choose
    else:
        metric, ask = "exact match", _write
    predictions, cut = ask(model, texts, task, batch_size=batch_size, truncate=truncate)
    right = matches(predictions, [example.answer for example in examples])
    return _score(task.name, metric, predictions, right.tolist(), cut=cut, seed=seed)


def chosen_examples(
    task: Task, *, split: Split = "test", limit: int | None = None, seed: int = 0
) -> tuple[Example, ...]:
    """Draw the texts that `evaluate` asks: all of a split, or so many by the seed, in their order.

    Args:
        task: where from.
        split: which of its texts.
        limit: at most so many.
        seed: draws them; a smaller limit gives a subset of a larger one's texts.

    Returns:
        The examples.

    Raises:
        TaskError: the split is empty or unknown, or the limit is not positive.

    Example:
        >>> one = (Example("a", "b"),)
        >>> len(chosen_examples(Task("t", "function", (), "c", one, one, one, "here", "CC0")))
        1
    """
    if split not in ("train", "validation", "test"):
        raise TaskError(
            f'The split "{split}" of {task.name} was asked for; there are train, validation and test.'
        )
    examples: tuple[Example, ...] = getattr(task, split)
    if not examples or (limit is not None and limit < 1):
        raise TaskError(
            f"At least one text of {task.name} ({split}) is needed to measure anything; found {len(examples)} "
            f"with a limit of {limit}; choose another split or limit."
        )
    if limit is None or limit >= len(examples):
        return examples
    order = list(range(len(examples)))
    random.Random(derive(seed, "evaluate", task.name, split)).shuffle(order)
    return tuple(examples[i] for i in sorted(order[:limit]))


def _choose(
    model: Model, texts: Sequence[str], task: Task, *, batch_size: int, truncate: bool
) -> tuple[list[str], int]:
    """Give the likeliest label of each text, and how many texts were cut."""
    scores = label_scores(model, texts, task.labels, task.cue, batch_size=batch_size, truncate=truncate)
    cut = encode(model, texts, task.cue, truncate=True).cut if truncate else 0
    return [task.labels[i] for i in scores.argmax(dim=1).tolist()], cut


def _write(
    model: Model, texts: Sequence[str], task: Task, *, batch_size: int, truncate: bool
) -> tuple[list[str], int]:
    """Give what the model writes after each text, and how many texts were cut."""
    most = _longest_answer(model, task)
    written = continuations(
        model, texts, task.cue, max_new_tokens=most, batch_size=batch_size, truncate=truncate
    )
    # A model that writes after the text needs room for the answer in the same window.
    room = model.window - most if model.window is not None and model.head == "lm" else None
    cut = encode(model, texts, task.cue, max_length=room, truncate=True).cut if truncate else 0
    return written, cut


def _longest_answer(model: Model, task: Task) -> int:
    """Tokens to leave for an answer: the longest one the task has, its line break, and some more.

    A wrong answer may be longer than any right one; it is wrong all the same once it is too long.
    """
    answers = {example.answer for split in (task.train, task.validation, task.test) for example in split}
    # The most characters are not always the most tokens; the longest few cover it.
    longest = [f" {answer}" for answer in sorted(answers, key=lambda answer: (-len(answer), answer))[:64]]
    tokens = model.tokenizer(longest, add_special_tokens=False, verbose=False)["input_ids"]
    return max(8, max(len(row) for row in tokens) + 4)


def _score(
    name: str, metric: str, predictions: Sequence[str], right: Sequence[bool], *, cut: int, seed: int
) -> Score:
    """Put a score together, with its interval over texts."""
    interval = mean_interval(right, bootstrap=Bootstrap(seed=seed))
    return Score(
        task=name,
        metric=metric,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        predictions=tuple(predictions),
        correct=tuple(right),
        truncated=cut,
    )
