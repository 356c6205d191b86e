"""The Projection Head: two layers down to the 512 numbers of a fingerprint."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """A two-layer perceptron, 512 to 512 to 512, whose output has length 1.

    Example:
        >>> import torch
        >>> round(ProjectionHead()(torch.ones(1, 512)).norm().item(), 4)
        1.0
    """

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map `[batch, 512]` to `[batch, 512]`, each row of length 1."""
        return functional.normalize(self.outer(functional.gelu(self.inner(pooled))), dim=-1)
