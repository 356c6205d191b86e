"""A broken promise, and a check that one can hand to pytest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


class BrokenPromise(AssertionError):
    """A plugin does not do what all plugins of its kind promise."""


@dataclass(frozen=True)
class Check:
    """One promise of one plugin: called without arguments it is silent, or raises.

    Attributes:
        plugin: its name.
        promise: the promise's name.
        run: does the work.

    Example:
        >>> str(Check("linear", "order", lambda: None))
        'linear-order'
    """

    plugin: str
    promise: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run it.

        Raises:
            BrokenPromise: the promise is broken.
        """
        self.run()

    def __str__(self) -> str:
        """Name the check, for lists and for the ids of tests."""
        return f"{self.plugin}-{self.promise}"


def demand(truth: bool, plugin: str, promise: str, found: str) -> None:
    """Raise unless something is true.

    Args:
        truth: what must be true.
        plugin: its name.
        promise: its name.
        found: what was found instead, as a clause.

    Raises:
        BrokenPromise: it is not true.

    Example:
        >>> demand(True, "linear", "order", "the result changes with the order of models")
    """
    if not truth:
        raise BrokenPromise(f"{plugin} breaks the promise {promise!r}: {found}.")


def furthest(found: Tensor, expected: Tensor) -> float:
    """Give the largest difference, as a share of the largest entry that is expected; 0 for empty tensors.

    Example:
        >>> import torch
        >>> furthest(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]))
        0.25
    """
    if not expected.numel():
        return 0.0
    size = float(expected.abs().max())
    return float((found - expected).abs().max()) / (size if size > 0 else 1.0)
