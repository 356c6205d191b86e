"""TSV-Merge: task singular vectors, made orthogonal across tasks, and its experimental weighted form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor

from umaf.merging.contract import Needs, Passes, PerModel, Span, as_column, merge_method, once
from umaf.tensors.polar import polar
from umaf.tensors.svd import Triplets, singular_triplets

_TRUNCATED = "only the largest singular values of each expert are kept, one share of them per expert"
_NEEDS = Needs(
    base="required",
    matrices=True,
    otherwise="mean",
    batched=True,
    memory=4.0,
    equivariant=True,
    breaks={"same": _TRUNCATED},
)


@merge_method(_NEEDS, source="Gargiulo et al., Task Singular Vectors, CVPR 2025, algorithm 1")
def tsv_m(
    deltas: Tensor,
    *,
    weight: PerModel = 1.0,
    keep: Literal["share", "all"] = "share",
    whiten: Literal["gram", "svd"] = "gram",
    shape: tuple[int, int] | None = None,
) -> Tensor:
    """Merge by task singular vectors: the main directions of every delta, made orthogonal across experts.

    Each delta keeps its `k = floor(q / N)` largest singular triplets, q being the shorter side and N the number of
    experts. With all left vectors beside each other as U, the values as S, and all right vectors as V, the result is
    `polar(U) diag(S) polar(V)^T`: the nearest matrices with orthonormal columns replace U and V, so that no expert
    writes over another's directions. Nothing is averaged; the published factor on the result is 1.

    Use it where experts were trained on different tasks from one base. Two experts of the same task interfere fully,
    and it then does no better than the mean of them.

    Other tensors (embeddings, head, norms, biases, convolutions) get the mean of the deltas. Directions that a delta
    does not have (experts of low rank) are left out, where the published code fills them with arbitrary ones.

    Args:
        deltas: `[model, *batch, out, in]`.
        weight: multiplies each delta.
        keep: "share" keeps q / N triplets of each expert (at least one), "all" keeps all of them (the authors' lossless
            variant; N times as large inside).
        whiten: "gram" works through float64 Gram matrices, "svd" through thin singular value decompositions as the
            published algorithm does: the same result where the vectors are independent, several times slower.
        shape: of the tensors that the rows stand for, where they are cores of factors.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> first = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
        >>> second = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
        >>> tsv_m(torch.stack([first, second])).round(decimals=4).tolist()
        [[4.0, 0.0], [0.0, 3.0]]
    """
    kept = share_of_rank(deltas, shape) if keep == "share" else None
    triplets = singular_triplets(deltas * as_column(weight, deltas), kept, method=whiten)
    return combine_orthogonally(triplets, method=whiten)


def measure(passes: Passes, *, models: int, small: float = 1e-5) -> dict[str, Tensor]:
    """Find the mean density of the tensors, `density` `[]`: the share of entries larger than `small`.

    Example:
        >>> measure(once(torch.tensor([[1.0, 0.0, 2.0, 3.0]])), models=1)
        {'density': tensor(0.7500)}
    """
    large: dict[str, list[int]] = {}
    for name, chunk in passes():
        count = large.setdefault(name, [0, 0])
        count[0] += int((chunk.abs() > small).sum())
        count[1] += chunk.numel()
    shares = [above / entries for above, entries in large.values() if entries]
    return {"density": torch.tensor(sum(shares) / max(1, len(shares)))}


@merge_method(
    Needs(
        base="required",
        measure="over",
        matrices=True,
        memory=5.5,
        otherwise="mean",
        breaks={"same": _TRUNCATED},
    ),
    source="Yang et al., Mix Data or Merge Models?, 2025, arXiv 2502.06876 (its abstract; details reconstructed)",
    measure=measure,
)
def r_tsvm(
    deltas: Tensor,
    *,
    outliers: Literal["more", "less", "none"] = "more",
    sigmas: Annotated[float, Span(0)] = 3.0,
    growth: Annotated[float, Span(0, open_low=True)] = 1.0,
    small: Annotated[float, Span(0)] = 1e-5,
    over: Literal["model", "tensor"] = "model",
    measured: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Merge by task singular vectors, weighted by outliers and with ranks by density (experimental).

    EXPERIMENTAL: no program was published, and the formulas here are reconstructed from an abstract; not even the
    sign of the weighting is confirmed. Two things are added to `tsv_m`:

    - expert i is weighted, in each tensor, by `w_i = N o_i / sum_j o_j`, where o_i is the sum of the magnitudes of
      its entries beyond mean + `sigmas` standard deviations (of its magnitudes); "less" uses 1 / o_i, "none" weights 1.
    - the number of triplets is `k = floor(growth * density / mean density * q / N)`, at least 1, where density is the
      share of entries larger than `small`, in this tensor and in the mean over all tensors.

    Other tensors get the mean of the deltas. It is not done inside the factors of LoRAs, because it counts entries.

    Args:
        deltas: `[model, out, in]`.
        outliers: whether outliers raise an expert's weight, lower it, or do nothing.
        sigmas: standard deviations from which on an entry is an outlier.
        growth: factor on the number of triplets.
        small: magnitude up to which an entry counts as zero.
        over: the mean density is that of the model, or of the tensor itself (then all tensors keep growth * q / N).
        measured: `density` `[]`, from :func:`measure`; measured on this stack when None.

    Returns:
        `[out, in]`.

    Example:
        >>> import torch
        >>> experts = torch.stack([torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))])
        >>> r_tsvm(experts, outliers="none").round(decimals=4).tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    if measured is None:
        measured = measure(once(deltas), models=deltas.shape[0], small=small)
    mean = float(measured["density"])
    density = float((deltas.abs() > small).float().mean()) / mean if mean > 0 else 1.0
    kept = max(1, int(growth * density * min(deltas.shape[1:]) / deltas.shape[0] + 1e-6))
    weights = outlier_weights(deltas, outliers, sigmas)
    return combine_orthogonally(singular_triplets(deltas * as_column(weights, deltas), kept))


def outlier_weights(deltas: Tensor, outliers: Literal["more", "less", "none"], sigmas: float) -> Tensor:
    """Weight experts by the magnitude of their outliers; the weights have mean 1.

    Args:
        deltas: `[model, *shape]`.
        outliers: as in :func:`r_tsvm`.
        sigmas: as there.

    Returns:
        `[model]`; ones where no expert, or (for "less") not every expert, has outliers.

    Example:
        >>> outlier_weights(torch.tensor([[1.0] * 20 + [9.0], [1.0] * 20 + [3.0]]), "more", 3.0)
        tensor([1.5000, 0.5000])
    """
    sizes = deltas.flatten(1).abs()
    edges = sizes.mean(1, keepdim=True) + sigmas * sizes.std(1, correction=0, keepdim=True)
    mass = (sizes * (sizes > edges)).sum(1)
    if outliers == "none" or not (mass > 0).all():
        usable = outliers == "more" and bool((mass > 0).any())
        return len(mass) * mass / mass.sum() if usable else torch.ones_like(mass)
    mass = mass if outliers == "more" else 1 / mass
    return len(mass) * mass / mass.sum()


def share_of_rank(deltas: Tensor, shape: tuple[int, int] | None = None) -> int:
    """Give one expert's share of the directions of a matrix: floor(shorter side / experts), at least 1.

    Args:
        deltas: `[model, *batch, out, in]`.
        shape: of the tensors that the rows stand for, where they are cores of factors.

    Example:
        >>> share_of_rank(torch.zeros(3, 8, 20))
        2
    """
    return max(1, min(shape or deltas.shape[-2:]) // deltas.shape[0])


def combine_orthogonally(triplets: Triplets, *, method: str = "gram") -> Tensor:
    """Add matrices after making their singular vectors orthogonal across matrices.

    Args:
        triplets: of `[model, *batch]` matrices.
        method: as in :func:`umaf.tensors.svd.singular_triplets`.

    Returns:
        `polar(U) diag(S) polar(V)^T` `[*batch, out, in]`, with all triplets side by side.

    Example:
        >>> one = singular_triplets(torch.eye(2)[None])
        >>> combine_orthogonally(one).round(decimals=4).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    left = torch.cat(tuple(triplets.left), dim=-1)
    values = torch.cat(tuple(triplets.values), dim=-1)
    right = torch.cat(tuple(triplets.right), dim=-2)
    return polar(left, method=method) * values.unsqueeze(-2) @ polar(right, method=method)
