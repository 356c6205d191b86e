"""Prototypes: the nearest centre, and none for what is far from all of them."""

from __future__ import annotations

import torch

from umaf.dispatch.prototypes import FAR, fit_prototypes, shares_of

CENTRES = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 4.0]])


def around(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return [centre + 0.5 * torch.randn(count, 3, generator=draw) for centre in CENTRES]


def test_requests_go_to_their_own_kind():
    shares = shares_of(fit_prototypes(around(12, 0)), torch.cat(around(50, 1)))
    right = shares.argmax(1) == torch.arange(3).repeat_interleave(50)
    assert shares.shape == (150, 4) and torch.allclose(shares.sum(1), torch.ones(150), atol=1e-6)
    assert right.float().mean() > 0.85


def test_what_is_far_from_all_is_none_and_about_as_many_of_the_known_as_promised():
    fitted = fit_prototypes(around(40, 0))
    assert (shares_of(fitted, torch.tensor([[40.0, 0, 0], [0, -40.0, 0]])).argmax(1) == 3).all()
    lost = (shares_of(fitted, torch.cat(around(400, 2))).argmax(1) == 3).float().mean()
    assert abs(float(lost) - (1 - FAR)) < 0.05


def test_scores_that_move_together_count_once():
    """A direction in which all kinds vary widely says little, whatever its size."""
    draw = torch.Generator().manual_seed(0)
    noise = 20 * torch.randn(2, 200, 1, generator=draw)
    parts = [torch.cat([noise[k], k + 0.1 * torch.randn(200, 1, generator=draw)], 1) for k in range(2)]
    fitted = fit_prototypes([part[:20] for part in parts])
    shares = shares_of(fitted, torch.cat([part[20:] for part in parts]))
    plain = torch.cat([part[20:] for part in parts])[:, None] - torch.stack(
        [part[:20].mean(0) for part in parts]
    )
    truth = torch.arange(2).repeat_interleave(180)
    by_length = (plain.square().sum(-1).argmin(1) == truth).float().mean()
    assert (shares[:, :2].argmax(1) == truth).float().mean() > by_length


def test_requests_that_are_all_alike():
    fitted = fit_prototypes([torch.zeros(3, 2), torch.ones(3, 2)])
    assert shares_of(fitted, torch.tensor([[0.0, 0.0], [1.0, 1.0]])).argmax(1).tolist() == [0, 1]
