"""A shelf: what may stand on it, and mixtures that answer as they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.unit.dispatch.conftest import make_expert
from umaf.dispatch.decision import Decision, chosen_by, one_hot
from umaf.dispatch.shelf import by_name, layer_columns, open_shelf
from umaf.errors import ExpertError
from umaf.experts.attach import attached
from umaf.experts.expert import Expert
from umaf.experts.mix import mix_rows
from umaf.models import open_model


def logits(model, ids):
    with torch.inference_mode():
        return model.net(input_ids=ids, use_cache=False).logits


@pytest.fixture
def ids():
    return torch.randint(4, 100, (3, 7), generator=torch.Generator().manual_seed(0))


def test_weights_of_zero_are_the_base_bit_for_bit(base, shelf, ids):
    with shelf.applied(torch.zeros(3, 3)) as model:
        assert torch.equal(logits(model, ids), logits(base, ids))


def test_one_hot_weights_are_the_expert(base, shelf, ids):
    """Mixing happens after the bound, so that an expert alone is what was trained."""
    with attached(base, shelf.factored, shelf.experts[1].z):
        alone = logits(base, ids)
    with shelf.applied(torch.eye(3)[[1, 1, 1]]) as model:
        assert torch.equal(logits(model, ids), alone)
    assert not torch.allclose(alone, logits(base, ids), atol=1e-3)


def test_picking_experts_spares_the_mixing_and_changes_no_bit(shelf):
    picks = torch.eye(4)[:, :3].double()
    for name, z in mix_rows(shelf.experts, picks).items():
        assert torch.equal(shelf._alone(picks)[name], z)


def test_each_row_of_a_batch_has_its_own_mixture(base, shelf, ids):
    weights = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 0.9]])
    with shelf.applied(weights) as model:
        mixed = logits(model, ids)
    for row in range(3):
        with shelf.applied(weights[row : row + 1]) as model:
            assert torch.allclose(mixed[row], logits(model, ids[row : row + 1])[0], atol=1e-4)
    # The row of the base among others may be computed from its factors, so only rounding may differ.
    assert torch.allclose(mixed[0], logits(base, ids)[0], atol=1e-5)


def test_weights_may_differ_by_module(base, shelf, ids):
    per_module = torch.zeros(1, 3, len(shelf.modules))
    per_module[0, 2] = 1.0
    with shelf.applied(per_module) as model:
        same = logits(model, ids[:1])
    with shelf.applied(torch.eye(3)[2:]) as model:
        assert torch.equal(same, logits(model, ids[:1]))
    per_module[0, 2, 0] = 0.0
    with shelf.applied(per_module) as model:
        assert not torch.equal(same, logits(model, ids[:1]))


def test_the_base_is_as_it_was_even_after_a_fault(base, shelf, ids):
    before = logits(base, ids)
    with pytest.raises(RuntimeError), shelf.applied(torch.eye(3)):
        raise RuntimeError
    assert torch.equal(logits(base, ids), before)


def test_two_of_one_name(base):
    with pytest.raises(ExpertError, match='Two experts on the shelf are called "good"'):
        open_shelf(base, [make_expert(base, "good"), make_expert(base, "good", seed=1)])


@pytest.mark.parametrize("name", ["other", " "])
def test_a_name_that_means_something_else(base, name):
    with pytest.raises(ExpertError, match="rename it"):
        open_shelf(base, [make_expert(base, name)])


def test_an_empty_shelf(base):
    with pytest.raises(ExpertError, match="without experts"):
        open_shelf(base, [])


def test_an_expert_of_another_base(base, pico):
    with pytest.raises(ExpertError, match="lacks some of its modules"):
        open_shelf(base, [make_expert(open_model(pico("gpt2")), "good")])


def test_an_expert_of_other_weights(base):
    expert = make_expert(base, "good")
    strange = Expert(
        "good", expert.z, expert.card.model_copy(update={"base_identity": "sampled-sha256:" + "0" * 64})
    )
    with pytest.raises(ExpertError, match="other weights"):
        open_shelf(base, [strange])


def test_an_expert_with_a_module_too_many(base):
    expert = make_expert(base, "good")
    more = replace(expert, z={**expert.z, "model.layers.9.mlp.up_proj": torch.ones(32)})
    with pytest.raises(ExpertError, match="lacks some of its modules"):
        open_shelf(base, [more])


def test_names_to_weights(shelf):
    assert by_name(shelf, {"kind": 0.5}, rows=2).weights.tolist() == [[0, 0, 0.5]] * 2
    assert not by_name(shelf, {"other": 1.0}).weights.any()
    with pytest.raises(ExpertError, match='Did you mean "good"'):
        by_name(shelf, {"god": 1.0})
    with pytest.raises(ExpertError, match="finite"):
        by_name(shelf, {"good": float("nan")})


def test_stacked_experts_cannot_differ_by_row(pico):
    model = open_model(pico("mixtral"))
    assert not open_shelf(model, [make_expert(model, "good")]).rows_may_differ


def test_layers_are_found_in_encoder_and_decoder():
    names = ["encoder.block.0.x", "encoder.block.1.x", "decoder.block.0.x", "head"]
    layers, column = layer_columns(names)
    assert layers == ("encoder.block.0", "encoder.block.1", "decoder.block.0", "head")
    assert column.tolist() == [0, 1, 2, 3]


def test_a_decision_explains_itself():
    names = ("a", "b")
    hard = chosen_by(names, torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.2, 0.7]]), mixed=False, why="the base")
    assert hard.weights.tolist() == [[0, 1], [0, 0]]
    assert hard.explain(0) == "b 1.00: the base finds b likeliest (0.70)"
    assert hard.explain(1) == "the base alone: the base finds other likeliest (0.70)"
    mixed = chosen_by(names, torch.tensor([[0.2, 0.7, 0.1]]), mixed=True, why="the base")
    assert mixed.explain(0).startswith("b 0.70, a 0.20: ")
    assert one_hot(names, ["a"], ["x"]).take([0]).shares(0) == {"a": 1.0, "b": 0.0}
    per_layer = Decision(names, torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), ("found",))
    assert per_layer.explain(0) == "a 0.50 (0.00 to 1.00 over the modules): found"
