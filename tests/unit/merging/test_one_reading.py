"""What one pass over the models gives to the next: the same bits or numbers where there is no room for it."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest
import torch

from umaf.merging.methods import sce
from umaf.merging.running import work
from umaf.merging.running.feeds import Flat
from umaf.merging.running.room import CHUNK, Room
from umaf.merging.running.work import Work, measured, merge_into

SIZE = 5 * CHUNK + 100  # more than what is ranked in one pass
EXPERTS = 3


class Counted(Flat):
    """A tensor that counts how often an entry of it is read."""

    read: ClassVar[Counter] = Counter()

    def fill(self, start, stop, out):
        self.read[self.where] += stop - start
        super().fill(start, stop, out)


def stack(seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(SIZE, generator=draw)
    deltas = torch.randn(EXPERTS, SIZE, generator=draw) * torch.tensor([[0.1], [0.2], [0.4]])
    return torch.cat([base[None], base + deltas]).bfloat16()


def work_on(models: torch.Tensor, method: str, **options) -> Work:
    Counted.read = Counter()
    base, *rows = (Counted(one, str(number)) for number, one in enumerate(models))
    return Work("w", (SIZE,), method, tuple(rows), base, options)


def merged(models: torch.Tensor, method: str) -> torch.Tensor:
    out = torch.empty(SIZE, dtype=torch.bfloat16)
    merge_into(work_on(models, method), out)
    return out


def test_where_the_sum_of_a_tensor_fits_experts_are_read_once(monkeypatch):
    models = stack()
    kept = merged(models, "model_stock")
    assert Counted.read == {"0": 2 * SIZE, **{str(number + 1): SIZE for number in range(EXPERTS)}}
    monkeypatch.setattr(work, "KEPT", SIZE - 1)
    anew = merged(models, "model_stock")
    assert Counted.read == {str(number): 2 * SIZE for number in range(EXPERTS + 1)}
    assert torch.equal(kept, anew)


def test_memory_for_a_sum_serves_tensors_of_any_size():
    room = Room()
    assert [room.sums(entries).numel() for entries in (7, 3, 12)] == [7, 3, 12]
    first = torch.empty(SIZE, dtype=torch.bfloat16)
    models = stack()
    merge_into(work_on(stack(1), "model_stock"), first, room=room)
    merge_into(work_on(models, "model_stock"), first, room=room)
    assert torch.equal(first, merged(models, "model_stock"))


def selected_share(models: torch.Tensor, topk: float) -> torch.Tensor:
    """The share of each model, in float64, from what sce selects."""
    deltas = (models[1:].float() - models[0].float()).double()
    spread = deltas.var(0, correction=0)
    least = spread.sort(descending=True).values[int(int((spread > 0).sum()) * topk) - 1]
    sums = (deltas.square() * (spread >= least * (1 - 1e-6))).sum(1)
    return sums / sums.sum()


@pytest.mark.parametrize("topk", [0.1, 0.9])
def test_what_sce_selects_is_squared_in_the_pass_that_selects(topk, monkeypatch):
    def anew(*_):
        raise AssertionError("the data were gone through once more")

    models = stack()
    one = work_on(models, "sce", select_topk=topk)
    with monkeypatch.context() as patched:
        patched.setattr(sce, "squares_of", anew)
        found = measured([one], Room())
    assert Counted.read["1"] < 1.5 * SIZE
    monkeypatch.setattr(sce, "NEAR", 0)
    again = measured([one], Room())
    assert found is not None and again is not None
    assert torch.equal(found["variance"], again["variance"])
    assert torch.allclose(found["share"], again["share"], rtol=1e-7)
    assert torch.allclose(found["share"], selected_share(models, topk), rtol=1e-5)


@pytest.mark.parametrize("topk", [0.1, 0.9])
def test_a_thin_pass_that_misleads_costs_sce_nothing_but_a_pass(topk):
    models = stack()
    # What a thin pass looks at, the beginning of each chunk, varies a hundred times as much as the rest.
    for start in range(0, SIZE, CHUNK):
        part = slice(start, min(start + CHUNK // 2, SIZE))
        models[1:, part] = (models[0, part] + 100 * (models[1:, part] - models[0, part])).bfloat16()
    found = measured([work_on(models, "sce", select_topk=topk)], Room())
    assert found is not None
    assert torch.allclose(found["share"], selected_share(models, topk), rtol=1e-5)


def test_models_that_are_all_alike_have_equal_shares():
    models = stack()[:1].expand(EXPERTS + 1, SIZE)
    found = measured([work_on(models, "sce")], Room())
    assert found is not None and torch.allclose(found["share"], torch.full((EXPERTS,), 1 / EXPERTS).double())
    assert torch.equal(merged(models, "sce"), models[0])
    assert torch.equal(merged(models, "model_stock"), models[0])
