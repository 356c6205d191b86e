"""Whole models in files, merged by a recipe, against the numbers of the methods' authors.

`make_authors_models.py` made the numbers by the authors' own programs (and FusionBench's and PEFT's). Every case is one
recipe at its defaults, or with the options that give the meaning of the program.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.reference.make_authors_models import EXPERTS, WEIGHTS
from umaf.merging.methods.della import chances, della
from umaf.merging.planning.plan import make_plan
from umaf.merging.recipes.recipe import Input, Recipe
from umaf.merging.running.execute import execute
from umaf.merging.stores.folder import compress, restore

NUMBERS = load_file(Path(__file__).with_name("authors_models.safetensors"))
TABLE = "model.embed_tokens.weight"
CASES = {
    "ties.authors": ("ties", {}),
    "ties.fusion_bench": ("ties", {"combine": "sum"}),
    "ties.mergelm": ("ties", {"rounding": "masked"}),
    "ties.mergellm": ("ties", {"rounding": "masked", "trim": "tensor"}),
    "ties.peft": ("ties", {"rounding": "down", "trim": "tensor", "tie": "plus", "weight": WEIGHTS}),
    "pcb": ("pcb", {}),
    "sce": ("sce", {}),
    "emr.unified": ("emr_unified", {}),
    "consensus_ta": ("consensus_ta", {}),
    "consensus_ties": ("consensus_ties", {}),
    "knots": ("knots", {}),
    "doge": ("doge", {}),
    "opcm": ("opcm", {}),
    "tsv_m": ("tsv_m", {}),
    "tsv_m.gram": ("tsv_m", {"whiten": "svd"}),
    "iso_c": ("iso_c", {}),
    "iso_cts": ("iso_cts", {}),
    "wudi": ("wudi", {"solver": "adam"}),
    "wudi.plain": ("wudi", {"solver": "adam", "norm": "plain"}),
    "optmerge": ("optmerge", {"solver": "adam"}),
    "optmerge.lora": ("optmerge", {"experts": "lora", "solver": "sgd", "rate": 1e-4}),
}
STORES = {
    "emr": ("emr", {}),
    "emr.flat": ("emr", {"sizes": "entries"}),
    "tall_masks": ("tall_masks", {}),
    "twin": ("twin", {}),
}


def numbers(key):
    return {name[len(key) + 1 :]: one for name, one in NUMBERS.items() if name.startswith(f"{key}/")}


BASE = numbers("base")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for key in ("base", *(f"expert.{number}" for number in range(EXPERTS))):
        (root / key).mkdir()
        save_file(numbers(key), root / key / "model.safetensors")
    return [root / "base", *(root / f"expert.{number}" for number in range(EXPERTS))]


def merged(method, places, out, *, scale=1.0, **options):
    weights = options.pop("weight", [None] * len(places[1:]))
    models = [
        Input(model=str(place), options={} if weight is None else {"weight": weight})
        for place, weight in zip(places[1:], weights, strict=True)
    ]
    recipe = Recipe(method=method, base=str(places[0]), models=models, options={**options, "scale": scale})
    return changes(execute(make_plan(recipe), out, workers=1))


def changes(folder):
    found = load_file(folder / "model.safetensors")
    return {name: one - BASE[name] for name, one in found.items()}


def agree(found, wanted, tolerance=1e-4):
    assert wanted
    for name, one in wanted.items():
        assert (found[name] - one).norm() <= tolerance * one.norm(), name


@pytest.mark.parametrize("key", sorted(CASES))
def test_a_recipe_gives_the_numbers_of_the_program(key, places, tmp_path):
    method, options = CASES[key]
    found, wanted = merged(method, places, tmp_path / "out", **options), numbers(key)
    if method in {"tsv_m", "iso_c", "iso_cts"}:
        # On purpose: the programs decompose tables of tokens too, here they get the mean like other tensors.
        del wanted[TABLE]
        experts = [numbers(f"expert.{number}") for number in range(EXPERTS)]
        torch.testing.assert_close(found[TABLE], sum(one[TABLE] - BASE[TABLE] for one in experts) / EXPERTS)
    agree(found, wanted)


@pytest.mark.parametrize("key", sorted(STORES))
def test_a_store_gives_every_expert_back_as_the_program_does(key, places, tmp_path):
    way, options = STORES[key]
    names = {f"expert-{number}": str(place) for number, place in enumerate(places[1:])}
    compress(way, str(places[0]), names, tmp_path / "store", options=options)
    for number, name in enumerate(names):
        place = restore(tmp_path / "store", str(places[0]), tmp_path / name, expert=name)
        agree(changes(place), numbers(f"{key}.{number}"), 1e-5)


@pytest.mark.parametrize("key", ["somf", "somf.binary"])
def test_somf_applies_a_mask_as_the_program_does(key, places, tmp_path):
    (tmp_path / "mask").mkdir()
    save_file(numbers("somf.mask"), tmp_path / "mask" / "model.safetensors")
    found = merged(
        "somf",
        [*places[:3], tmp_path / "mask"],
        tmp_path / "out",
        weight=[0.3, 0.3, 1.0],
        mask="binary" if key == "somf.binary" else "soft",
    )
    agree(found, numbers(key))


def test_della_rescales_elects_and_averages_as_the_program_does(monkeypatch):
    # Nothing is dropped in the numbers; here too, by drawing zeros.
    def nothing_dropped(generator, entries):
        return torch.zeros(entries, dtype=torch.uint16).numpy()

    monkeypatch.setattr("umaf.merging.methods.della.draw", nothing_dropped)
    wanted = numbers("della")
    for name, one in wanted.items():
        stack = torch.stack([numbers(f"expert.{number}")[name] - BASE[name] for number in range(EXPERTS)])
        found = 1.1 * della(stack, weight=WEIGHTS)
        assert (found - one).norm() <= 1e-4 * one.norm(), name
    assert chances(0.7, 0.07, 30)[0] < chances(0.7, 0.07, 30)[-1]
