"""What the planner hands to whoever runs a merge: a flat list of jobs, one for each tensor of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from umaf.merging.recipes.recipe import Recipe, Tokenizer
from umaf.merging.recipes.reference import Ref

if TYPE_CHECKING:
    from umaf.checkpoints import Checkpoint
    from umaf.deltas import Lora

RULES = ("copy", "mean", "sum", "base")
"""What a job may have for a method besides the names in the registry."""


@dataclass(frozen=True)
class Parts:
    """How a stored tensor is shown to a method that wants matrices `[out, in]`.

    A tensor is `[*experts, out, in]`, or `[*experts, in, out]` where it is `transposed`. Along `out` it may hold
    several matrices: `sizes` rows each, and this pattern `groups` times (query, key and value of one head after
    another, or gate and up row by row).

    Attributes:
        matrix: the weight of a linear layer inside a block; all else gets the method's `otherwise`.
        transposed: stored as `[in, out]`, as GPT-2 does.
        sizes: rows of each of the matrices that are fused in one, within a group; () for a single matrix.
        groups: how often the pattern of sizes comes along `out`.
        experts: length of the leading axis that counts experts; 0 without one.
    """

    matrix: bool = False
    transposed: bool = False
    sizes: tuple[int, ...] = ()
    groups: int = 1
    experts: int = 0


@dataclass(frozen=True)
class Rows:
    """Which rows of each source the rows of the result come from, along axis 0.

    Attributes:
        count: rows of the result.
        index: for each source, int64 `[count]`: the row there, -1 where it has none; None: row for row.
        base: the same for the base.
        given: rows that are said to come from elsewhere, for models that lack them: a tensor and its row, or None for
            zeros. The others get the base's row, or the mean over the models that have one.
    """

    count: int
    index: tuple[Tensor | None, ...]
    base: Tensor | None = None
    given: Mapping[int, tuple[Source, int] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A tensor of one of the plan's models."""

    model: int
    tensor: str


@dataclass(frozen=True)
class Job:
    """One tensor of the result.

    Attributes:
        name: in the result.
        shape: in the result (before `vocabulary.align`: as stored in the first source).
        dtype: as stored in the result, in safetensors' words ("BF16").
        method: a name of the registry; or "copy": the bytes of the first source, with which all others must agree
            where there are any; or "mean", "sum" or "base": base plus the mean or sum of deltas, or the base alone
            (without a base "mean" is the mean of the weights). `weight` in their options holds as in `linear` and
            `task_arithmetic`.
        sources: one for each merged model, in the user's order.
        base: for methods that work on deltas.
        options: of the method; an option that each model may have for itself is a tuple in the order of sources.
        scale: the merged delta is multiplied by it.
        parts: how a method that wants matrices sees it.
        vocabulary: axis 0 counts tokens.
        rows: token alignment; None: the rows are the same in all.
        role: see `roles.role`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    method: str
    sources: tuple[Source, ...]
    base: Source | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    parts: Parts = Parts()
    vocabulary: bool = False
    rows: Rows | None = None
    role: str = "vector"


@dataclass(frozen=True)
class Opened:
    """A model of the plan.

    Attributes:
        ref: as the recipe names it.
        checkpoint: its files.
        loras: adapters added to it: `Lora.apply(name, weight)` in order gives the tensor.
    """

    ref: Ref
    checkpoint: Checkpoint
    loras: tuple[Lora, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All that is known before a weight is read.

    Attributes:
        recipe: what was asked.
        models: every model that is read, each once, base and donors included; `Source.model` points here.
        jobs: one for each tensor of the result, in the order of the input files.
        donor: index of the model whose config and tokenizer the result has.
        config: what changes in the donor's config: layers, dtype, vocabulary.
        tokenizer: how vocabularies are brought together; None: nothing is to be done.
        notes: everything that was kept, resized or ignored, a sentence each.
        bytes_read: of all sources.
        bytes_written: of all jobs.
        peak_memory: estimate in bytes for one worker, by the largest job.
    """

    recipe: Recipe
    models: tuple[Opened, ...]
    jobs: tuple[Job, ...]
    donor: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    notes: tuple[str, ...] = ()
    bytes_read: int = 0
    bytes_written: int = 0
    peak_memory: int = 0
