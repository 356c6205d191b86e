"""Task-conditioned gating: which sources count is read off a handful of texts of the wanted task.

Attention with one query: what is wanted, fingerprinted on its probes, asks every source's fingerprint; the softmax of
the answers multiplies the user's weights. Both projections begin as the identity, so an untrained gate weighs sources
by how alike they are to what is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from umaf.errors import FingerprintError
from umaf.extraction import Fingerprint, comparable
from umaf.extraction.store import read_tensors, weights_version, write_tensors
from umaf.fusion.weights import check_weights

WIDTH, INNER = 512, 64
SHARPNESS = 5.0


class Gate(nn.Module):
    """Attention of one query over sources.

    Args:
        extractor: version of the extractor whose fingerprints it reads.

    Source: Vaswani et al., 2017, equation 1, with one head and one query.

    Example:
        >>> gate = Gate("pca")
        >>> sources = torch.nn.functional.normalize(torch.eye(512)[:3] + 0.01, dim=1)
        >>> int(gate(sources[1], sources, torch.ones(3)).argmax())
        1
    """

    def __init__(self, extractor: str) -> None:
        super().__init__()
        self.extractor = extractor
        self.query = nn.Parameter(torch.zeros(INNER, WIDTH))
        self.key = nn.Parameter(torch.zeros(INNER, WIDTH))
        self.left = nn.Parameter(0.01 * torch.randn(WIDTH, INNER, generator=torch.Generator().manual_seed(0)))
        self.sharp = nn.Parameter(torch.tensor(SHARPNESS).log())

    def forward(
        self,
        wanted: Float[Tensor, " 512"],
        sources: Float[Tensor, "source 512"],
        weights: Float[Tensor, " source"],
    ) -> Float[Tensor, " source"]:
        """Weigh sources.

        Args:
            wanted: fingerprint of the wanted task.
            sources: theirs.
            weights: the user's, of any sign; 0 leaves a source out.

        Returns:
            Weights whose absolute values sum to 1, with the user's signs.
        """
        query = wanted + self.left @ (self.query @ wanted)
        keys = sources + (sources @ self.key.T) @ self.left.T
        scores = self.sharp.exp() * (keys @ query)
        scores = scores + weights.abs().clamp_min(1e-30).log()
        return scores.masked_fill(weights == 0, float("-inf")).softmax(0) * weights.sign()

    @property
    def version(self) -> str:
        """Name and hash of every weight."""
        return weights_version("gate", self, extractor=self.extractor)

    def save(self, path: str | Path) -> Path:
        """Write one file that does not exist; read it with `load_gate`."""
        tensors = {name: weight.detach().cpu() for name, weight in self.state_dict().items()}
        return write_tensors(path, tensors, {"umaf": "gate", "extractor": self.extractor})


def gated_weights(
    gate: Gate, wanted: Fingerprint, sources: Sequence[Fingerprint], weights: Sequence[float] | None = None
) -> list[float]:
    """Weigh sources for a wanted task; give the result to `umaf.fusion.fuse`.

    Args:
        gate: a trained gate, or a fresh one.
        wanted: a fingerprint on the wanted task's probes, from the same extractor.
        sources: at least one.
        weights: the user's; None for equal ones.

    Returns:
        One weight per source.

    Raises:
        FingerprintError: fingerprints that do not lie in one space, or another extractor's gate.
    """
    if wanted.card.extractor != gate.extractor:
        raise FingerprintError(
            f"this gate was trained on fingerprints of {gate.extractor}, got one of {wanted.card.extractor}; extract "
            "with the same extractor, or train it again."
        )
    used = check_weights(weights, len(sources))
    for source in sources:
        comparable(wanted, source)
    with torch.no_grad():
        rows = torch.cat([source.vector for source in sources])
        return gate(wanted.vector[0], rows, torch.tensor(used)).tolist()


def load_gate(path: str | Path) -> Gate:
    """Read a gate that `Gate.save` wrote.

    Raises:
        FingerprintError: no such file, or not a gate.
    """
    tensors, about = read_tensors(path)
    gate = Gate(about.get("extractor", ""))
    if about.get("umaf") != "gate" or {n: w.shape for n, w in tensors.items()} != {
        n: w.shape for n, w in gate.state_dict().items()
    }:
        raise FingerprintError(f"{path} is no gate of umaf; train one with `umaf train gate`.")
    gate.load_state_dict(tensors)
    return gate.eval().requires_grad_(False)
