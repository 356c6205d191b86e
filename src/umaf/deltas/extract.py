"""A LoRA out of an expert and its base: the best factors of what changed, module by module, and what they miss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from umaf.checkpoints import Checkpoint
from umaf.deltas.adapter import Target
from umaf.deltas.lowrank import LowRank
from umaf.deltas.places import Place, places_of
from umaf.deltas.write import write_adapter
from umaf.errors import AdapterError, NumericalError
from umaf.seeds import generator
from umaf.tensors.svd import singular_triplets

_EXACT = 512
"""Short sides up to this are decomposed in full."""
_SPARE, _ROUNDS = 12, 3
_TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForConditionalGeneration": "SEQ_2_SEQ_LM"}


@dataclass(frozen=True)
class Amount:
    """How much a LoRA may hold.

    Attributes:
        rank: of every module; "auto" takes the lowest that keeps `energy`.
        energy: share of the squared norm that "auto" keeps, in (0, 1].
        most: highest rank that "auto" takes.
    """

    rank: int | Literal["auto"] = "auto"
    energy: float = 0.9
    most: int = 128

    def __post_init__(self) -> None:
        """Refuse what no rank can be."""
        if self.rank != "auto" and self.rank < 1:
            raise AdapterError(f"A rank of {self.rank} was asked for; it must be at least 1, or auto.")
        if not 0 < self.energy <= 1 or self.most < 1:
            raise AdapterError(
                f"An energy of {self.energy:g} and a rank of at most {self.most} were asked for; the energy must lie "
                "in (0, 1], the rank be at least 1."
            )


@dataclass(frozen=True)
class Extracted:
    """What became of one module.

    Attributes:
        name: of the module, or of the parameter that stacks experts.
        rank: of its factors.
        norm: of what the expert changed.
        error: norm of what the factors miss, divided by `norm`; measured on the factors as written.
    """

    name: str
    rank: int
    norm: float
    error: float


@dataclass(frozen=True)
class Extraction:
    """What was extracted, and what was not.

    Attributes:
        folder: the LoRA.
        modules: one row each.
        error: over all modules together.
        left_out: changed tensors that the LoRA does not hold, with the norm of their change; None where the base has
            no such tensor, or one of another shape.
    """

    folder: Path
    modules: tuple[Extracted, ...]
    error: float
    left_out: tuple[tuple[str, float | None], ...]


def extract_lora(
    expert: Checkpoint,
    base: Checkpoint,
    folder: str | Path,
    *,
    amount: Amount | None = None,
    seed: int = 0,
    report: Callable[[str], object] | None = None,
) -> Extraction:
    """Write what an expert changed in its base as a LoRA folder in PEFT's format, one module in memory at a time.

    Matrices with a short side above 512 are decomposed at random (a Gaussian sketch with power iterations), the others
    exactly; either way the error that is reported is measured.

    Args:
        expert: a fine-tuned model.
        base: what it was fine-tuned from.
        folder: to write; a path that does not exist yet.
        amount: ranks; :class:`Amount` has defaults.
        seed: of the sketches.
        report: called with the name of each module before it is read.

    Returns:
        Ranks and errors, and what was left out: embeddings, norms, biases, and tensors only the expert has.

    Raises:
        AdapterError: nothing that a LoRA can hold was changed.
        NumericalError: a tensor holds NaN or infinity.
        OutputError: the folder exists or cannot be written.

    Source: Halko, Martinsson, Tropp, SIAM Review 2011, algorithms 4.4 and 5.1.
    """
    amount = amount or Amount()
    targets: dict[str, Target] = {}
    rows: list[Extracted] = []
    missed = 0.0
    places = [place for place in places_of(base) if _in_both(place, expert, base)]
    for place in places:
        if report is not None:
            report(place.name)
        change = place.read(expert) - place.read(base)
        norm = float(torch.linalg.vector_norm(change, dtype=torch.float64))
        if norm != norm or norm == float("inf"):
            raise NumericalError(
                f"{expert.entries[place.names[0]].file}: {place.names[0]}, or the same of {base.name}, holds NaN or "
                "infinity, so no factors can be found for what changed."
            )
        if norm == 0:
            continue
        delta = factors(change, amount, seed=seed, name=place.name)
        rest = float(torch.linalg.vector_norm(change - delta.dense(), dtype=torch.float64))
        missed += rest**2
        targets[place.name] = Target(place.kind, delta)
        rows.append(Extracted(place.name, delta.rank, norm, rest / norm))
    if not targets:
        raise AdapterError(
            f"{expert.name} has the same matrices as {base.name}, so there is nothing to extract; name the model it "
            "was fine-tuned from as the base."
        )
    whole = sum(row.norm**2 for row in rows)
    found = Extraction(Path(folder), tuple(rows), (missed / whole) ** 0.5, _left_out(expert, base, places))
    _write(found, targets, expert, base, amount, seed)
    return found


def factors(change: Tensor, amount: Amount, *, seed: int = 0, name: str = "") -> LowRank:
    """Find the best factors of a matrix, or of a stack of them with one rank for all.

    Args:
        change: `[out, in]` or `[expert, out, in]`, float32.
        amount: their rank.
        seed: of the sketch, with the name.
        name: of the module.

    Example:
        >>> factors(torch.diag(torch.tensor([3.0, 1.0, 0.1])), Amount(energy=0.95)).rank
        2
    """
    short = min(change.shape[-2:])
    most = min(short, amount.most if amount.rank == "auto" else amount.rank)
    if short <= _EXACT or most > short // 4:
        found = singular_triplets(change, most)
        left, values, right = found.left, found.values, found.right
    else:
        left, values, right = sketch(change, most, seed=seed, name=name)
    kept = most
    if amount.rank == "auto":
        kept = _enough(
            values, torch.linalg.vector_norm(change, dim=(-2, -1), dtype=torch.float64), amount.energy
        )
    root = values[..., :kept].sqrt()
    return LowRank(
        (root.unsqueeze(-1) * right[..., :kept, :]).contiguous(),
        (left[..., :kept] * root.unsqueeze(-2)).contiguous(),
    )


def sketch(matrix: Tensor, count: int, *, seed: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Find the largest singular triplets at random; nearly the best ones, since powers sharpen the spectrum.

    Args:
        matrix: `[*batch, out, in]`.
        count: how many.
        seed: with the name, of the Gaussian test matrix.
        name: of the matrix.

    Returns:
        `left [*batch, out, count]`, `values [*batch, count]`, `right [*batch, count, in]`.

    Example:
        >>> left, values, right = sketch(torch.diag(torch.arange(40.0)), 2, seed=0, name="")
        >>> [round(value) for value in values.tolist()]
        [39, 38]
    """
    width = matrix.shape[-1]
    test = torch.randn(
        width, min(count + _SPARE, *matrix.shape[-2:]), generator=generator(seed, "sketch", name)
    )
    basis = torch.linalg.qr(matrix @ test.to(matrix)).Q
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(matrix.mT @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    # The small side of the projection is decomposed through the R of its other side.
    other, core = torch.linalg.qr((basis.mT @ matrix).mT)
    u, s, vt = torch.linalg.svd(core.mT, full_matrices=False)
    return basis @ u[..., :count], s[..., :count], vt[..., :count, :] @ other.mT


def _enough(values: Tensor, norms: Tensor, energy: float) -> int:
    """Count the values that hold a share of the squared norms; of a stack, the largest count."""
    held = values.double().square().cumsum(-1)
    short_of = held < energy * (1 - 1e-9) * norms.square().unsqueeze(-1)
    return min(values.shape[-1], int(short_of.sum(-1).max()) + 1)


def _in_both(place: Place, expert: Checkpoint, base: Checkpoint) -> bool:
    return all(
        name in expert.entries and expert.entries[name].shape == base.entries[name].shape
        for name in place.names
    )


def _left_out(
    expert: Checkpoint, base: Checkpoint, places: list[Place]
) -> tuple[tuple[str, float | None], ...]:
    held = {name for place in places for name in place.names}
    rows: list[tuple[str, float | None]] = []
    for name, entry in expert.entries.items():
        if name in held:
            continue
        if name not in base.entries or base.entries[name].shape != entry.shape:
            rows.append((name, None))
            continue
        change = expert.flat(name).double() - base.flat(name).double()
        norm = float(torch.linalg.vector_norm(change))
        expert.release(name)
        base.release(name)
        if norm > 0:
            rows.append((name, norm))
    return tuple(rows)


def _write(
    found: Extraction,
    targets: dict[str, Target],
    expert: Checkpoint,
    base: Checkpoint,
    amount: Amount,
    seed: int,
) -> None:
    kinds = [str(one) for one in (base.config or {}).get("architectures") or []]
    task = next((task for end, task in _TASKS.items() if any(kind.endswith(end) for kind in kinds)), None)
    conv1d = any(place.transposed and place.kind == "linear" for place in places_of(base))
    record = {
        "made": "extract-lora",
        "expert": expert.name,
        "base": base.name,
        "rank": amount.rank,
        "energy": amount.energy,
        "most": amount.most,
        "seed": seed,
        "error": found.error,
        "modules": {
            row.name: {"rank": row.rank, "norm": row.norm, "error": row.error} for row in found.modules
        },
        "left_out": dict(found.left_out),
    }
    write_adapter(found.folder, targets, base=base.name, task=task, conv1d=conv1d, record=record)
