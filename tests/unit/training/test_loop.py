"""The one training loop: the same bits after an interruption, the best look kept, and a stop where nothing improves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from umaf.errors import ConfigError, NumericalError
from umaf.seeds import generator
from umaf.training.devices import Devices
from umaf.training.loop import train
from umaf.training.losses import base_covariance, info_nce, multi_similarity
from umaf.training.settings import LoopSettings

PLAN = LoopSettings(steps=30, rate=0.05, look_every=5, keep_every=7, patience=0)
GOAL = torch.linspace(-1, 1, 12).reshape(4, 3)


class Interrupted(Exception):
    pass


def _leaves() -> dict[str, Tensor]:
    return {"w": torch.zeros(4, 3, requires_grad=True), "b": torch.zeros(3, requires_grad=True)}


def _run(leaves, folder=None, *, plan=PLAN, until=None, **more):
    def loss(step: int) -> Tensor:
        if step == until:
            raise Interrupted
        noise = torch.randn(4, 3, generator=generator(plan.seed, step))
        return (leaves["w"] + leaves["b"] - GOAL - 0.1 * noise).square().mean()

    def look() -> dict[str, float]:
        return {"score": -float((leaves["w"] + leaves["b"] - GOAL).detach().norm())}

    return train(leaves, loss, look, settings=plan, folder=folder, about={"of": "a test"}, **more)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, parts = _leaves(), _leaves()
    done = _run(whole, tmp_path / "whole", rates={"w": 2.0})
    with pytest.raises(Interrupted):
        _run(parts, tmp_path / "parts", until=17, rates={"w": 2.0})
    parts = _leaves()
    again = _run(parts, tmp_path / "parts", rates={"w": 2.0})
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert again.curve == done.curve
    # The file's metadata has no fixed order, so what it holds is compared.
    states = [load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    _run(_leaves(), tmp_path)
    with pytest.raises(ConfigError, match="of another rate"):
        _run(_leaves(), tmp_path, plan=PLAN.model_copy(update={"rate": 0.1}))
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        _run(_leaves(), tmp_path)


def test_the_best_look_is_kept_and_patience_ends_it() -> None:
    x = torch.tensor([0.0], requires_grad=True)
    seen: list[float] = []

    def look() -> dict[str, float]:
        seen.append(float(x.detach()))
        return {"score": -abs(float(x.detach()) - 0.2)}

    plan = LoopSettings(steps=200, rate=0.1, look_every=1, patience=3)
    done = train({"x": x}, lambda step: -x.sum(), look, settings=plan)
    best = min(seen, key=lambda value: abs(value - 0.2))
    assert done.stopped and float(x.detach()) == pytest.approx(best) and len(seen) < 20


def test_a_loss_that_is_not_a_number_stops_it() -> None:
    x = torch.tensor([0.0], requires_grad=True)
    with pytest.raises(NumericalError, match="at step 0"):
        train({"x": x}, lambda step: x.sum() / 0 * 0, lambda: {"score": 0.0}, settings=PLAN)


def test_processes_never_draw_the_same() -> None:
    drawn = {Devices(rank, 3).draw(step) for rank in range(3) for step in range(4)}
    assert drawn == set(range(12)) and [Devices(rank, 2).first for rank in (0, 1)] == [True, False]


def test_losses_fall_where_capabilities_gather() -> None:
    draw = generator(0, "losses")
    groups = torch.arange(4).repeat_interleave(3)
    middles = torch.nn.functional.normalize(torch.randn(4, 16, generator=draw), dim=1)
    rows = torch.nn.functional.normalize(middles[groups] + 0.1 * torch.randn(12, 16, generator=draw), dim=1)
    mixed = rows[torch.randperm(12, generator=draw)]
    for loss in (info_nce, multi_similarity):
        assert float(loss(rows, groups)) < 0.5 * float(loss(mixed, groups))
    assert float(base_covariance(rows, groups)) > 5 * float(base_covariance(rows, torch.arange(12) % 3))


def test_multi_similarity_is_the_published_formula() -> None:
    """Row by row in plain Python, float64, from the paper."""
    draw = generator(1, "losses")
    rows = torch.nn.functional.normalize(torch.randn(8, 5, generator=draw, dtype=torch.float64), dim=1)
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    total = 0.0
    for i in range(8):
        cos = [float(rows[i] @ rows[j]) for j in range(8)]
        near = [cos[j] for j in range(8) if groups[j] == groups[i] and cos[j] < 1 - 1e-5]
        far = [cos[j] for j in range(8) if groups[j] != groups[i]]
        hard_far = [c for c in far if c + 0.1 > min(near)]
        hard_near = [c for c in near if c - 0.1 < max(far)]
        if hard_far and hard_near:
            pull = sum(2.718281828459045 ** (-2 * (c - 0.5)) for c in hard_near)
            push = sum(2.718281828459045 ** (40 * (c - 0.5)) for c in hard_far)
            total += float(torch.tensor(1 + pull).double().log()) / 2
            total += float(torch.tensor(1 + push).double().log()) / 40
    assert float(multi_similarity(rows, groups)) == pytest.approx(total / 8, rel=1e-5)
