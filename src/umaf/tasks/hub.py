"""Read a classification or function task from the Hugging Face hub through `datasets`."""

from __future__ import annotations

from umaf.errors import TaskError
from umaf.tasks import words
from umaf.tasks.folder import split_off
from umaf.tasks.task import Example, Task

TEXT_COLUMNS = ("text", "sentence", "input", "question", "content", "utt")
ANSWER_COLUMNS = ("label", "output", "answer", "intent", "target")


def read(name: str) -> Task:
    """Read "org/dataset" or "org/dataset:configuration".

    The first known text column and answer column are used; a class-label column makes a classification task,
    a string column a function.

    Raises:
        TaskError: `datasets` is not installed, the data set is unknown, or no known columns are in it.
    """
    try:
        from datasets import load_dataset
    except ImportError as problem:
        raise TaskError(
            f"Task hub:{name} was asked for, but `datasets` is not installed; run `pip install umaf[data]`."
        ) from problem
    path, _, configuration = name.partition(":")
    try:
        splits = load_dataset(path, configuration or None)
    except Exception as problem:  # datasets raises many kinds; each means that it cannot be had
        raise TaskError(
            f"Task hub:{name} was asked for, but `datasets` could not load it "
            f"({type(problem).__name__}); check the name and the network."
        ) from problem
    return from_splits(name, splits)


def from_splits(name: str, splits) -> Task:
    """Turn a mapping of splits (a `DatasetDict`) into a task.

    Raises:
        TaskError: a split or a column is missing.
    """
    train = splits.get("train")
    test = splits.get("test") or splits.get("validation")
    if train is None or test is None:
        raise TaskError(f"Task hub:{name} needs a train and a test split; found {', '.join(splits)}.")
    text = _column(name, train.column_names, TEXT_COLUMNS)
    answer = _column(name, train.column_names, ANSWER_COLUMNS)
    classes = getattr(train.features[answer], "names", None)
    labels = tuple(words.spoken(name, label) for label in classes) if classes else ()

    def examples(split) -> list[Example]:
        return [Example(str(row[text]), labels[row[answer]] if labels else str(row[answer])) for row in split]

    held_out = examples(test)
    seen = {example.text.lower() for example in held_out}
    kept = [example for example in examples(train) if example.text.lower() not in seen]
    training, validation = split_off(kept, name)
    kind = "classification" if labels else "function"
    source, cue = f"hub:{name}", "label" if labels else "answer"
    return Task(name, kind, labels, cue, training, validation, tuple(held_out), source, "see the hub's page")


def _column(name: str, found: list[str], known: tuple[str, ...]) -> str:
    for column in known:
        if column in found:
            return column
    raise TaskError(
        f"Task hub:{name} needs one of the columns {', '.join(known)}; found {', '.join(found)}; rename one."
    )
