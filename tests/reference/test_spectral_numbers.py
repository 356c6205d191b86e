"""The spectral methods against fixed numbers of FusionBench 0.2.33 and of the authors' programs.

`make_spectral_numbers.py` made them, in float64 where the program allows. OptMerge and SWUDI were run in float32.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.reference.test_doge_knots import doge_loss
from umaf.merging.methods.doge import doge
from umaf.merging.methods.iso import iso_c, iso_cts
from umaf.merging.methods.opcm import opcm
from umaf.merging.methods.optmerge import optmerge
from umaf.merging.methods.tsv import tsv_m
from umaf.merging.methods.wudi import wudi

NUMBERS = load_file(Path(__file__).parent / "spectral_numbers.safetensors")
OURS = {
    "tsv_m": (tsv_m, {}),
    "iso_c": (iso_c, {}),
    "iso_cts": (iso_cts, {}),
    "iso_cts.half": (iso_cts, {"common": 0.5}),
    "wudi.adam": (wudi, {"solver": "adam", "steps": 50}),
    "wudi.exp": (wudi, {}),
    "wudi.swudi": (wudi, {"time": 1300.0, "keep": 0.65}),
    "wudi.aswudi": (wudi, {"filter": "participation"}),
    "optmerge.adam": (optmerge, {"solver": "adam", "steps": 50}),
    "opcm": (opcm, {}),
}


@pytest.mark.parametrize("shape", ["tall", "wide", "square"])
@pytest.mark.parametrize("name", sorted(OURS))
def test_numbers_are_those_of_the_programs(name, shape):
    method, options = OURS[name]
    found, wanted = method(NUMBERS[shape], **options), NUMBERS[f"{shape}.{name}"].float()
    assert (found - wanted).norm() < 2e-4 * wanted.norm()


@pytest.mark.parametrize("shape", ["tall", "wide", "square"])
def test_the_loss_of_doge_is_the_program_s(shape):
    stack = NUMBERS[shape].double()
    loss = doge_loss(stack, 0.01 * stack[0], 0.07 / torch.linalg.matrix_norm(stack))
    torch.testing.assert_close(loss, NUMBERS[f"{shape}.doge.loss"][0])
    assert torch.isfinite(doge(stack.float(), steps=3)).all()
