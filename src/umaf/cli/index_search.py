"""What `umaf index search` can be asked, and how each is answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.index import Asked, Found, Query, Store

WIDE = 1000

ModelOption = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Most like this one: of the store, or any other.")
]
FingerprintOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Most like this file of `umaf fingerprint`.")
]
TaskOption = Annotated[
    str | None,
    typer.Option(metavar="FILE|NAME", help="Who does this: a .txt or .jsonl of texts, or a task's name."),
]
MetricOption = Annotated[str, typer.Option(help="cosine, pearson, spearman, kl, or a registered one.")]
PerBaseOption = Annotated[bool, typer.Option("--per-base", help="Take off what all models of a base share.")]
ReaderOption = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Of a task: the model that reads it.")
]
RouteOption = Annotated[
    str | None,
    typer.Option(help="Of a task: words, answers, or expert (trains the reader); the best when not given."),
]
TryOption = Annotated[
    int, typer.Option("--try", min=0, metavar="K", help="Of a task: run the first K models on its texts.")
]


# Which options each way of searching uses.
_TASK = ("--route", "--try", "--reader", "--metric")
FITTING = {
    "--model": ("--base", "--metric", "--per-base"),
    "--fingerprint": ("--metric", "--per-base"),
    "--task": _TASK,
    "--text": _TASK,
    "--words": (),
}


def check_fits(by: str, **given: object) -> None:
    """Stop at options that a search does not use, rather than leave them out.

    Args:
        by: the option that says what is searched by.
        given: options by their names without dashes at the front, `_` for those within; falsy where not given.

    Raises:
        ConfigError: names them, and the searches that use them.
    """
    named = [f"--{name.strip('_').replace('_', '-')}" for name, value in given.items() if value]
    wrong = next((name for name in named if name not in FITTING[by]), None)
    if wrong:
        users = ", ".join(name for name, used in FITTING.items() if wrong in used)
        raise ConfigError(f"A search by {by} does not use {wrong}, which goes with {users}; leave it out.")


def by_capability(
    store: Store, model: str | None, fingerprint: Path | None, base: str | None, asked: Asked
) -> Found:
    """Search by a fingerprint file, or by a model."""
    from umaf.extraction import Fingerprint
    from umaf.index import by_fingerprint, by_model

    if fingerprint is not None:
        return by_fingerprint(store, Fingerprint.load(fingerprint), asked)
    return by_model(store, str(model), base=base, asked=asked)


def read_task(task: str | None, texts: list[str], shots: int) -> Query:
    """Make a query of texts, a file of texts, or a task's name."""
    from umaf.index import Query, read_query
    from umaf.tasks.door import load_task

    if texts:
        return Query(tuple(texts))
    if Path(str(task)).is_file() or str(task).endswith((".txt", ".jsonl")):
        return read_query(str(task))
    found = load_task(str(task), limit=shots)
    labels = tuple(example.answer for example in found.train) if found.labels else ()
    return Query(tuple(example.text for example in found.train), labels, found.cue)


def by_texts(
    store: Store, query: Query, asked: Asked, *, route: str | None, reader: str | None, tries: int
) -> Found:
    """Search by texts, and run the first models where that was asked for."""
    from umaf.index import by_task, try_found
    from umaf.models import open_model

    model = None if reader is None else open_model(reader)
    # Texts without labels find the right models late, so those that are run are chosen from many.
    wide = max(asked.limit, tries if query.labels else WIDE) if tries else asked.limit
    found = by_task(store, query, asked=replace(asked, limit=wide), route=route, reader=model)
    if tries:
        found = try_found(store, found, query, many=tries)
    return replace(found, hits=found.hits[: asked.limit])
