"""Which tensors of which models go into which tensor of the result: slices, layers, and all that is outside layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from umaf.errors import CheckpointError, ConfigError
from umaf.merging.planning.sources import Laid, counterpart, is_computed, missing
from umaf.merging.recipes.recipe import Options, Recipe
from umaf.merging.recipes.reference import Ref

FIRST = ("embed", "wte", "wpe", "shared", "tok_")
"""Parts of names of what comes before the layers; what else is outside them comes after the last."""


@dataclass(frozen=True)
class Run:
    """Consecutive layers of one model.

    Attributes:
        model: whose.
        start: the first.
        options: of this model here, first the most particular.
    """

    model: Laid
    start: int
    options: tuple[Options, ...] = ()


@dataclass(frozen=True)
class Segment:
    """Consecutive layers of the result.

    Attributes:
        runs: one for each merged model.
        base: what deltas are taken from; None for methods on weights.
        first: its first layer in the result.
        length: how many layers.
        options: for all models, first the most particular.
    """

    runs: tuple[Run, ...]
    base: Run | None
    first: int
    length: int
    options: tuple[Options, ...]

    @property
    def reference(self) -> Run:
        """The run whose names and tensors the others must have: the base's, or the first."""
        return self.base or self.runs[0]


@dataclass(frozen=True)
class Found:
    """One tensor of the result and where it comes from.

    Attributes:
        name: in the result.
        segment: it belongs to.
        names: in each merged model.
        base: in the base.
        depth: of its layer in the segment, from 0 to 1.
    """

    name: str
    segment: int
    names: tuple[str, ...]
    base: str | None
    depth: float


def segments_of(recipe: Recipe, laid: dict[Ref, Laid], deltas: bool) -> tuple[Segment, ...]:
    """Turn a recipe's models or slices into segments.

    Raises:
        ConfigError: a run of layers is not in its model, or models have different numbers of layers.
    """
    if recipe.models:
        return (_whole(recipe, laid, deltas),)
    made, first = [], 0
    for number, one in enumerate(recipe.slices):
        base_ref = (one.base or recipe.base) if deltas else None
        pieces = [(index, piece) for index, piece in enumerate(one.sources) if piece.model != base_ref]
        if not pieces:
            raise recipe.error(("slices", number, "sources"), "A slice needs a model besides the base.")
        for index, piece in enumerate(one.sources):
            there = len(laid[piece.model].outline.layers)
            if piece.layers[1] > there:
                raise recipe.error(
                    ("slices", number, "sources", index, "layers"),
                    f"{piece.model} has {there} layers, and [{piece.layers[0]}, {piece.layers[1]}] goes beyond them.",
                )
        base = None
        if base_ref is not None:
            own = [piece.layers[0] for piece in one.sources if piece.model == base_ref]
            base = Run(laid[base_ref], own[0] if own else pieces[0][1].layers[0])
        length = pieces[0][1].layers[1] - pieces[0][1].layers[0]
        if base is not None and base.start + length > len(base.model.outline.layers):
            raise recipe.error(("slices", number), f"The base {base.model.name} lacks layers of this slice.")
        runs = tuple(
            Run(laid[piece.model], piece.layers[0], (piece.options, one.options, recipe.options))
            for _, piece in pieces
        )
        made.append(Segment(runs, base, first, length, (one.options, recipe.options)))
        first += length
    _one_stack(recipe, made)
    return tuple(made)


def _whole(recipe: Recipe, laid: dict[Ref, Laid], deltas: bool) -> Segment:
    base = Run(laid[recipe.base], 0) if deltas and recipe.base is not None else None
    runs = []
    for number, one in enumerate(recipe.models):
        model = laid[one.model]
        if one.layers is not None and one.layers != (0, len(model.outline.layers)):
            raise recipe.error(
                ("models", number, "layers"),
                f"{one.model} has {len(model.outline.layers)} layers, and models are merged whole; write slices for "
                f"the layers [{one.layers[0]}, {one.layers[1]}].",
            )
        runs.append(Run(model, 0, (one.options, recipe.options)))
    reference = base or runs[0]
    length = len(reference.model.outline.layers)
    for run in runs:
        if len(run.model.outline.layers) != length:
            raise ConfigError(
                f"{run.model.name} has {len(run.model.outline.layers)} layers and {reference.model.name} has {length}; "
                "choose layers of each with slices."
            )
    return Segment(tuple(runs), base, 0, length, (recipe.options,))


def _one_stack(recipe: Recipe, made: Sequence[Segment]) -> None:
    for segment in made:
        for run in segment.runs:
            config = run.model.opened.checkpoint.config or {}
            if config.get("is_encoder_decoder") and len(run.model.outline.stacks) > 1:
                stacks = ", ".join(sorted(run.model.outline.stacks))
                raise recipe.error(
                    ("slices",),
                    f"{run.model.name} has several stacks of layers ({stacks}); slices need a single one.",
                )


def tensors_of(segments: Sequence[Segment], donor: Laid) -> Iterator[Found]:
    """Yield every tensor of the result: those outside layers, then layer by layer.

    What lies outside the layers is merged as the first slice says if it comes before them (embeddings), otherwise as
    the last says. Buffers that `transformers` computes, which older versions of it stored, are left out where a model
    lacks them.

    Raises:
        CheckpointError: a tensor is missing in a model.
    """
    last = len(segments) - 1
    for number in dict.fromkeys((0, last)):
        segment = segments[number]
        own = segment.reference.model
        for name in own.outline.rest:
            before = any(part in name for part in FIRST)
            if last and ((before and number) or (not before and not number)):
                continue
            if (found := _outside(name, number, segment, donor)) is not None:
                yield found
    for number, segment in enumerate(segments):
        for offset in range(segment.length):
            yield from _layer(number, segment, offset, donor)


def _outside(name: str, number: int, segment: Segment, donor: Laid) -> Found | None:
    own = segment.reference.model
    names = {}
    for run in (*segment.runs, *([segment.base] if segment.base else [])):
        found = counterpart(name, own, run.model)
        if found is None and is_computed(name, own):
            return None
        if found is None:
            raise missing(name, own, run.model)
        names[run.model.number] = found
    out = counterpart(name, own, donor) if own is not donor else name
    if out is None or (out == donor.table and name != own.table):
        out = name
    return Found(
        out,
        number,
        tuple(names[run.model.number] for run in segment.runs),
        names[segment.base.model.number] if segment.base else None,
        own.outline.depth(name),
    )


def _layer(number: int, segment: Segment, offset: int, donor: Laid) -> Iterator[Found]:
    own = segment.reference
    depth = offset / (segment.length - 1) if segment.length > 1 else 1.0
    layer = segment.first + offset
    tables = [run.model.outline.layers[run.start + offset] for run in segment.runs]
    base = segment.base.model.outline.layers[segment.base.start + offset] if segment.base else None
    for suffix, name in own.model.outline.layers[own.start + offset].items():
        if any(suffix not in table for table in tables) and is_computed(name, own.model):
            continue
        names = []
        for run, table in zip(segment.runs, tables, strict=True):
            if suffix not in table:
                wanted = f"{run.model.outline.prefix}{run.start + offset}.{suffix}"
                raise _absent(wanted, name, own.model, run.model)
            names.append(table[suffix])
        prefix = donor.outline.prefix
        yield Found(f"{prefix}{layer}.{suffix}", number, tuple(names), base[suffix] if base else None, depth)


def _absent(wanted: str, name: str, own: Laid, there: Laid) -> CheckpointError:
    if wanted == name:
        return missing(name, own, there)
    return CheckpointError(
        f"{there.name} has no tensor {wanted} to go with {name} of {own.name}; "
        "only models of one architecture can be merged, so check that both are whole and of the same kind."
    )
