"""A target that is the source in rotated coordinates: residual-shift regression must give the update back exactly."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
import torch

from umaf.adapters import attach, lora_modules, weight_of
from umaf.generation.residual import residual_shift
from umaf.models import Model, bare, open_model
from umaf.seeds import generator

WORDS = (
    "the film was good and music bad kind doctor wrote a letter about small town rain fell on hills joy poor"
).split()
RANK = 3


def _texts(count: int) -> list[str]:
    draw = random.Random(3)
    return [" ".join(draw.choices(WORDS, k=draw.randint(6, 16))) for _ in range(count)]


def _random(*shape: int, name: str) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, "rotated", name), dtype=torch.float64)


def _rotated(model: Model, turn: torch.Tensor) -> Model:
    """The same function with its residual stream h written as h Q; the RMSNorms' weights are ones."""
    net = copy.deepcopy(bare(model.net))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" in name:
                assert torch.equal(parameter, torch.ones_like(parameter))
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.copy_(turn.T @ parameter)  # writes to the stream
            else:
                parameter.copy_(parameter @ turn)  # reads it, or is the stream's first value
    return replace(model, net=net)


def _logits(model: Model, texts: list[str]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model.net(**model.tokenizer(text, return_tensors="pt")).logits[0] for text in texts]


@pytest.fixture(scope="module")
def models(pico):
    """Base, expert, target, and the rotation between base and target."""
    base = open_model(pico("llama"), dtype="float64")
    assert not base.config.tie_word_embeddings
    turn, _ = torch.linalg.qr(_random(base.width, base.width, name="turn"))
    expert = replace(base, net=copy.deepcopy(base.net))
    writers = [name for name in lora_modules(base) if name.endswith("down_proj")]
    with torch.no_grad():
        for name in writers:
            weight = weight_of(expert, name)
            out, inside = weight.shape
            delta = _random(out, RANK, name=f"b {name}") @ _random(RANK, inside, name=f"a {name}")
            weight.add_(0.3 * weight.norm() / delta.norm() * delta)
    return base, expert, _rotated(base, turn), turn


def test_the_target_is_the_same_function(models) -> None:
    base, expert, target, _ = models
    texts = _texts(4)
    for ours, theirs, other in zip(*(_logits(model, texts) for model in (base, target, expert)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)  # LLaMA norms in float32
        assert (ours - other).abs().max() > 0.1


def test_the_rotated_update_comes_back(models) -> None:
    base, expert, target, turn = models
    factors = residual_shift(expert, base, target, _texts(120), rank=RANK, ridge=1e-9)
    assert list(factors) == [name for name in lora_modules(base) if name.endswith("down_proj")]
    for name, (a, b) in factors.items():
        expected = turn.T @ (weight_of(expert, name) - weight_of(base, name))
        assert a.shape[0] == RANK
        assert (b.double() @ a.double() - expected).norm() / expected.norm() < 1e-3
    new = _texts(130)[120:]
    adapted = _logits(attach(target, factors), new)
    for ours, wanted, bare_target in zip(adapted, _logits(expert, new), _logits(target, new), strict=True):
        assert (ours - wanted).norm() / (bare_target - wanted).norm() < 1e-3
        assert torch.allclose(ours, wanted, atol=1e-3)


def test_half_the_rank_keeps_less_and_none_of_it_is_noise(models) -> None:
    base, expert, target, _ = models
    texts = _texts(60)
    full, less = (residual_shift(expert, base, target, texts, rank=rank, ridge=1e-9) for rank in (RANK, 1))
    for wanted, close, far, bare_target in zip(
        *(
            _logits(model, texts[:8])
            for model in (expert, attach(target, full), attach(target, less), target)
        ),
        strict=True,
    ):
        assert (close - wanted).norm() < (far - wanted).norm() < 1.5 * (bare_target - wanted).norm()


def test_a_source_equal_to_its_base_gives_nothing(models) -> None:
    base, _, target, _ = models
    factors = residual_shift(base, base, target, _texts(20), rank=RANK)
    assert factors and all(not (b @ a).any() for a, b in factors.values())
