"""Tables of `umaf index`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from umaf.index import Built, Clusters, Found, Hint, Pair


def show_built(found: Built, entries: int, console: Console) -> None:
    """Print what a build added, and what it could not read and why."""
    console.print(
        f"{len(found.added)} added, {len(found.known)} known already, {len(found.failed)} not read; "
        f"{entries} in the store",
        highlight=False,
    )
    for name, why in found.failed.items():
        console.print(f"  {escape(name)}: {escape(why)}", soft_wrap=True, highlight=False)


def show_found(found: Found, console: Console) -> None:
    """Print hits, and how they were searched for."""
    how = "exact" if found.exact else "approximate"
    if not found.exact and found.recall is not None:
        how += f", finds {found.recall:.1%} of the true ten nearest"
    title = f"by {found.by}, {found.metric}; {found.searched:,} models, {how}, {1000 * found.seconds:.1f} ms"
    table = Table("", "model", "base", "architecture", title=title, title_justify="left")
    for column in ("parameters", "similarity"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("scores")
    if any(hit.tried is not None for hit in found.hits):
        table.add_column("tried", justify="right", no_wrap=True)
    for hit in found.hits:
        table.add_row(
            str(hit.rank),
            escape(hit.model),
            escape(hit.base or ""),
            hit.architecture or "known by its outputs",
            "" if hit.parameters is None else f"{hit.parameters:,}",
            f"{hit.similarity:.3f}",
            escape(_scores(hit.scores)),
            *([f"{hit.tried:.2f}" if hit.tried is not None else ""] if len(table.columns) > 7 else []),
        )
    console.print(table if found.hits else "nothing was found; widen the condition or add models")


def show_models(rows: Sequence[dict[str, Any]], entries: int, console: Console) -> None:
    """Print the models of a store."""
    table = Table(
        "model", "base", "architecture", title=f"{len(rows)} of {entries:,} models", title_justify="left"
    )
    table.add_column("parameters", justify="right", no_wrap=True)
    for column in ("licence", "scores", "key"):
        table.add_column(column)
    for row in rows:
        size = "" if row["parameters"] is None else f"{row['parameters']:,}"
        table.add_row(
            escape(row["model"]),
            escape(row["base"] or ""),
            row["architecture"] or "",
            size,
            escape(row["licence"] or ""),
            escape(_scores(row["scores"])),
            row["key"][:8],
        )
    console.print(table)


def show_clusters(
    found: Clusters,
    members: Sequence[dict[str, Any]],
    pairs: Sequence[Pair],
    hints: Sequence[Hint],
    *,
    console: Console,
) -> None:
    """Print groups, near-duplicates and likely bases."""
    score = "" if found.silhouette is None else f", silhouette {found.silhouette:.2f}"
    table = Table("cluster", "models", "who", title=f"{found.count} clusters{score}", title_justify="left")
    for number in range(found.count):
        names = [escape(one["model"]) for one in members if one["cluster"] == number]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        table.add_row(str(number), str(len(names)), shown)
    console.print(table)
    for pair in pairs[:20]:
        why = "the same weights" if pair.same_weights else f"cosine {pair.similarity:.4f}"
        console.print(
            f"nearly the same: {escape(pair.models[0])} and {escape(pair.models[1])}, {why}", highlight=False
        )
    for hint in hints[:20]:
        console.print(
            f"{escape(hint.model)} may share its base with, or come from, {escape(hint.base)}: {hint.why}, cosine "
            f"{hint.similarity:.2f}",
            highlight=False,
            soft_wrap=True,
        )


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{task} {value:.2f}" for task, value in list(scores.items())[:3])
