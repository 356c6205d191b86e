"""TSV-Merge: task singular vectors, made orthogonal across tasks, and its experimental weighted form."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from umaf.merging.contract import Needs, PerModel, as_column, merge_method
from umaf.tensors.polar import polar
from umaf.tensors.svd import Triplets, singular_triplets

_TRUNCATED = "only the largest singular values of each expert are kept, one share of them per expert"
_NEEDS = Needs(
    base="required",
    matrices=True,
    otherwise="mean",
    batched=True,
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
