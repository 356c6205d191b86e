"""Whether a vector means anything in the model it is to be added to: measured before anything is merged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from umaf.errors import ConfigError
from umaf.files import sha256_file
from umaf.merging.planning.jobs import Plan
from umaf.merging.planning.opening import Open, open_ref
from umaf.merging.planning.plan import make_plan
from umaf.merging.planning.vocabulary import align, read_alignment
from umaf.merging.recipes.recipe import Recipe
from umaf.merging.recipes.reference import Ref, parse_ref
from umaf.merging.running.bind import bind, release
from umaf.merging.running.feeds import blame
from umaf.merging.running.room import CHUNK
from umaf.merging.running.work import Work

KIN, ALONG, LARGE = 0.9, 0.3, 0.2
"""Cosine below which models hardly share their pre-training; cosine above which a vector goes where the target went;
share of the target's norm above which a change is larger than fine-tunes make."""


@dataclass(frozen=True)
class Compatibility:
    """How a vector lies to the model it is added to.

    Attributes:
        target: the model.
        size: norm of the change, as a share of the target's norm.
        kin: cosine of the weights of each other model and of the target; near 1 for models of one pre-training, near
            0 for others.
        along: cosine of the change and of what the target itself learned since the origin; None where no origin is
            named, or the target is the origin. Near 0 in published vectors that work.
        tokenizers: "same" files in all models, "different", or "unknown" where a model has none.
        tensors: (changed, all).
        notes: what is worth a look, a sentence each; the planner's among them.
    """

    target: str
    size: float
    kin: Mapping[str, float]
    along: float | None
    tokenizers: str
    tensors: tuple[int, int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write the report, a line for each finding."""
        lines = [f"target      {self.target}", f"change      {self.size:.2%} of its norm"]
        lines += [f"            in {self.tensors[0]} of {self.tensors[1]} tensors"]
        lines += [f"kinship     {cosine:.3f} with {name}" for name, cosine in self.kin.items()]
        if self.along is not None:
            lines.append(f"direction   {self.along:+.3f} along what the target learned")
        lines.append(f"tokenizers  {self.tokenizers}")
        return "\n".join([*lines, *(f"note        {one}" for one in self.notes)])


@dataclass
class _Sums:
    target: float = 0.0
    change: float = 0.0
    learned: float = 0.0
    along: float = 0.0
    others: list[float] = field(default_factory=list)  # squared norms of the other models
    products: list[float] = field(default_factory=list)  # with the target
    changed: int = 0


def compatibility(recipe: Recipe, *, origin: object = None, open: Open = open_ref) -> Compatibility:
    """Compare the models of a preset, reading each once and in pieces.

    The planner's checks of names, shapes, configs and vocabularies are made first, so whatever the merge itself would
    refuse is refused here.

    Args:
        recipe: of `umaf.merging.presets`, or another one over `task_arithmetic`.
        origin: what both the target and the vector's end were trained from, one of the recipe's models: `base` of a
            chat vector or a negation, `untrained` of a reasoning vector (nearly); None leaves `along` out.
        open: opens a model without its adapters.

    Raises:
        ConfigError: the recipe is over another method, or the origin is none of its models.
        CheckpointError: tensors are missing or have other shapes.
        NumericalError: a model holds NaN or infinity.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> from umaf.merging.presets import negation
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_file({"w": torch.tensor([3.0, 4.0])}, folder / "base.safetensors")
        >>> save_file({"w": torch.tensor([3.0, 5.0])}, folder / "bad.safetensors")
        >>> recipe = negation(folder / "base.safetensors", unwanted=folder / "bad.safetensors", weight=0.5)
        >>> found = compatibility(recipe)
        >>> round(found.size, 3), found.along, found.tensors, found.notes
        (0.1, None, (1, 1), ())
    """
    if recipe.method != "task_arithmetic":
        raise ConfigError(
            f"A vector is carried over by task_arithmetic, and this recipe is over {recipe.method}; take a preset."
        )
    started = _place(recipe, None if origin is None else parse_ref(origin))
    plan = make_plan(recipe, open=open)
    plan = align(plan, read_alignment(plan))
    sums, tensors = _measured(plan, started)
    names = [str(one.model) for one in recipe.models]
    kin = {
        name: _cosine(product, sums.target, other)
        for name, product, other in zip(names, sums.products, sums.others, strict=True)
    }
    size = math.sqrt(sums.change / sums.target) if sums.target else 0.0
    along = None if started is None else _cosine(sums.along, sums.change, sums.learned)
    found = (str(recipe.base), size, kin, along, _tokenizers(plan), (sums.changed, tensors))
    return Compatibility(*found, notes=(*plan.notes, *_notes(*found[1:5])))


def _place(recipe: Recipe, origin: Ref | None) -> int | None:
    if origin is None or origin == recipe.base:
        return None
    refs = [one.model for one in recipe.models]
    if origin in refs:
        return refs.index(origin)
    raise ConfigError(
        f"The origin {origin} is none of the recipe's models; name one of {', '.join(map(str, refs))}."
    )


def _measured(plan: Plan, origin: int | None) -> tuple[_Sums, int]:
    count = len(plan.recipe.models)
    sums, tensors = _Sums(others=[0.0] * count, products=[0.0] * count), 0
    for job in plan.jobs:
        if job.base is None or job.method == "copy":
            continue
        tensors += 1
        work, before = bind(plan, job), sums.change
        weight = torch.tensor([float(one) * job.scale for one in job.options["weight"]])
        for target, deltas in _chunks(work):
            _add(sums, target, deltas, weight=weight, origin=origin)
        sums.changed += sums.change > before
        release(plan, [job])
    return sums, tensors


def _chunks(work: Work) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, work.numel, CHUNK):
        stop = min(start + CHUNK, work.numel)
        target, deltas = torch.empty(stop - start), torch.empty(len(work.rows), stop - start)
        if work.base is None:
            continue
        work.base.fill(start, stop, target)
        for feed, row in zip(work.rows, deltas.unbind(0), strict=True):
            feed.fill(start, stop, row)
        if not math.isfinite(float(target.sum() + deltas.sum())):
            blame(work.feeds, start, stop)
        yield target, deltas.sub_(target)


def _add(sums: _Sums, target: Tensor, deltas: Tensor, *, weight: Tensor, origin: int | None) -> None:
    change = weight @ deltas
    sums.target += _dot(target, target)
    sums.change += _dot(change, change)
    for number, delta in enumerate(deltas):
        own = target + delta
        sums.others[number] += _dot(own, own)
        sums.products[number] += _dot(own, target)
    if origin is not None:
        # The target minus its origin is what it learned: the origin's delta with the other sign.
        sums.learned += _dot(deltas[origin], deltas[origin])
        sums.along -= _dot(change, deltas[origin])


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.double(), other.double()))


def _cosine(product: float, one: float, other: float) -> float:
    lengths = math.sqrt(one) * math.sqrt(other)
    return max(-1.0, min(1.0, product / lengths)) if lengths else 0.0


def _tokenizers(plan: Plan) -> str:
    files = [Path(one.checkpoint.folder) / "tokenizer.json" for one in plan.models]
    if not all(file.is_file() for file in files):
        return "unknown"
    return "same" if len({sha256_file(file) for file in files}) == 1 else "different"


def _notes(size: float, kin: Mapping[str, float], along: float | None, tokenizers: str) -> Iterator[str]:
    for name, cosine in kin.items():
        if cosine < KIN:
            yield (
                f"{name} and the target have a cosine of {cosine:.2f}: they hardly come from one pre-training, and a "
                "vector from elsewhere means nothing here."
            )
    if size == 0:
        yield "The change is 0: the models at the ends of the vector are equal, or their weights are 0."
    if size > LARGE:
        yield f"The change is {size:.0%} of the target's norm, more than fine-tunes make; try a smaller weight."
    if along is not None and along > ALONG:
        yield (
            f"The change goes {along:.2f} along what the target learned already; that part would be learned twice, so "
            "try a smaller weight."
        )
    if tokenizers == "different":
        yield "Tokenizer files differ; look at the added tokens, or align vocabularies."
