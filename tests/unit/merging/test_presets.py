"""Vectors carried over to a third model: the recipes, what they make, and the report beforehand."""

from __future__ import annotations

import pytest
import torch

from tests.unit.merging.made_checkpoints import read, state, write
from umaf.errors import CheckpointError, ConfigError, NumericalError
from umaf.merging.compatibility import compatibility
from umaf.merging.planning.plan import make_plan
from umaf.merging.presets import chat_vector, contrast, negation, reasoning_vector
from umaf.merging.running.execute import execute


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base, two models trained from it, and one of another pre-training."""
    root = tmp_path_factory.mktemp("presets")
    base = state(0)
    near = {"first": 1, "second": 2}
    made = {"base": write(root / "base", base), "stranger": write(root / "stranger", state(9))}
    for name, seed in near.items():
        noise = state(seed)
        made[name] = write(root / name, {key: one + 0.05 * noise[key] for key, one in base.items()})
    return made


def exact(folders, target, towards, away, weight):
    parts = [read(folders[name]) for name in (target, towards, away)]
    return {
        name: one.double() + weight * (parts[1][name].double() - parts[2][name].double())
        for name, one in parts[0].items()
    }


def flat(folders, name):
    return torch.cat([one.flatten().double() for _, one in sorted(read(folders[name]).items())])


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_each_preset_adds_its_vector_to_the_target(folders, tmp_path, weight):
    base, first, second = (folders[name] for name in ("base", "first", "second"))
    cases = {
        "chat": (
            chat_vector(first, chat=second, base=base, weight=weight),
            ("first", "second", "base", weight),
        ),
        "reasoning": (
            reasoning_vector(base, trained=first, untrained=second, weight=weight),
            ("base", "first", "second", weight),
        ),
        "negation": (negation(base, unwanted=first, weight=weight), ("base", "first", "base", -weight)),
        "negation elsewhere": (
            negation(second, unwanted=first, base=base, weight=weight),
            ("second", "first", "base", -weight),
        ),
        "contrast": (
            contrast(first, wanted=first, unwanted=second, weight=weight),
            ("first", "first", "second", weight),
        ),
    }
    for name, (recipe, expected) in cases.items():
        merged = read(execute(make_plan(recipe), tmp_path / name, workers=1))
        wanted = exact(folders, *expected)
        assert set(merged) == set(wanted)
        for key, one in merged.items():
            torch.testing.assert_close(one.double(), wanted[key], rtol=0, atol=2e-6, msg=f"{name}: {key}")


def test_the_target_gives_config_and_drops_out_where_it_is_an_end():
    recipe = negation("org/a", unwanted="org/b")
    assert str(recipe.base) == "org/a" and [str(one.model) for one in recipe.models] == ["org/b"]
    assert recipe.models[0].options == {"weight": -1.0} and recipe.tokenizer is None
    assert negation("org/a", unwanted="org/b", align=True).tokenizer.source == "base"
    back = contrast("org/bad", wanted="org/good", unwanted="org/bad")
    assert [(str(one.model), one.options["weight"]) for one in back.models] == [("org/good", 1.0)]


def test_a_vector_from_a_model_to_itself_is_refused():
    with pytest.raises(ConfigError, match="A chat vector lies between two models, and both are org/b"):
        chat_vector("org/a", chat="org/b", base="org/b")
    with pytest.raises(ConfigError, match="A negation lies between"):
        negation("org/a", unwanted="org/a")


def test_the_report_measures_what_float64_says(folders):
    recipe = chat_vector(folders["first"], chat=folders["second"], base=folders["base"], weight=0.5)
    found = compatibility(recipe, origin=folders["base"])
    base, first, second = (flat(folders, name) for name in ("base", "first", "second"))
    change, learned = 0.5 * (second - base), first - base
    assert found.size == pytest.approx(float(change.norm() / first.norm()), rel=1e-5)
    assert found.along == pytest.approx(float(change @ learned / change.norm() / learned.norm()), abs=1e-5)
    for name, other in (("second", second), ("base", base)):
        cosine = float(first @ other / first.norm() / other.norm())
        assert found.kin[str(folders[name])] == pytest.approx(cosine, rel=1e-6)
    assert found.tensors == (18, 18) and found.tokenizers == "unknown" and found.notes == ()
    assert "direction" in str(found) and len(str(found).splitlines()) <= 8


def test_the_report_warns_of_strangers_of_nothing_and_of_too_much(folders):
    strange = reasoning_vector(
        folders["stranger"], trained=folders["first"], untrained=folders["base"], weight=9.0
    )
    notes = " ".join(compatibility(strange).notes)
    assert "hardly come from one pre-training" in notes and "try a smaller weight" in notes
    nothing = compatibility(negation(folders["base"], unwanted=folders["first"], weight=0.0))
    assert nothing.size == 0 and nothing.tensors[0] == 0 and "The change is 0" in nothing.notes[0]


def test_a_vector_that_the_target_has_already_is_noticed(folders):
    found = compatibility(
        contrast(folders["first"], wanted=folders["first"], unwanted=folders["base"]), origin=folders["base"]
    )
    assert found.along == pytest.approx(1.0) and "already" in found.notes[-1]


def test_tokenizer_files_are_compared(folders, tmp_path):
    made = {}
    for name, text in (("a", "{}"), ("b", "{}"), ("c", "{ }")):
        made[name] = write(tmp_path / name, read(folders["base"]))
        (made[name] / "tokenizer.json").write_text(text)
    assert compatibility(negation(made["a"], unwanted=made["b"])).tokenizers == "same"
    different = compatibility(negation(made["a"], unwanted=made["c"]))
    assert different.tokenizers == "different" and "Tokenizer files differ" in different.notes[-1]


def test_what_the_merge_refuses_the_report_refuses(folders, tmp_path):
    tensors = read(folders["base"])
    wide = write(tmp_path / "wide", state(0, width=16))
    with pytest.raises(CheckpointError, match="has the shape"):
        compatibility(negation(folders["base"], unwanted=wide))
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    with pytest.raises(NumericalError, match=r"model\.layers\.0\.mlp\.up_proj\.weight holds NaN"):
        compatibility(negation(folders["base"], unwanted=write(tmp_path / "nan", tensors)))
    recipe = negation(folders["base"], unwanted=folders["first"])
    with pytest.raises(ConfigError, match="The origin org/x is none of the recipe's models"):
        compatibility(recipe, origin="org/x")
    with pytest.raises(ConfigError, match="this recipe is over ties"):
        compatibility(recipe.model_copy(update={"method": "ties"}))
