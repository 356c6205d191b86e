"""What a merged folder says of its parents: those of its stages and its adapters too, with all licences."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from tests.unit.merging import made_checkpoints as made
from tests.unit.merging.test_merge_inputs import adapter
from umaf.merging.recipes.read import read_stages
from umaf.merging.recipes.recipe import Recipe
from umaf.merging.recipes.written import written
from umaf.merging.stages import merge
from umaf.merging.writing.card import card_of


def licensed(folder, licence):
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return folder


@pytest.fixture
def folders(tmp_path):
    found = made.family(tmp_path / "family", dtype=torch.float32)
    for folder, licence in zip(found, ("mit", "apache-2.0", "mit", "gpl-3.0"), strict=True):
        licensed(folder, licence)
    return found


def staged(folders):
    base, one, two, three = map(str, folders)
    return {
        "umaf": 1,
        "method": "linear",
        "models": ["second", three],
        "stages": {
            "first": {"method": "linear", "models": [one, two], "dtype": "float32"},
            "second": {
                "method": "task_arithmetic",
                "base": base,
                "models": ["first"],
                "options": {"scale": 0.5},
            },
        },
    }


def test_a_merge_of_merges_names_its_real_parents_and_can_be_made_again(folders, tmp_path):
    asked = staged(folders)
    out = merge(asked, tmp_path / "out")
    manifest = json.loads((out / "umaf.json").read_text())
    text = (out / "README.md").read_text()
    assert ".stages" not in json.dumps(manifest) + text
    parents = {one["model"]: one for one in manifest["parents"]}
    assert set(parents) == set(map(str, folders))
    assert {one["licence"] for one in parents.values()} == {"mit", "apache-2.0", "gpl-3.0"}
    assert [name for name, one in parents.items() if one["donor"]] == [str(folders[0])]
    assert "different licences" in text and text == card_of(manifest)
    again = merge(manifest["recipe"], tmp_path / "again")
    assert all(torch.equal(one, made.read(again)[name]) for name, one in made.read(out).items())
    written_down = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert written_down == manifest["recipe"] and list(written_down["stages"]) == ["first", "second"]


def test_adapters_are_parents_with_licences(folders, tmp_path):
    base, one = folders[:2]
    own = licensed(adapter(tmp_path / "adapter", 1), "cc-by-nc-4.0")
    asked = {"umaf": 1, "method": "task_arithmetic", "base": str(base), "models": [f"{base}+{own}", str(one)]}
    out = merge(asked, tmp_path / "out")
    manifest = json.loads((out / "umaf.json").read_text())
    assert manifest["parents"][1]["adapters"] == [{"model": str(own), "licence": "cc-by-nc-4.0"}]
    text = (out / "README.md").read_text()
    assert f"| `{own}` | cc-by-nc-4.0 |" in text and "different licences" in text
    mean = {"method": "linear", "models": [str(own), str(licensed(adapter(tmp_path / "other", 2), "mit"))]}
    asked = {"umaf": 1, "method": "passthrough", "models": [f"{base}+mean"], "stages": {"mean": mean}}
    text = (merge(asked, tmp_path / "two") / "README.md").read_text()
    assert ".stages" not in text and f"| `{own}` | cc-by-nc-4.0 |" in text and "| mit |" in text


def test_an_unknown_licence_of_an_adapter_is_said(folders, tmp_path):
    own = adapter(tmp_path / "adapter", 1)
    asked = {"umaf": 1, "method": "passthrough", "models": [f"{folders[0]}+{own}"]}
    text = (merge({**asked}, tmp_path / "out") / "README.md").read_text()
    assert "licence of a parent is not known" not in text.split("|")[0]
    (own / "README.md").unlink()
    text = (merge(asked, tmp_path / "two") / "README.md").read_text()
    assert "The licence of a parent is not known" in text and "license: mit" not in text


def test_a_merged_lora_names_its_parents_their_licences_and_its_recipe(tmp_path):
    one, two, three = (
        licensed(adapter(tmp_path / name, seed), licence)
        for seed, (name, licence) in enumerate((("one", "mit"), ("two", "mit"), ("three", "apache-2.0")))
    )
    stages = {"pair": {"method": "linear", "models": [str(one), str(two)]}}
    asked = {"umaf": 1, "method": "task_arithmetic", "models": ["pair", str(three)], "stages": stages}
    out = merge(asked, tmp_path / "out")
    record, text = json.loads((out / "umaf.json").read_text()), (out / "README.md").read_text()
    assert ".stages" not in json.dumps(record) + text
    assert [row["licence"] for row in record["parents"]] == ["mit", "mit", "apache-2.0"]
    assert record["adapters"] == ["pair", str(three)]
    assert "different licences" in text and f"| `{three}` | apache-2.0 |" in text
    again = merge(record["recipe"], tmp_path / "again")
    assert (again / "adapter_model.safetensors").read_bytes() == (
        out / "adapter_model.safetensors"
    ).read_bytes()


def test_a_stage_may_give_the_row_of_a_token():
    tokens = {
        "<x>": {"source": "first"},
        "<y>": {"source": {"kind": "model_token", "model": "first", "token": "a"}},
    }
    recipe = Recipe(
        method="linear",
        models=["first", "b"],
        tokenizer={"source": "first", "tokens": {name: {"source": "first"} for name in tokens}},
    )
    moved = recipe.renamed({"first": "out/first"})
    assert all(str(one.source) == "out/first" for one in moved.tokenizer.tokens.values())
    assert str(moved.tokenizer.source) == "out/first"


def test_written_stages_are_read_again(folders):
    recipes = read_stages(staged(folders))
    last = recipes[-1].beside({f"made/{one.name}": one for one in recipes[:-1]})
    last = last.renamed({one.name: f"made/{one.name}" for one in recipes[:-1]})
    assert read_stages(written(last)) == recipes
