"""Capture: any architecture, right averages, hooks that leave, clear refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import ARCHITECTURES
from umaf.activations import capture, depth_layers, token_ids
from umaf.errors import ConfigError, NumericalError, ProbeError
from umaf.models import Model, bare, layer_list, open_model

TEXTS = ["the film was good", "rain", "a kind doctor wrote a letter about the small town", "yes or no ?"]
Pico = Callable[[str], Path]


def _hooks(model: Model) -> int:
    return sum(len(module._forward_hooks) for module in bare(model.net).modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_read_and_left_as_it_was(architecture: str, pico: Pico) -> None:
    model = open_model(pico(architecture))
    found = capture(model, TEXTS)
    assert found.shape == (4, 4, model.width) and found.dtype == torch.float32
    assert torch.isfinite(found).all() and not torch.allclose(found[1], found[3])
    assert _hooks(model) == 0
    alone = torch.cat([capture(model, [text]) for text in TEXTS], dim=1)
    assert torch.allclose(found, alone, atol=1e-4), "what else is in the batch must not matter"


def test_the_vector_is_the_mean_over_the_texts_own_tokens(pico: Pico) -> None:
    model = open_model(pico("bert"))
    ids = torch.tensor(token_ids(model, TEXTS[:1]))
    with torch.no_grad():
        states = model.net.base_model(ids, output_hidden_states=True).hidden_states
    assert torch.allclose(capture(model, TEXTS, depths=(0.5,))[0, 0], states[1][0].mean(0), atol=1e-5)


def test_hooks_leave_when_the_pass_fails(pico: Pico) -> None:
    model = open_model(pico("gpt2"))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = layer_list(model)[1].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        capture(model, TEXTS)
    handle.remove()
    assert _hooks(model) == 0


def test_nan_names_the_layer_and_the_number_of_texts(pico: Pico) -> None:
    model = open_model(pico("llama"))
    with torch.no_grad():
        next(layer_list(model)[1].parameters()).fill_(float("nan"))
    with pytest.raises(NumericalError, match=r"layer 1 of .* on 4 of 4 texts"):
        capture(model, TEXTS)


def test_texts_longer_than_the_window_are_cut_only_when_asked(
    pico: Pico, caplog: pytest.LogCaptureFixture
) -> None:
    model = open_model(pico("bert"))
    long = ["rain " * 200, *TEXTS, "hills " * 300]
    with pytest.raises(ProbeError, match=r"reads 128 tokens at once, and 2 of .* number 1;"):
        capture(model, long)
    with caplog.at_level(logging.WARNING):
        assert capture(model, long, truncate=True).shape[1] == 6
    assert "2 of 6 texts were cut to 128 tokens" in caplog.text
    assert len(token_ids(model, long, truncate=True)[0]) == 128
    assert len(token_ids(open_model(pico("t5")), long)[0]) > 128, "relative positions know no window"


def test_depths_are_shares_of_the_stack(pico: Pico) -> None:
    assert depth_layers(32, (0.25, 0.5, 1.0)) == [7, 15, 31] and depth_layers(30, (0.1,)) == [2]
    assert depth_layers(1, (0.01, 1)) == [0, 0]
    model = open_model(pico("gpt2"))
    for depths in ((), (0.0,), (1.5,)):
        with pytest.raises(ConfigError, match="shares"):
            capture(model, TEXTS, depths=depths)
    with pytest.raises(ConfigError, match="batch_size"):
        capture(model, TEXTS, batch_size=0)
    with pytest.raises(ProbeError, match="none"):
        capture(model, [])
