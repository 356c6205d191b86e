"""Plain text before a target, for every kind of head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umaf.adapters import cores, lora_modules, weight_of
from umaf.generation.newton import as_cores
from umaf.models import Model, open_model
from umaf.training.plain import LENGTH, Plain

TEXTS = (
    "the film was good",
    "rain fell on the hills of a small town",
    "a kind doctor wrote a letter about music",
)


@pytest.fixture(params=["bert", "gpt2", "llama", "t5", "mixtral"])
def model(request, pico) -> Model:
    return open_model(pico(request.param))


def _adapter(model: Model) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    name = lora_modules(model)[-1]
    out, given = weight_of(model, name).shape
    draw = torch.Generator().manual_seed(0)
    b = torch.randn(out, 2, generator=draw).requires_grad_()
    return {name: (torch.randn(2, given, generator=draw), b)}


def test_rows_are_full_and_drawn_by_their_seed(model) -> None:
    plain = Plain(model, TEXTS)
    first, again, other = (plain.rows(np.random.default_rng(seed), 3) for seed in (0, 0, 1))
    assert first.shape == (3, LENGTH) and torch.equal(first, again) and not torch.equal(first, other)
    if model.head == "masked":
        assert 0 < int((first == model.tokenizer.mask_token_id).sum()) < first.numel() / 2


def test_nothing_is_lost_without_a_change_and_gradients_flow_with_one(model) -> None:
    plain, factors = Plain(model, TEXTS), _adapter(model)
    rows = plain.rows(np.random.default_rng(0), 2)
    with torch.no_grad():
        before = plain.said(rows)
        assert float(plain.lost(before, plain.said(rows))) == pytest.approx(0.0, abs=1e-5)
    with cores(model, *as_cores(factors)):
        lost = plain.lost(before, plain.said(rows))
    [(_, b)] = factors.values()
    lost.backward()
    assert float(lost.detach()) > 0 and b.grad is not None and float(b.grad.abs().max()) > 0


def test_the_loss_is_the_divergence_from_what_was_said() -> None:
    before, after = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.9, 0.1]]]).log()
    wanted = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    model = Model(torch.nn.Identity(), None, "none", None, "lm")  # type: ignore[arg-type]
    assert float(Plain(model, TEXTS).lost(before, after)) == pytest.approx(wanted, rel=1e-6)
