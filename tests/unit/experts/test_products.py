"""A matrix laid out anew multiplies as before, and only where that is possible."""

from __future__ import annotations

import pytest
import torch

from umaf.errors import ExpertError
from umaf.experts import attached, decompose, svf_modules
from umaf.experts.products import MOST, laid_out, product
from umaf.models import open_model

ROWS = torch.tensor([[9, 20, 31, 42, 53], [8, 17, 26, 35, 44], [90, 80, 70, 60, 50]])
pytestmark = pytest.mark.skipif(
    laid_out(torch.ones(128, 128)) is None, reason="oneDNN is no part of this build of torch"
)


@pytest.mark.parametrize("shape", [(6, 256), (3, 5, 256), (1, 1, 256)])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_same_product(shape, bias):
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(128, 256, generator=draw), torch.randn(shape, generator=draw)
    more = torch.randn(128, generator=draw) if bias else None
    with torch.no_grad():
        found = product(weight, laid_out(weight), more)(x)
        wanted = torch.nn.functional.linear(
            x.double(), weight.double(), None if more is None else more.double()
        )
    assert found.shape == wanted.shape and torch.allclose(found.double(), wanted, atol=1e-4)


def test_gradients_and_other_types_take_the_plain_way():
    weight = torch.randn(128, 256, generator=torch.Generator().manual_seed(0))
    one, x = product(weight, laid_out(weight)), torch.ones(2, 256, requires_grad=True)
    one(x).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad[0], weight.sum(0), atol=1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert one(torch.ones(2, 256)).dtype == torch.bfloat16
    narrow = product(weight.double(), laid_out(weight))(torch.ones(2, 256, dtype=torch.float64))
    assert narrow.dtype == torch.float64


@pytest.mark.parametrize(
    "weight",
    [
        torch.ones(4, 8),
        torch.ones(1, 1).expand(MOST, 2),
        torch.ones(128, 128, dtype=torch.bfloat16),
        torch.ones(2, 128, 128),
        torch.ones(128, 128, requires_grad=True),
    ],
)
def test_what_gets_no_copy(weight):
    assert laid_out(weight) is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_experts_answer_as_without_copies(pico, family, monkeypatch):
    model = open_model(pico(family))
    names = svf_modules(model)
    draw = torch.Generator().manual_seed(1)
    z = {name: 2 * torch.rand(3, *f.s.shape, generator=draw) for name, f in decompose(model, names).items()}
    more = {"decoder_input_ids": ROWS.flip(1)} if model.kind == "encoder-decoder" else {}

    def logits():
        with torch.inference_mode(), attached(model, decompose(model, names), z, form="whole"):
            return model.net(input_ids=ROWS, **more).logits

    wanted, calls = logits(), []
    monkeypatch.setattr("umaf.experts.products.LEAST", 0)
    fast = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *given: calls.append(0) or fast(*given))
    assert torch.allclose(logits(), wanted, atol=1e-4, rtol=1e-4) and len(calls) == 2 * len(names)
    assert not any("forward" in vars(module) for module in model.net.modules())
    with pytest.raises(ExpertError, match="3 rows met a batch of 2"), torch.inference_mode():
        with attached(model, decompose(model, names), z, form="whole"):
            model.net(input_ids=ROWS[:2], **{key: one[:2] for key, one in more.items()})
    assert not any("forward" in vars(module) for module in model.net.modules())


def test_copies_are_made_once_and_kept_with_the_factors(pico, monkeypatch):
    monkeypatch.setattr("umaf.experts.products.LEAST", 0)
    model = open_model(pico("llama"))
    found = decompose(model, svf_modules(model)[:1])
    one = next(iter(found.values()))
    assert one.laid is one.laid and one.to("cpu", torch.float32) is one
    assert one.to("cpu", torch.bfloat16).laid == (None, None)
