"""Several named vectors in one of 512 numbers, and back: what each label of a capability means.

Every name has a fixed random matrix `[512, width]`, drawn from the name alone, which carries its vector; a
fingerprint is the sum. Whoever knows the names gets the vectors back by least squares: exactly while all of them
together have at most 512 numbers, and approximately beyond. Sums of fingerprints hold the sum of what they carry, so
several capabilities, each with its own names, lie in one fingerprint.

Source: Smolensky, Tensor product variable binding, Artificial Intelligence 1990; random bindings: Plate, Holographic
reduced representations, IEEE TNN 1995.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import FingerprintError
from umaf.extraction.fingerprint import WIDTH
from umaf.seeds import derive


def bind(parts: Mapping[str, Tensor]) -> Float[Tensor, " fingerprint"]:
    """Add named vectors up into 512 numbers.

    Args:
        parts: vectors of one width, by name.

    Returns:
        `[512]` float64.

    Raises:
        FingerprintError: nothing to bind.

    Example:
        >>> whole = bind({"a": torch.ones(3), "b": torch.zeros(3)})
        >>> unbind(whole, ["a", "b"], 3).round(decimals=4).abs().tolist()
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    if not parts:
        raise FingerprintError("named vectors were to be bound, got none; give at least one.")
    return torch.stack([code(name, len(part)) @ part.double() for name, part in parts.items()]).sum(0)


def unbind(
    vector: Tensor,
    names: Sequence[str],
    width: int,
    *,
    strength: float = 1e-6,
    spread: Float[Tensor, " width"] | None = None,
    balanced: Sequence[Sequence[str]] = (),
) -> Float[Tensor, "name width"]:
    """Take the vectors of some names out of 512 numbers.

    Args:
        vector: `[512]` or `[1, 512]`.
        names: all names that were bound; a name that was not gets what looks like it, about 0.
        width: numbers per name.
        strength: of the ridge that keeps the system solvable where names need more than 512 numbers.
        spread: how large each number of a vector usually is; where names need more than 512 numbers, what is usually
            large is then believed first. All alike when None.
        balanced: groups of names whose vectors add up to 0, as those of one capability's labels do; each group needs
            numbers for one name less. Groups that share a name are taken together.

    Returns:
        One row per name, float64.

    Raises:
        FingerprintError: no name, or one twice.

    Source: with `spread` the estimate of least expected error, Wiener, Extrapolation, interpolation and smoothing of
    stationary time series, 1949.
    """
    if not names or len(set(names)) < len(names):
        raise FingerprintError(f"names to unbind must be given and differ, got {list(names)}.")
    usual = torch.ones(width).double() if spread is None else spread.double().cpu()
    free = _free(names, balanced)
    each = torch.stack([code(name, width) * usual for name in names])
    codes = torch.einsum("nf,ncw->cfw", free, each).reshape(WIDTH, -1)
    # From the side with fewer rows, so that many names cost no more than 512.
    rows = vector.detach().double().cpu().reshape(-1)
    if codes.shape[1] <= WIDTH:
        gram = codes.T @ codes
        found = torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=gram.dtype), codes.T @ rows)
    else:
        gram = codes @ codes.T
        found = codes.T @ torch.linalg.solve(gram + strength * torch.eye(WIDTH, dtype=gram.dtype), rows)
    return free @ found.reshape(-1, width) * usual


def _free(names: Sequence[str], balanced: Sequence[Sequence[str]]) -> Float[Tensor, "name free"]:
    """Give an orthonormal basis of what vectors of these names can be together, when groups of them add up to 0."""
    rows = torch.tensor([[float(name in group) for name in names] for group in _apart(balanced)])
    rows = rows.double().reshape(-1, len(names))
    rows = rows[rows.sum(1) > 1]
    if not len(rows):
        return torch.eye(len(names), dtype=rows.dtype)
    # Groups have no name in common, so their rows are orthogonal.
    out = rows / rows.norm(dim=1, keepdim=True)
    values, basis = torch.linalg.eigh(torch.eye(len(names), dtype=out.dtype) - out.T @ out)
    return basis[:, values > 0.5]


def _apart(groups: Sequence[Sequence[str]]) -> list[set[str]]:
    """Join groups that share a name."""
    found: list[set[str]] = []
    for group in map(set, groups):
        touched = [other for other in found if other & group]
        found = [other for other in found if other not in touched] + [group.union(*touched)]
    return found


@lru_cache(maxsize=4096)
def code(name: str, width: int) -> Float[Tensor, "fingerprint width"]:
    """Draw the matrix that carries a name's vector; its columns have length about 1."""
    # RandomState's stream is frozen by numpy's compatibility policy; torch's and Generator's are not.
    stream = np.random.RandomState(derive(0, "binding", name.casefold().strip()) % 2**32)
    return torch.from_numpy(stream.standard_normal((WIDTH, width))) / WIDTH**0.5
