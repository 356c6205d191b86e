"""Recipes: both forms give one object, and every mistake is a sentence with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.merging.plan_methods import stand_ins  # noqa: F401
from umaf.errors import ConfigError
from umaf.merging.recipes.read import read_recipe, read_stages
from umaf.merging.recipes.recipe import Filtered, Recipe
from umaf.merging.recipes.reference import parse_ref

pytestmark = pytest.mark.usefixtures("stand_ins")

TIES = """merge_method: ties
base_model: org/base
models:
  - model: org/base
  - model: org/maths
    parameters: {weight: 0.5, density: [0.1, 0.5]}
  - model: org/code@main+org/adapter
    parameters:
      weight: [{filter: mlp, value: 0.3}, {value: 1}]
parameters: {normalize: true, int8_mask: true, lambda: 0.7}
dtype: bf16
out_dtype: fp16
"""


def wrong(text):
    with pytest.raises(ConfigError) as caught:
        read_stages(text + "\n")
    message = str(caught.value)
    assert message.endswith(".") or message.endswith("?"), message
    return message


def test_a_recipe_of_mergekit_is_said_in_the_words_here():
    recipe = read_recipe(TIES)
    assert [str(one.model) for one in recipe.models] == ["org/maths", "org/code@main+org/adapter"]
    assert str(recipe.base) == "org/base"
    assert recipe.models[0].options == {"weight": 0.5, "density": (0.1, 0.5)}
    assert recipe.models[1].options["weight"] == (
        Filtered(filter="mlp", value=0.3),
        Filtered(filter="*", value=1),
    )
    assert recipe.options == {
        "scale": 0.7,
        "combine": "mean",
        "density": 1.0,
        "trim": "tensor",
        "tie": "plus",
        "rounding": "down",
        "elect": "weighted",
        "divisor": "weights",
    }
    assert recipe.dtype == "float16"
    assert any("int8_mask" in note for note in recipe.notes)
    assert any("float32" in note for note in recipe.notes)


def test_the_own_form_and_python_give_the_same():
    text = """
umaf: 1
method: ties
base: org/base
models: [org/maths, {model: org/code, options: {weight: [0, 1]}}]
options: {density: 0.3, scale: 0.5}
dtype: float16
seed: 3
"""
    made = Recipe(
        method="ties",
        base="org/base",
        models=["org/maths", {"model": "org/code", "options": {"weight": [0, 1]}}],
        options={"density": 0.3, "scale": 0.5},
        dtype="float16",
        seed=3,
    )
    assert read_recipe(text).model_dump() == made.model_dump()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "merge_method: ties",
            "merge_method: tiess",
            "line 1: There is no merge method 'tiess'. Did you mean",
        ),
        ("merge_method: ties", "merge_method: ram", "line 1: ram is a method of mergekit that umaf has not"),
        (
            "density: [0.1, 0.5]",
            "densty: 0.2",
            "line 6: ties has no parameter 'densty'. Did you mean \"density\"?",
        ),
        (
            "normalize: true",
            "normalise: true",
            "line 10: ties has no parameter 'normalise'. Did you mean",
        ),
        ("density: [0.1, 0.5]", "density: 5", "line 6: ties: density must lie in (0, 1], got 5."),
        ("density: [0.1, 0.5]", "density: [0.1, 5]", "line 6: ties: density must lie in (0, 1], got 5."),
        ("dtype: bf16", "dtyp: bf16", "line 11: A recipe has no key 'dtyp'. Did you mean \"dtype\"?"),
        ("dtype: bf16", "dtype: int8", "line 11: dtype: there is no dtype 'int8'."),
        ("out_dtype: fp16", "dtype: fp16", "line 12: the key 'dtype' is given twice, first in line 11"),
        ("  - model: org/maths", "  - modle: org/maths", "line 5: An entry of models has no key 'modle'"),
        ("{filter: mlp, value: 0.3}", "{filer: mlp, value: 0.3}", "line 9: A filter has no key 'filer'"),
        ("{filter: mlp, value: 0.3}", "0.3", "line 9: weight mixes what does not go together"),
        ("org/code@main+org/adapter", "org/maths", "line 7: org/maths is merged twice"),
        ("org/code@main+org/adapter", "org/code@", "line 7: 'org/code@' has an empty part"),
        ("base_model: org/base", "", "line 1: ties works on changes from a base"),
        ("lambda: 0.7", "lambda: high", "line 10: ties: scale must be a number, got 'high'."),
        ("normalize: true", "normalize: 2", "line 10: normalize must be true or false, got 2."),
        ("weight: 0.5", "weight: 0.5, combine: sum", "line 6: combine is one for all models"),
        (
            "parameters: {normalize: true",
            "modules: {}\nparameters: {normalize: true",
            "line 10: modules is not read",
        ),
        ("dtype: bf16", "dtype: [", "this is not YAML"),
    ],
)
def test_mistakes_name_their_line(old, new, said):
    assert old in TIES
    assert said in wrong(TIES.replace(old, new, 1))


def test_mistakes_in_a_file_name_it(tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text(TIES.replace("density", "densty"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yml, line 6: ties has no parameter"):
        read_recipe(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "none.yml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{umaf: 2, method: ties}", "umaf must be 1"),
        ("{umaf: 1, merge_method: ties}", "A recipe has no key 'merge_method'. Did you mean \"method\"?"),
        (
            "{umaf: 1, method: ties, models: [a], base: b, options: {weigth: 1}}",
            "no option 'weigth'. Did you mean",
        ),
        ("{umaf: 1, method: ties, models: [a, b], base: b}", "b is the base and a model too"),
        ("{umaf: 1, method: ties, models: []}", "models must be a list with at least one entry"),
        ("{umaf: 1, method: ties, base: b}", "either models or slices"),
        ("{umaf: 1, method: slerp, models: [a, b, c]}", "slerp merges 2 models, got 3."),
        (
            "{umaf: 1, method: ties, models: [{model: a, options: {trim: model}}], base: b}",
            "trim is one for all",
        ),
        (
            "{umaf: 1, method: ties, models: [a], base: b, options: {trim: row}}",
            "trim must be one of model, tensor",
        ),
        (
            "{umaf: 1, method: free, models: [a], options: {steps: [1, 2]}}",
            "steps cannot run over the layers",
        ),
        (
            "{umaf: 1, method: ties, models: [a], base: b, options: {weight: [{filter: 'role:mlp', value: 1}]}}",
            "no role",
        ),
        ("{umaf: 1, method: linear, models: [a], options: {scale: 2}}", "linear has no option 'scale'"),
        ("{umaf: 1, method: linear, models: [a, b], seed: -1}", "seed must be a whole number from 0"),
        (
            "{umaf: 1, method: linear, slices: [{sources: [{model: a, layers: [0, 2]}, {model: b, layers: [0, 3]}]}]}",
            "as many layers each, got [0, 2], [0, 3]",
        ),
        (
            "{umaf: 1, method: linear, slices: [{sources: [{model: a, layers: [3, 2]}]}]}",
            "layers must go up from 0",
        ),
        ("{umaf: 1, method: linear, slices: [{sources: [{model: a}]}]}", "needs layers"),
        ("merge_method: linear\nmodels: [{model: a}, {model: b}]\nslices: []", "slices must be a list"),
        ("method: ties", "begin it with umaf: 1"),
        ("- a", "A recipe is a mapping"),
        ("", "it is empty"),
    ],
)
def test_other_mistakes(text, said):
    assert said in wrong(text)


def test_a_weight_that_mergekit_asks_for_is_asked_for(tmp_path):
    from tests.unit.merging.plan_models import shelf
    from umaf.merging.planning.plan import make_plan

    recipe = read_recipe("merge_method: linear\nmodels: [{model: a}, {model: b}]")
    with pytest.raises(ConfigError, match="linear needs weight for model 1 of 2"):
        make_plan(recipe, open=shelf("a", "b").open)


def test_numbers_with_exponents_are_numbers():
    recipe = read_recipe("merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 1e-1}")
    assert recipe.options["t"] == 0.1


def test_defaults_of_mergekit_hold_where_filters_say_nothing():
    text = TIES.replace("normalize: true", "density: [{filter: mlp, value: 0.5}]")
    assert read_recipe(text).options["density"] == (
        Filtered(filter="mlp", value=0.5),
        Filtered(filter="*", value=1.0),
    )


def test_anchors_and_merge_keys_work():
    text = (
        "umaf: 1\nmethod: ties\nbase: a\nmodels:\n- model: b\n  options: &one {weight: 0.5, density: 0.1}\n"
    )
    text += "- model: c\n  options: {<<: *one, weight: 0.7}\n"
    assert read_recipe(text).models[1].options == {"weight": 0.7, "density": 0.1}


def test_a_path_that_exists_wins_over_plus_and_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("+b", "run@3", "a+b", "plain"):
        (tmp_path / name).mkdir()
    assert parse_ref("+b").path == "+b"
    assert parse_ref("run@3").revision is None
    assert str(parse_ref("a+b+plain").lora[0]) == "plain" and parse_ref("a+b+plain").path == "a+b"
    assert parse_ref("plain+x").path == "plain"
    assert parse_ref({"model": {"path": "+c"}}).path == "+c"
    assert parse_ref({"model": "plain", "lora": ["x", "y"]}).lora[1].path == "y"
    assert parse_ref("run@3@main") == parse_ref({"model": "run@3", "revision": "main"})


def test_tokenizers_are_parsed():
    text = """
merge_method: linear
models: [{model: a}, {model: b}]
parameters: {weight: 1}
chat_template: chatml
tokenizer:
  source: union
  pad_to_multiple_of: 64
  tokens:
    <x>: {source: a, force: true}
    <y>: {source: {kind: model_token, model: b, token_id: 3}}
    <z>: {source: {kind: zero}}
"""
    recipe = read_recipe(text)
    tokens = recipe.tokenizer.tokens
    assert recipe.chat_template == "chatml" and recipe.tokenizer.pad_to_multiple_of == 64
    assert tokens["<x>"].force and str(tokens["<x>"].source) == "a"
    assert tokens["<y>"].token_id == 3 and tokens["<z>"].zero
    assert "kind must be zero or model_token" in wrong(text.replace("zero", "nothing"))
    assert "no key 'pad'" in wrong(text.replace("pad_to_multiple_of", "pad"))
    short = text.split("tokenizer:")[0] + "tokenizer_source: model:b"
    assert str(read_recipe(short).tokenizer.source) == "b"


def test_documents_with_names_are_stages():
    text = """
name: last
merge_method: slerp
base_model: first
models: [{model: first}, {model: org/c}]
parameters: {t: 0.5}
---
name: first
merge_method: linear
models: [{model: org/a}, {model: org/b}]
parameters: {weight: 1}
"""
    stages = read_stages(text)
    assert [one.name for one in stages] == ["first", "last"]
    assert [str(ref) for ref in stages[1].renamed({"first": "out/first"}).refs()] == ["out/first", "org/c"]
    unnamed = read_stages(text.replace("name: last", ""))
    assert [one.name for one in unnamed] == ["first", None] and unnamed[1].method == "slerp"
    assert "have no name" in wrong(text.replace("name: last", "").replace("name: first", ""))
    assert "made of itself" in wrong(text.replace("org/a", "last"))
    assert "two stages called 'last'" in wrong(text.replace("name: first", "name: last"))
    assert "nothing is made of" in wrong(text.replace("model: first", "model: x").replace("l: first", "l: x"))
    with pytest.raises(ConfigError, match="read_stages"):
        read_recipe(text)


def test_merges_inside_merges():
    text = """
umaf: 1
method: slerp
models:
  - model: {method: linear, models: [a, {model: {method: linear, models: [d, e]}}]}
  - tuned
stages:
  tuned: {method: linear, models: [b, c]}
"""
    stages = read_stages(text)
    assert [(one.name, [str(ref) for ref in one.refs()]) for one in stages] == [
        ("tuned", ["b", "c"]),
        ("stage-1", ["d", "e"]),
        ("stage-2", ["a", "stage-1"]),
        (None, ["stage-2", "tuned"]),
    ]


def test_the_recipes_of_the_documentation_are_right():
    page = Path(__file__).parents[3] / "docs" / "reference" / "merge-recipe.md"
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        assert read_stages(block)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"modles": ["a"]}, "A recipe has no 'modles'. Did you mean \"models\"?"),
        ({"dtype": "int8"}, "dtype: Input should be"),
        ({"models": [], "base": "a"}, "Value error, a recipe has either models or slices"),
        ({"models": ["a@"]}, "has an empty part"),
        ({"models": [{"model": "a", "weight": 1}]}, "weight"),
        ({"options": {"density": "much"}}, "ties: density must be a number, got 'much'."),
    ],
)
def test_mistakes_in_python(more, said):
    with pytest.raises(ConfigError) as caught:
        read_stages(Recipe(**{"method": "ties", "models": ["a"], "base": "b", **more}))
    assert said.removeprefix("Value error, ").lower() in str(caught.value).lower()


def test_short_dtypes_in_python():
    assert Recipe(method="linear", models=["a"], dtype="bf16").dtype == "bfloat16"


def test_ties_rescales_where_mergekit_does():
    recipe = read_recipe(
        {
            "merge_method": "ties",
            "base_model": "base",
            "models": [
                {"model": "a", "parameters": {"weight": 1}},
                {"model": "b", "parameters": {"weight": 1}},
            ],
            "parameters": {"density": 0.5, "rescale": True},
        }
    )
    assert recipe.options["rescale"] == "l1"
