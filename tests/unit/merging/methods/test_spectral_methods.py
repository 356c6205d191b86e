"""What the methods on spectra promise: batches, order, zeros, untouched inputs, and their options."""

from __future__ import annotations

import pytest
import torch

from umaf.merging.contract import once
from umaf.merging.methods.tsv import measure, outlier_weights, r_tsvm, tsv_m
from umaf.merging.registry import method_of

NAMES = ["tsv_m", "r_tsvm", "iso_c", "iso_cts", "knots", "wudi", "optmerge", "doge", "opcm"]
BATCHED = ["tsv_m", "iso_c", "iso_cts", "wudi", "optmerge", "opcm"]
QUICK = {"doge": {"steps": 5}}


def stack_of(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(name, stack, **options):
    return method_of(name).function(stack, **QUICK.get(name, {}), **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (2, 5, 12), (4, 12, 5), (1, 6, 7), (5, 1, 9), (3, 9, 1), (6, 3, 4)]
)
def test_results_have_the_shape_of_a_delta_and_inputs_stay(name, shape):
    stack = stack_of(*shape)
    before = stack.clone()
    found = run(name, stack)
    assert found.shape == stack.shape[1:] and found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert torch.equal(stack, before)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_give_zero(name):
    assert not run(name, torch.zeros(3, 5, 6)).any()


@pytest.mark.parametrize("name", NAMES)
def test_one_expert_of_zero_among_others_is_no_trouble(name):
    stack = stack_of(3, 5, 6)
    stack[1] = 0
    assert torch.isfinite(run(name, stack)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "opcm"])
def test_the_order_of_experts_does_not_matter(name):
    stack = stack_of(3, 7, 9)
    assert not method_of(name).needs.order_matters
    torch.testing.assert_close(run(name, stack), run(name, stack[[2, 0, 1]]), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("shape", [(3, 2, 6, 9), (2, 2, 2, 9, 6)])
def test_a_batch_is_merged_matrix_by_matrix(name, shape):
    assert method_of(name).needs.batched
    stack = stack_of(*shape)
    stack[:, 0] = stack[:, 0] * 0.5
    found = run(name, stack).reshape(-1, *shape[-2:])
    flat = stack.reshape(shape[0], -1, *shape[-2:])
    for place, one in enumerate(found):
        torch.testing.assert_close(one, run(name, flat[:, place]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["tsv_m", "wudi", "optmerge", "opcm", "r_tsvm"])
def test_one_expert_comes_back(name):
    stack = stack_of(1, 6, 9)
    assert "single" not in method_of(name).needs.breaks
    torch.testing.assert_close(run(name, stack), stack[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "iso_cts", "opcm", "knots"])
def test_scaling_all_deltas_scales_the_result(name):
    stack = stack_of(3, 7, 9)
    torch.testing.assert_close(run(name, 8 * stack), 8 * run(name, stack), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_what_it_needs(name):
    method = method_of(name)
    assert method.needs.matrices and method.needs.base == "required"
    assert method.source and method.summary.endswith(".")
    for option in method.options:
        assert f"{option}:" in method.function.__doc__


def test_r_tsvm_is_marked_experimental():
    assert "experimental" in method_of("r_tsvm").summary


def test_r_tsvm_without_weights_and_at_one_density_is_tsv():
    stack = stack_of(3, 8, 12)
    torch.testing.assert_close(r_tsvm(stack, outliers="none"), tsv_m(stack))


def test_density_is_the_mean_over_tensors():
    chunks = [("a", torch.tensor([[1.0, 0.0]])), ("a", torch.tensor([[0.0, 0.0]])), ("b", torch.ones(1, 2))]
    assert float(measure(lambda: iter(chunks), models=1)["density"]) == pytest.approx(0.625)
    stack = stack_of(2, 8, 8)
    dense = r_tsvm(stack, outliers="none", measured={"density": torch.tensor(0.25)})
    torch.testing.assert_close(dense, tsv_m(stack, keep="all"), atol=1e-4, rtol=1e-4)
    assert float(measure(once(torch.zeros(1, 2, 2)), models=1)["density"]) == 0


def test_outliers_raise_or_lower_a_weight():
    stack = torch.ones(2, 20)
    stack[0, 0], stack[1, 0] = 9, 5
    torch.testing.assert_close(outlier_weights(stack, "more", 3.0), torch.tensor([9 / 7, 5 / 7]))
    torch.testing.assert_close(outlier_weights(stack, "less", 3.0), torch.tensor([5 / 7, 9 / 7]))
    assert outlier_weights(torch.ones(2, 20), "more", 3.0).tolist() == [1.0, 1.0]
    stack[1] = 1
    assert outlier_weights(stack, "more", 3.0).tolist() == [2.0, 0.0]
    assert outlier_weights(stack, "less", 3.0).tolist() == [1.0, 1.0]


def test_a_large_matrix_is_the_same_in_either_precision():
    stack = stack_of(2, 160, 200) * 1e-3
    wanted = tsv_m(stack, whiten="svd")
    assert (tsv_m(stack) - wanted).norm() < 1e-3 * wanted.norm()
    spiked = stack.clone()
    spiked[:, :1, :1] += 5.0
    wanted = tsv_m(spiked, whiten="svd")
    assert (tsv_m(spiked) - wanted).norm() < 1e-3 * wanted.norm()
