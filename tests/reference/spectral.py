"""Made deltas with well separated singular values, and singular value decompositions in float64, for the references."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st


def matrix_with(rng, shape, rank):
    """Make a matrix of a given rank whose singular values fall by a quarter at least, so that none are confused."""
    out, width = shape
    left, _ = np.linalg.qr(rng.normal(size=(out, rank)))
    right, _ = np.linalg.qr(rng.normal(size=(width, rank)))
    values = 3.0 * 0.75 ** np.cumsum(rng.uniform(1, 1.5, size=rank))
    return left * values @ right.T


@st.composite
def made_deltas(draw, most=4, zeros=True, equal=True):
    """Draw float64 deltas [model, out, in] whose values float32 holds exactly.

    Tall, wide and square; of full and of low rank; one expert or several; zero experts; equal experts.
    """
    models = draw(st.integers(1, most))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ranks = [draw(st.integers(0 if zeros else 1, min(shape))) for _ in range(models)]
    stack = np.stack([matrix_with(rng, shape, rank) for rank in ranks])
    if equal and draw(st.booleans()):
        stack[:] = stack[0]
    return stack.astype(np.float32).astype(np.float64)


def decompose(matrix, scale=None):
    """Thin singular value decomposition, cut at the numerical rank of float32 data."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    largest = values[0] if scale is None else scale
    kept = values > max(1e-30, 4 * np.finfo(np.float32).eps * min(matrix.shape) ** 0.5 * largest)
    return left[:, kept], values[kept], right[kept]


def isometry(matrix):
    left, _, right = decompose(matrix) if min(matrix.shape) else (matrix, None, matrix.T @ matrix)
    return left @ right


def run(method, stack, **options):
    """Run a method on float32 and give its result in float64."""
    return method(torch.from_numpy(stack).float(), **options).double().numpy()


def close(found, wanted, size=None, tolerance=2e-5):
    """Tell whether two matrices are the same, measured against the size of the wanted one (or a given one)."""
    size = max(np.linalg.norm(wanted), 1e-6) if size is None else max(size, 1e-6)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - wanted) <= tolerance * size, np.linalg.norm(found - wanted) / size
