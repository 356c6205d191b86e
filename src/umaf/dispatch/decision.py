"""What a dispatcher answers: a mixture for every request, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

OTHER = "other"
"""What a request is called that no expert of the shelf is for; it gets the base."""


@dataclass(frozen=True)
class Decision:
    """A mixture for every request of a batch.

    Attributes:
        names: the experts of the shelf.
        weights: ``[row, expert]``, or ``[row, expert, module]`` where modules differ; all zero is the base.
        reasons: one sentence per row.

    Example:
        >>> Decision(("sums", "lists"), torch.tensor([[0.0, 1.0]]), ("asked for by name",)).explain(0)
        'lists 1.00: asked for by name'
    """

    names: tuple[str, ...]
    weights: Tensor
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.weights)

    def shares(self, row: int) -> dict[str, float]:
        """Give the weights of a row by name; the mean over modules where they differ."""
        weights = self.weights[row].double()
        means = weights if weights.dim() == 1 else weights.mean(-1)
        return dict(zip(self.names, means.tolist(), strict=True))

    def explain(self, row: int) -> str:
        """Say in one line which experts a row gets, with what weights, and why."""
        used = {name: share for name, share in self.shares(row).items() if abs(share) >= 0.005}
        listed = ", ".join(
            f"{name} {share:.2f}{self._range(row, name)}"
            for name, share in sorted(used.items(), key=lambda item: -item[1])
        )
        return f"{listed or 'the base alone'}: {self.reasons[row]}"

    def take(self, rows: Sequence[int]) -> Decision:
        """Choose rows."""
        return Decision(self.names, self.weights[list(rows)], tuple(self.reasons[row] for row in rows))

    def _range(self, row: int, name: str) -> str:
        if self.weights.dim() == 2:
            return ""
        own = self.weights[row, self.names.index(name)]
        return f" ({float(own.min()):.2f} to {float(own.max()):.2f} over the modules)"


Dispatcher = Callable[[Sequence[str]], Decision]
"""The texts of requests, without the prompt around them, to their mixtures."""


def one_hot(names: tuple[str, ...], chosen: Sequence[str], reasons: Sequence[str]) -> Decision:
    """Give every row the one expert it is for, and the base to rows for none of them.

    Example:
        >>> one_hot(("sums", "lists"), ["other", "sums"], ["", ""]).weights.tolist()
        [[0.0, 0.0], [1.0, 0.0]]
    """
    weights = torch.tensor([[float(name == one) for name in names] for one in chosen], dtype=torch.float64)
    return Decision(names, weights.reshape(len(chosen), len(names)), tuple(reasons))


def soft(names: tuple[str, ...], shares: Tensor, reasons: Sequence[str]) -> Decision:
    """Weigh every expert by its share, ``[row, expert and other]``; what falls to other stays the base's."""
    return Decision(names, shares[:, : len(names)].double(), tuple(reasons))


def chosen_by(
    names: tuple[str, ...], shares: Tensor, *, mixed: bool, why: str, notes: Sequence[str] | None = None
) -> Decision:
    """Turn shares of every name and of other into a decision: the largest, or a mixture by share.

    Args:
        names: the experts; a last column of `shares`, where there is one more, stands for other.
        shares: ``[row, expert and other]``, each row adding up to one.
        mixed: weigh every expert by its share.
        why: what gave the shares.
        notes: added to the reason of each row.
    """
    labels = (*names, OTHER)
    tops, more = shares.argmax(1).tolist(), notes or [""] * len(shares)
    reasons = [
        f"{why} finds {labels[top]} likeliest ({float(row[top]):.2f}){note}"
        for top, row, note in zip(tops, shares, more, strict=True)
    ]
    return soft(names, shares, reasons) if mixed else one_hot(names, [labels[top] for top in tops], reasons)


def joined(decisions: Sequence[Decision]) -> Decision:
    """Put decisions under one another; where some weigh by module, all do."""
    modules = max(decision.weights.dim() for decision in decisions)
    width = max(decision.weights.shape[-1] for decision in decisions if decision.weights.dim() == modules)
    rows = [
        one.weights if one.weights.dim() == modules else one.weights.unsqueeze(-1).expand(-1, -1, width)
        for one in decisions
    ]
    reasons = tuple(reason for one in decisions for reason in one.reasons)
    return Decision(decisions[0].names, torch.cat(rows), reasons)
