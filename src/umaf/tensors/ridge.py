"""Ridge regression in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.errors import NumericalError


def ridge(x: Tensor, y: Tensor, *, strength: float = 1e-3) -> Tensor:
    """Fit the matrix W that makes `x @ W` close to `y`.

    Minimises |xW - y|^2 + penalty |W|^2. The penalty is `strength` times the mean over columns of
    the sum of squares of `x`, so that scaling `x` scales W and changes nothing else. Where there
    are fewer rows than columns the equivalent system of the rows is solved, which is smaller.

    Args:
        x: `[row, in]`.
        y: `[row, out]`.
        strength: share of the mean squared column length of `x`, at least 0.

    Returns:
        W, `[in, out]`, in the dtype of `x`.

    Raises:
        NumericalError: shapes that do not fit, a negative strength, values that are not finite, or
            a system without a unique solution.

    Source: Hoerl and Kennard, Ridge regression, Technometrics 1970, equation 2.1.

    Example:
        >>> import torch
        >>> x = torch.eye(3)
        >>> ridge(x, 2 * x, strength=0.0).diagonal().tolist()
        [2.0, 2.0, 2.0]
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise NumericalError(
            f"ridge needs x [row, in] and y [row, out] with the same rows, got {list(x.shape)} and "
            f"{list(y.shape)}; give one row of y for each row of x."
        )
    rows, width = x.shape
    if rows >= width:
        return ridge_from_moments(x.T @ x, x.T @ y, strength=strength)
    gram = x @ x.T
    return x.T @ _solve(gram, y, penalty=_penalty(gram, width, strength))


def ridge_from_moments(gram: Tensor, cross: Tensor, *, strength: float = 1e-3) -> Tensor:
    """Fit the ridge matrix from `x.T @ x` and `x.T @ y`, which can be summed over batches.

    Args:
        gram: `[in, in]`, the sum of squares and products of the columns of x.
        cross: `[in, out]`, the sum of products of the columns of x with those of y.
        strength: as in `ridge`.

    Returns:
        W, `[in, out]`.

    Raises:
        NumericalError: as in `ridge`.

    Example:
        >>> import torch
        >>> ridge_from_moments(torch.eye(2), torch.ones(2, 1), strength=1.0).flatten().tolist()
        [0.5, 0.5]
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.shape[0] != cross.shape[0]:
        raise NumericalError(
            f"ridge needs a square gram [in, in] and cross [in, out], got {list(gram.shape)} and "
            f"{list(cross.shape)}; compute both from the same columns."
        )
    return _solve(gram, cross, penalty=_penalty(gram, gram.shape[0], strength))


def _penalty(gram: Tensor, width: int, strength: float) -> float:
    """Return the penalty in the units of `gram`; the trace is the same for x.T x and x x.T."""
    if strength < 0:
        raise NumericalError(f"ridge needs a strength of 0 or more, got {strength}; raise it.")
    return strength * float(gram.diagonal().sum()) / max(width, 1)


def _solve(gram: Tensor, right: Tensor, *, penalty: float) -> Tensor:
    if not (torch.isfinite(gram).all() and torch.isfinite(right).all()):
        raise NumericalError(
            "ridge was asked to fit values that are NaN or infinite; look for overflow in what made them."
        )
    damped = gram + penalty * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed) == 0:
        return torch.cholesky_solve(right, factor)
    # Rank deficient with no penalty: the solution of least length is still defined.
    if penalty == 0.0 or not damped.any():
        return torch.linalg.pinv(damped, hermitian=True) @ right
    raise NumericalError(
        "ridge could not solve its system at this strength, the columns are nearly equal; raise "
        "the strength or use float64."
    )
