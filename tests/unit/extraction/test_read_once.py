"""A base is read once for all its experts, and again when its weights are others."""

from __future__ import annotations

import torch

from umaf.extraction.read_once import KEPT, read_once
from umaf.models import open_model


def test_weights_and_the_way_of_reading_decide(pico):
    model, reads = open_model(pico("llama")), []

    def read():
        reads.append(1)
        return len(reads)

    how = ("a test", torch.rand(1).item())
    assert read_once(model, how, read) == 1 == read_once(open_model(pico("llama")), how, read)
    assert read_once(model, (*how, "otherwise"), read) == 2
    with torch.no_grad():
        next(model.net.parameters()).add_(1.0)
    assert read_once(model, how, read) == 3
    for number in range(KEPT):
        read_once(model, (*how, number), read)
    assert read_once(model, how, read) == 3 + KEPT + 1
