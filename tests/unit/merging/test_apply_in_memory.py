"""Merging in memory: chunks, whole tensors, matrices, what is measured first, and what is no number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umaf.errors import CheckpointError, ConfigError, NumericalError
from umaf.merging import registry
from umaf.merging.contract import Needs, PerModel, as_column, merge_method
from umaf.merging.methods.widen import widen
from umaf.merging.planning.jobs import Parts
from umaf.merging.running.apply import check_options, merge_states, merge_tensors
from umaf.merging.running.feeds import Aligned, Fallback, Flat, Table
from umaf.merging.running.room import CHUNK, Room
from umaf.merging.running.work import Work, divisible, measured, merge_into

LONG = 2 * CHUNK + 17


def highest(passes, *, models: int):
    return {"high": torch.stack([chunk.amax() for _, chunk in passes()]).amax()}


@merge_method(Needs(base="required", scope="element", measure="model"), source="test", measure=highest)
def over_all(deltas, *, weight: PerModel = 1.0, measured=None):
    return (deltas * as_column(weight, deltas)).sum(0) / measured["high"]


@merge_method(Needs(base="required", scope="element", random=True), source="test")
def noisy(deltas, *, generator: np.random.Generator | None = None):
    return deltas.sum(0) + torch.from_numpy(generator.standard_normal(deltas[0].numel(), dtype=np.float32))


@merge_method(Needs(base="optional", matrices=True, otherwise="sum"), source="test")
def transposes(deltas):
    assert deltas.ndim == 3
    return deltas.flip(-1).mean(0)


@merge_method(Needs(base="none"), source="test")
def explodes(stack):
    return stack.mean(0) / 0


@merge_method(Needs(base="none"), source="test")
def forgets(stack):
    return stack.mean()


@pytest.fixture(autouse=True)
def known(monkeypatch):
    for one in (over_all, noisy, transposes, explodes, forgets):
        monkeypatch.setitem(registry.METHODS._sources, one.__name__, f"{__name__}:{one.__name__}")
    monkeypatch.setattr(
        registry.METHODS, "get", lambda name, ask=registry.METHODS.get: globals().get(name) or ask(name)
    )


def rows(models=3, entries=LONG, dtype=torch.bfloat16):
    return list(torch.randn(models, entries, generator=torch.Generator().manual_seed(1)).to(dtype))


def test_means_are_rounded_once():
    stack = rows()
    found = merge_tensors("mean", stack)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.float(), torch.stack(stack).double().mean(0).bfloat16().float(), rtol=2**-7, atol=1e-6
    )


def test_a_sum_goes_on_top_of_the_base():
    *stack, base = rows(4, dtype=torch.float32)
    found = merge_tensors("sum", stack, base=base, weight=[0.5, -1, 2], scale=0.25)
    weights = torch.tensor([0.5, -1, 2]).double()[:, None]
    expected = base.double() + 0.25 * (weights * (torch.stack(stack).double() - base)).sum(0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_base_alone_and_copies():
    one, two = rows(2)
    assert torch.equal(merge_tensors("base", [one], base=two), two)
    assert torch.equal(merge_tensors("copy", [one, one.clone()]), one)
    with pytest.raises(CheckpointError, match="model 1: w and model 2: w"):
        merge_tensors("copy", [one, two], name="w")


def test_whole_numbers_are_copied_not_rounded():
    large = torch.tensor([2**40 + 1])
    assert merge_states("mean", [{"n": large}, {"n": large}])["n"].equal(large)
    with pytest.raises(CheckpointError, match="differ"):
        merge_states("mean", [{"n": large}, {"n": large + 1}])


def test_what_is_measured_covers_all_tensors():
    models = [{"a": torch.tensor([1.0]), "b": torch.tensor([4.0])}]
    base = {"a": torch.zeros(1), "b": torch.zeros(1)}
    assert merge_states("over_all", models, base=base) == {
        "a": torch.tensor([0.25]),
        "b": torch.tensor([1.0]),
    }


def test_pieces_of_a_tensor_give_the_bits_of_the_whole():
    stack = rows(dtype=torch.float32)
    work = Work("w", (LONG,), "noisy", tuple(map(Flat, stack[:2])), Flat(stack[2]), seed=3)
    whole, pieces = torch.empty(LONG), torch.empty(LONG)
    merge_into(work, whole)
    for first in (2 * CHUNK, 0, CHUNK):
        merge_into(work, pieces, first=first, last=min(first + CHUNK, LONG))
    assert divisible(work) and torch.equal(whole, pieces)


def test_draws_depend_on_seed_and_name_alone():
    stack = rows(dtype=torch.float32)
    one = merge_tensors("noisy", stack[:2], base=stack[2], seed=1, name="w")
    assert torch.equal(one, merge_tensors("noisy", stack[:2], base=stack[2], seed=1, name="w"))
    assert not torch.equal(one, merge_tensors("noisy", stack[:2], base=stack[2], seed=2, name="w"))
    assert not torch.equal(one, merge_tensors("noisy", stack[:2], base=stack[2], seed=1, name="v"))


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_shown_one_by_one_and_stored_as_they_were(transposed):
    experts, sizes, width = 3, (4, 2), 5
    stack = torch.randn(2, experts, 6, width)
    stored = stack.mT.contiguous() if transposed else stack
    parts = Parts(matrix=True, transposed=transposed, sizes=sizes, experts=experts)
    found = merge_tensors("transposes", list(stored), parts=parts)
    expected = stack.flip(-1).mean(0)
    torch.testing.assert_close(found.mT if transposed else found, expected)


def test_what_is_no_matrix_gets_the_other_rule():
    found = merge_tensors("transposes", [torch.ones(3), torch.ones(3)], base=torch.zeros(3))
    assert found.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, CHUNK + 5, LONG - 1])
@pytest.mark.parametrize("method", ["mean", "ties", "tsv_m", "dare_linear"])
def test_a_number_that_is_none_is_found_wherever_it_is(bad, place, method):
    *stack, base = rows(4)
    stack[1][place] = bad
    with pytest.raises(NumericalError, match=r"model 2: w holds (NaN|infinity) \(entry"):
        merge_tensors(method, stack, base=base, name="w")


def test_a_base_with_nan_is_named():
    *stack, base = rows(4)
    base[3] = torch.nan
    with pytest.raises(NumericalError, match="the base: w holds NaN"):
        merge_tensors("sum", stack, base=base, name="w")


def test_large_numbers_are_no_infinity():
    huge = torch.full((100,), 3e38)
    assert torch.equal(merge_tensors("copy", [huge]), huge)
    assert torch.isfinite(merge_tensors("mean", [huge, huge])).all()


def test_a_merge_that_makes_infinity_stops():
    with pytest.raises(NumericalError, match="w: explodes made NaN or infinity"):
        merge_tensors("explodes", [torch.ones(3)], name="w")
    with pytest.raises(NumericalError, match="beyond the range of float16"):
        merge_tensors("mean", [torch.full((3,), 1e5)], dtype=torch.float16)


def test_a_method_that_gives_another_shape_is_told():
    with pytest.raises(ConfigError, match=r"gave \[1\] for"):
        merge_tensors("forgets", [torch.ones(3)])


def test_options_are_checked():
    with pytest.raises(ConfigError, match='Did you mean "density"'):
        check_options("ties", {"densty": 1}, models=2)
    with pytest.raises(ConfigError, match="2 numbers for 3 models"):
        check_options("mean", {"weight": [1, 2]}, models=3)
    with pytest.raises(ConfigError, match="must lie in"):
        merge_tensors("ties", [torch.ones(2)], base=torch.zeros(2), density=1.7)


def test_a_missing_base_and_other_shapes_are_told():
    with pytest.raises(ConfigError, match="name their base"):
        merge_tensors("ties", [torch.ones(2)])
    with pytest.raises(CheckpointError, match=r"\[2\] in model 1 and \[3\] in model 2"):
        merge_tensors("mean", [torch.ones(2), torch.ones(3)])
    with pytest.raises(CheckpointError, match="b is in one of model 1 and model 2"):
        merge_states("mean", [{"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)}])


@pytest.mark.parametrize("method", ["mean", "sce", "della", "widen", "breadcrumbs", "model_stock", "tsv_m"])
@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0)])
def test_of_nothing_nothing_is_made(method, shape):
    made = merge_tensors(method, [torch.zeros(shape)] * 2, base=torch.zeros(shape))
    assert made.shape == shape
    models = [{"model.layers.0.empty": torch.zeros(shape), "w": torch.randn(4, 4)} for _ in range(3)]
    found = merge_states(method, models[1:], base=models[0])
    assert found["model.layers.0.empty"].shape == shape and found["w"].isfinite().all()


def test_inputs_stay_as_they_are():
    *stack, base = rows(4, dtype=torch.float32)
    before = [one.clone() for one in (*stack, base)]
    for method in ("mean", "sum", "ties", "dare_ties", "over_all"):
        merge_tensors(method, stack, base=base)
    assert all(map(torch.equal, before, (*stack, base)))


def test_tables_are_aligned_by_token():
    table = Table(torch.tensor([1.0, 1, 2, 2]), 2, torch.tensor([1, -1, 0]))
    other = Table(torch.tensor([5.0, 6, 7, 8, 9, 9]), 2, torch.tensor([0, 1, -1]))
    base = Table(torch.tensor([3.0, 4]), 2, torch.tensor([-1, -1, 0]))
    fallback = Fallback([table, other], base)
    out = torch.empty(6)
    Aligned(table, 3, fallback).fill(0, 6, out)
    assert out.tolist() == [2, 2, 7, 8, 1, 1]
    Aligned(other, 3, fallback).fill(0, 6, out)
    assert out.tolist() == [5, 6, 7, 8, 3, 4]
    part = torch.empty(3)
    Aligned(other, 3, fallback).fill(3, 6, part)
    assert part.tolist() == [8, 3, 4]


def test_rows_that_are_given_go_before_the_mean():
    table = Table(torch.tensor([1.0, 2.0]), 1, torch.tensor([0, -1, -1]))
    fallback = Fallback([table], given={1: (table, 1), 2: None})
    out = torch.empty(3)
    Aligned(table, 3, fallback).fill(0, 3, out)
    assert out.tolist() == [1, 2, 0]
    Aligned(table, 3, Fallback([table])).fill(0, 3, out)
    assert out.tolist() == [1, 1.5, 1.5]


def test_measuring_goes_over_a_model_chunk_by_chunk():
    works = [
        Work(name, (LONG,), "over_all", (Flat(torch.full((LONG,), high)),), Flat(torch.zeros(LONG)))
        for name, high in (("a", 2.0), ("b", 3.0))
    ]
    assert float(measured(works, Room())["high"]) == 3.0


def test_vectors_of_tables_and_of_what_is_stored_the_other_way_are_rows():
    names = ("embed_tokens.weight", "h.0.attn.c_attn.weight", "h.0.mlp.up_proj.weight")
    states = [{name: torch.randn(6, 18) for name in names} for _ in range(3)]
    found = merge_states("widen", states[1:], base=states[0], config={"model_type": "gpt2"})
    asked = merge_states(
        "widen", states[1:], base=states[0], config={"model_type": "gpt2"}, vectors="columns"
    )
    for name, kind in zip(names, ("rows", "rows", "columns"), strict=True):
        base = states[0][name]
        deltas = torch.stack([one[name] - base for one in states[1:]])
        assert torch.allclose(found[name], base + widen(deltas, base=base, vectors=kind), atol=1e-6)
        assert torch.allclose(asked[name], base + widen(deltas, base=base), atol=1e-6)
