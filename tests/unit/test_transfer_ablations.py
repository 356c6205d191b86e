"""Weights regressed on fingerprints: inner products of updates, and the cost of leaving one out, the long way too."""

from __future__ import annotations

import pytest
import torch

from benchmarks.transfer_ablations import _inner, _left_out
from umaf.seeds import generator


def _adapters(count: int = 5) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    draw = generator(0, "adapters")
    sizes = {"m": (4, 3), "n": (2, 6)}
    return [
        {
            name: (torch.randn(2, inner, generator=draw), torch.randn(out, 2, generator=draw))
            for name, (out, inner) in sizes.items()
        }
        for _ in range(count)
    ]


def test_inner_products_are_those_of_whole_updates() -> None:
    adapters = _adapters()
    flat = torch.stack([torch.cat([(b @ a).flatten() for a, b in one.values()]) for one in adapters]).double()
    assert torch.allclose(_inner(adapters), flat @ flat.T, atol=1e-5)


def test_leaving_one_out_is_what_refitting_without_it_gives() -> None:
    adapters, ridge = _adapters(), 0.3
    flat = torch.stack([torch.cat([(b @ a).flatten() for a, b in one.values()]) for one in adapters]).double()
    rows = torch.randn(5, 7, generator=generator(1, "rows")).double()
    kernel, misses = rows @ rows.T, []
    for out in range(5):
        kept = [at for at in range(5) if at != out]
        system = kernel[kept][:, kept] + ridge * torch.eye(4).double()
        guess = kernel[out, kept] @ torch.linalg.solve(system, flat[kept])
        misses.append(float((guess - flat[out]).square().sum()))
    assert _left_out(kernel, _inner(adapters), ridge) == pytest.approx(sum(misses) / 5, rel=1e-4)
