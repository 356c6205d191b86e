"""The tensors of several models under one set of names: prefixes that some lack, heads that are tied embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from umaf.errors import CheckpointError
from umaf.merging.planning.jobs import Opened
from umaf.merging.planning.outline import Outline, outline
from umaf.merging.planning.roles import counts_tokens, role


@dataclass(frozen=True)
class Laid:
    """A model with its layout.

    Attributes:
        opened: the model.
        number: its index in the plan.
        outline: its layers.
        table: the tensor of its token embeddings; None where there is none.
        head: the tensor of its language-model head; None where it is tied, or has none.
        ties: its config says that the head is the embedding table.
    """

    opened: Opened
    number: int
    outline: Outline
    table: str | None
    head: str | None
    ties: bool

    @property
    def name(self) -> str:
        """As the recipe writes it."""
        return str(self.opened.ref)

    @property
    def entries(self) -> Mapping[str, Any]:
        """Its tensors by name."""
        return self.opened.checkpoint.entries


def laid_out(opened: Opened, number: int) -> Laid:
    """Lay a model out."""
    checkpoint = opened.checkpoint
    found = outline(checkpoint.entries, checkpoint.config)
    tokens = [name for name in found.rest if counts_tokens(name) and name.endswith(".weight")]
    tables = [name for name in tokens if role(name, checkpoint.entries[name].shape) == "embedding"]
    heads = [name for name in tokens if name not in tables]
    config = checkpoint.config or {}
    ties = bool(
        (config.get("text_config") or {}).get("tie_word_embeddings", config.get("tie_word_embeddings"))
    )
    table = next((name for name in tables if name.endswith("shared.weight")), tables[0] if tables else None)
    return Laid(opened, number, found, table, heads[0] if heads else None, ties)


def counterpart(name: str, of: Laid, there: Laid) -> str | None:
    """Find in one model the tensor outside its layers that has a name in another.

    A prefix that all layers of one have and those of the other lack is added or taken away. A head that is missing is
    the embedding table.

    Args:
        name: in `of`.
        of: the model whose name it is.
        there: the model that is searched.

    Returns:
        Its name there; None where it has none.
    """
    if name in there.entries:
        return name
    lead, other = _leads(of, there)
    if lead and name.startswith(lead) and name.removeprefix(lead) in there.entries:
        return name.removeprefix(lead)
    if other and other + name in there.entries:
        return other + name
    if counts_tokens(name) and name.endswith(".weight") and there.table is not None:
        is_table = role(name, of.entries[name].shape) == "embedding"
        # T5 stores one table under up to three names.
        return there.table if not is_table or of.table != name else None
    return None


def _leads(of: Laid, there: Laid) -> tuple[str, str]:
    """Give what each has before the names of the other: ("bert.", "") or ("", "bert.")."""
    ours, theirs = of.outline.prefix, there.outline.prefix
    if ours and theirs and ours != theirs:
        if ours.endswith(theirs):
            return ours.removesuffix(theirs), ""
        if theirs.endswith(ours):
            return "", theirs.removesuffix(ours)
    return "", ""


def missing(name: str, of: Laid, there: Laid) -> CheckpointError:
    """Make the error for a tensor that one model has and another lacks."""
    return CheckpointError(
        f"{there.name} has no tensor {name}, which {of.name} has; "
        "only models of one architecture can be merged, so check that both are whole and of the same kind."
    )


def surplus(there: Laid, idle: Iterable[str]) -> list[str]:
    """List those of a model's unused tensors that cannot be left out.

    What can be left out: buffers that `transformers` computes, and a head that its config ties to the embeddings.
    """
    left = []
    for name in idle:
        tied = there.ties and counts_tokens(name) and there.table is not None
        if not is_computed(name, there) and not tied:
            left.append(name)
    return left


def is_computed(name: str, of: Laid) -> bool:
    """Tell whether a tensor is a buffer that `transformers` computes, so that a model may lack it.

    Args:
        name: of the tensor.
        of: the model that has it.
    """
    return role(name, of.entries[name].shape) == "buffer"
