"""Means, arcs and their neighbours in recipes, over files, against what is calculated in memory in float64."""

from __future__ import annotations

import pytest
import torch
import yaml

from tests.unit.merging.made_checkpoints import family, read, state, write
from umaf.errors import ConfigError
from umaf.merging.methods.layer_swap import schedule
from umaf.merging.methods.widen import widen
from umaf.merging.planning.plan import make_plan
from umaf.merging.recipes.read import read_recipe
from umaf.merging.running.execute import execute


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return family(tmp_path_factory.mktemp("family"), dtype=torch.float32)


def merged(document, out):
    return read(execute(make_plan(read_recipe(document)), out, workers=1))


def test_layer_swap_by_its_schedule(folders, tmp_path):
    # Two layers: the first the language expert's, the second the task expert's; tables and norm go with the first.
    shares = [1.0, 0.0]
    document = {
        "umaf": 1,
        "method": "layer_swap",
        "models": [str(one) for one in folders[1:3]],
        "options": {"share": shares},
    }
    found = merged(document, tmp_path / "out")
    language, task = read(folders[1]), read(folders[2])
    for name, tensor in found.items():
        first = ".layers.1." not in name
        assert torch.equal(tensor, (language if first else task)[name]), name


def test_a_schedule_reaches_every_layer_as_it_is_written(tmp_path):
    # As many points as layers: interpolation gives each layer its own.
    layers = 7
    shares = schedule(layers, bottom=2, top=1, transition=1)
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{one}.mlp.up_proj.weight" for one in range(layers)),
    ]
    names += ["model.norm.weight", "lm_head.weight"]
    models = [
        {name: torch.full((4, 4) if "norm" not in name else (4,), value) for name in names}
        for value in (1.0, 0.0)
    ]
    folders = [
        write(tmp_path / f"{number}", one, num_hidden_layers=layers, vocab_size=4, hidden_size=4)
        for number, one in enumerate(models)
    ]
    document = {
        "umaf": 1,
        "method": "layer_swap",
        "models": [str(one) for one in folders],
        "options": {"share": list(shares)},
    }
    found = merged(document, tmp_path / "out")
    assert [float(found[name].flatten()[0]) for name in names] == pytest.approx([1.0, *shares, 1.0, 1.0])


SAID = [{"filter": "role:embedding", "value": "rows"}, {"value": "columns"}]


@pytest.mark.parametrize("said", [{}, {"vectors": SAID}, {"vectors": "columns"}])
def test_widen_ranks_tokens_of_a_table_unless_the_recipe_says_columns(folders, tmp_path, said):
    document = {
        "umaf": 1,
        "method": "widen",
        "base": str(folders[0]),
        "models": [str(one) for one in folders[1:]],
        "options": said,
    }
    found = merged(document, tmp_path / "out")
    base, *experts = [read(one) for one in folders]
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.down_proj.weight"):
        deltas = torch.stack([one[name] - base[name] for one in experts])
        kind = "rows" if "embed" in name and said != {"vectors": "columns"} else "columns"
        expected = base[name] + widen(deltas, base=base[name], vectors=kind)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


def test_somf_takes_the_last_model_for_its_mask(folders, tmp_path):
    base, *experts = [read(one) for one in folders]
    probabilities = {name: torch.sigmoid(one) for name, one in state(11).items()}
    mask = write(tmp_path / "mask", probabilities)
    document = {
        "umaf": 1,
        "method": "somf",
        "base": str(folders[0]),
        "models": [*(str(one) for one in folders[1:]), str(mask)],
        "options": {"weight": 0.3, "mask": "binary", "rescale": False},
    }
    found = merged(document, tmp_path / "out")
    for name, tensor in found.items():
        total = sum(0.3 * (one[name].double() - base[name].double()) for one in experts)
        expected = base[name].double() + total * (probabilities[name] > 0.5)
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-5)


def test_filter_wise_and_rows_see_whole_tensors(folders, tmp_path):
    # Angles of rows need rows: the engine hands over tensors in place of pieces of them.
    base, *experts = [read(one) for one in folders]
    name = "model.layers.0.mlp.up_proj.weight"
    text = {
        "merge_method": "model_stock",
        "base_model": str(folders[0]),
        "models": [{"model": str(one)} for one in folders[1:]],
        "parameters": {"filter_wise": True},
    }
    found = merged(yaml.safe_dump(text), tmp_path / "stock")[name]
    deltas = torch.stack([one[name].double() - base[name].double() for one in experts])
    units = torch.nn.functional.normalize(deltas, dim=-1)
    cosine = ((units.sum(0) ** 2).sum(-1) - 3) / 6
    ratio = 3 * cosine.clamp(min=0) / (1 + 2 * cosine.clamp(min=0))
    expected = base[name].double() + ratio[:, None] * deltas.mean(0)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_slerp_puts_the_base_first(folders, tmp_path):
    # As mergekit does, wherever the base stands in the list.
    name = "lm_head.weight"
    first, second = read(folders[0])[name].double(), read(folders[1])[name].double()
    angle = torch.arccos((first * second).sum() / first.norm() / second.norm())
    expected = (torch.sin(0.8 * angle) * first + torch.sin(0.2 * angle) * second) / torch.sin(angle)
    for order in ((0, 1), (1, 0)):
        text = {
            "merge_method": "slerp",
            "base_model": str(folders[0]),
            "models": [{"model": str(folders[one])} for one in order],
            "parameters": {"t": 0.2, "lerp_above": 1.0},
        }
        found = merged(yaml.safe_dump(text), tmp_path / f"out-{order[0]}")[name]
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("method", "count", "options", "says"),
    [
        ("slerp", 2, {"t": 1.5}, r"t must lie in \[0, 1\], got 1.5"),
        ("slerp", 3, {"t": 0.5}, "slerp"),
        ("nearswap", 2, {"t": -1}, r"t must lie in \[0, inf\), got -1"),
        ("layer_swap", 2, {}, "needs share"),
        ("mwa", 2, {"metric": 0}, r"metric must lie in \(0, inf\), got 0"),
        ("passthrough", 2, {}, "passthrough"),
    ],
)
def test_mistakes_are_refused_before_a_weight_is_read(folders, method, count, options, says):
    models = [str(one) for one in folders[1 : 1 + count]]
    document = {"umaf": 1, "method": method, "models": models, "options": options}
    with pytest.raises(ConfigError, match=says):
        make_plan(read_recipe(document))
