"""Before an adapter is refined, the directions that it leaves unused are opened; it says the same as before."""

from __future__ import annotations

import torch

from umaf.generation.train import DEAD, widened
from umaf.seeds import generator


def _factors(rank: int, *, stacked: tuple[int, ...] = ()) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    draw = generator(rank, "factors")
    return {
        "m": (torch.randn(*stacked, rank, 6, generator=draw), torch.randn(*stacked, 5, rank, generator=draw))
    }


def test_the_update_stays_and_every_direction_can_learn() -> None:
    for stacked in ((), (3,)):
        few = _factors(2, stacked=stacked)
        a, b = few["m"]
        a[..., 1, :] *= DEAD / 10
        b[..., :, 1] *= DEAD / 10
        [(down, up)] = widened(few, 4).values()
        assert down.shape == (*stacked, 4, 6) and up.shape == (*stacked, 5, 4)
        assert torch.allclose(up @ down, b @ a, atol=1e-6)
        assert float(down.norm(dim=-1).min()) > 0.3  # of a fresh A, uniform within 1 / sqrt(6)
        assert int((up.norm(dim=-2) == 0).sum(-1).min()) == 3


def test_seeds_decide_and_whole_adapters_stay_as_they_are() -> None:
    few, whole = _factors(2), _factors(4)
    assert torch.equal(widened(few, 4, 1)["m"][0], widened(few, 4, 1)["m"][0])
    assert not torch.equal(widened(few, 4, 1)["m"][0], widened(few, 4, 2)["m"][0])
    for was, now in zip(whole["m"], widened(whole, 4)["m"], strict=True):
        assert torch.equal(was, now)
