"""Relative coordinates: what they refuse."""

from __future__ import annotations

import pytest
import torch

from umaf.activations import relative
from umaf.errors import NumericalError, RegistryError


def test_shapes_and_names_are_checked() -> None:
    x = torch.ones(2, 3, 4)
    with pytest.raises(NumericalError, match="of the same model"):
        relative(x, torch.ones(2, 3, 5))
    with pytest.raises(RegistryError, match="centred"):
        relative(x, x, normalisation="centered")
    with pytest.raises(NumericalError, match="NaN"):
        relative(x * float("inf"), x)


def test_what_is_only_rounding_has_no_direction() -> None:
    anchors = torch.randn(1, 5, 8)
    assert not relative(anchors.mean(1, keepdim=True), anchors).any()
    collapsed = torch.full((1, 5, 8), 0.1)
    for name in ("centred", "layer"):
        assert not relative(collapsed, collapsed, normalisation=name).any()
