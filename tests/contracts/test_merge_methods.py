"""What every registered merge method promises, by the checks of `umaf.testing`, where hypothesis looks."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from umaf.merging.registry import METHODS, method_of
from umaf.merging.running.apply import merge_tensors
from umaf.seeds import generator
from umaf.testing import MERGE_PROMISES, check_promise
from umaf.testing.stacks import counts_of, required

METHOD_NAMES = METHODS.names()
QUICK = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**20)
SIDES = st.integers(1, 9)


@pytest.mark.parametrize("promise", MERGE_PROMISES)
@pytest.mark.parametrize("name", METHOD_NAMES)
@given(data=st.data())
@QUICK
def test_promises(name: str, promise: str, data: st.DataObject) -> None:
    method = method_of(name)
    matrices = method.needs.matrices or promise in {"rotated", "batched"}
    shapes = st.tuples(SIDES, SIDES) if matrices else st.lists(st.integers(0, 9), max_size=4).map(tuple)
    check_promise(
        method,
        promise,
        shape=data.draw(shapes, "shape"),
        models=data.draw(st.sampled_from(counts_of(method)), "models"),
        seed=data.draw(SEEDS, "seed"),
        drawn=data.draw(st.booleans(), "drawn options"),
    )


def merged(name: str, tensors: list[torch.Tensor], base: torch.Tensor, **more: Any) -> torch.Tensor:
    """Merge as the engine does, with a base where the method needs one."""
    method = method_of(name)
    based = base if method.needs.base != "none" else None
    return merge_tensors(name, tensors, base=based, name="layers.0.w", **required(method), **more)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_any_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    draw = generator(3, name)
    count = counts_of(method_of(name))[-1]
    tensors = [torch.randn(6, 5, generator=draw).to(dtype) for _ in range(count)]
    kept = [tensor.clone() for tensor in tensors]
    found = merged(name, tensors, torch.randn(6, 5, generator=draw).to(dtype))
    assert found.dtype == dtype and found.shape == (6, 5) and torch.isfinite(found).all()
    assert all(torch.equal(tensor, one) for tensor, one in zip(tensors, kept, strict=True))


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_models_that_are_their_base_give_the_base(name: str) -> None:
    base = torch.randn(6, 5, generator=generator(4, name))
    method = method_of(name)
    if "zero" in method.needs.breaks or method.needs.base == "none" or name == "somf":
        return
    assert torch.equal(merged(name, [base.clone()] * counts_of(method)[-1], base), base)


@pytest.mark.parametrize("name", [one for one in METHOD_NAMES if method_of(one).needs.random])
def test_draws_depend_on_seed_and_tensor_alone(name: str) -> None:
    draw = generator(5, name)
    tensors = [torch.randn(40, 50, generator=draw) for _ in range(3)]
    base = torch.zeros(40, 50)
    options = {"rule": "dare_ties"} if name == "knots" else {}
    first = merged(name, tensors, base, seed=1, **options)
    np.random.seed(0)
    torch.manual_seed(1)
    assert torch.equal(merged(name, tensors, base, seed=1, **options), first)
    assert not torch.equal(merged(name, tensors, base, seed=2, **options), first)
    other = merge_tensors(name, tensors, base=base, name="layers.1.w", seed=1, **options)
    assert not torch.equal(other, first)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_method_says_what_it_is(name: str) -> None:
    method = method_of(name)
    text = method.function.__doc__ or ""
    assert method.name == name
    assert method.summary.endswith(".") and method.source
    assert "Args:" in text and "Example:" in text
    assert all(f"\n        {option}: " in text for option in method.options), "every option is explained"
    assert set(method.needs.breaks) <= set(MERGE_PROMISES)
