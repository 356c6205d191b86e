"""Faults that other programs for merging have, each tried here."""

from __future__ import annotations

import json

import pytest
import torch

from tests.unit.merging import made_checkpoints as made
from tests.unit.merging.test_merge_inputs import tokenizer
from umaf.cli import _run
from umaf.merging.running import crew
from umaf.merging.stages import merge


def test_the_number_of_workers_reaches_those_who_work(tmp_path, monkeypatch):
    folders, asked = made.family(tmp_path), []
    work = crew.Crew.work

    def counted(self, batches, *, workers):
        asked.append(workers)
        return work(self, batches, workers=workers)

    monkeypatch.setattr(crew.Crew, "work", counted)
    file = tmp_path / "recipe.yml"
    file.write_text(json.dumps(made.recipe(folders, "linear")))
    assert _run(["merge", str(file), str(tmp_path / "out"), "--workers", "3", "--json"], False) == 0
    assert asked == [3]


@pytest.mark.parametrize("change", ["recipe", "input"])
def test_a_stage_of_another_recipe_or_input_is_not_served_again(tmp_path, monkeypatch, change):
    folders = made.family(tmp_path / "family")

    def asked(weight):
        first = {"method": "task_arithmetic", "base": str(folders[0]), "models": [str(folders[1])]}
        first["options"] = {"scale": weight}
        models = ["first", str(folders[2])]
        return {"umaf": 1, "method": "linear", "models": models, "stages": {"first": first}}

    def only_the_first(self, *words, real=crew.Crew.work, **keys):
        if self.plan.recipe.name is None:
            raise KeyboardInterrupt
        return real(self, *words, **keys)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(crew.Crew, "work", only_the_first)
        merge(asked(1.0), out, workers=1)
    assert list((tmp_path / ".out.stages").iterdir())
    if change == "input":
        changed = {name: one + 1 for name, one in made.read(folders[1]).items()}
        for file in folders[1].iterdir():
            file.unlink()
        made.write(folders[1], changed)
    scale = 0.5 if change == "recipe" else 1.0
    wanted = made.read(merge(asked(scale), tmp_path / "anew"))
    try:
        found = made.read(merge(asked(scale), out, resume=True))
    except Exception as problem:
        assert "another result" in str(problem)
        found = made.read(merge(asked(scale), out))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("source", ["base", "union"])
def test_rows_that_stand_for_no_token_stay(tmp_path, source):
    """A vocabulary is not cut to the tokens that have names: others may be in use, or the width matter."""
    folders = made.family(tmp_path, experts=2)  # 40 rows
    for folder in folders:
        words = ["a", "b", "c"] + (["d"] if folder == folders[2] else [])
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer(words)))
    out = merge(made.recipe(folders, "linear", tokenizer={"source": source}), tmp_path / "out")
    assert made.read(out)["lm_head.weight"].shape[0] == 40
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 40
    for method in ("linear", "task_arithmetic"):
        one = merge(made.recipe(folders[:2], method, tokenizer={"source": source}), tmp_path / f"{method}-1")
        two = merge(made.recipe(folders[:2], method), tmp_path / f"{method}-2")
        assert all(torch.equal(tensor, made.read(two)[name]) for name, tensor in made.read(one).items())


def test_code_that_a_model_brings_goes_along_and_is_not_run(tmp_path):
    folders = made.family(tmp_path)
    config = json.loads((folders[0] / "config.json").read_text())
    for folder in folders[:2]:
        (folder / "modeling_own.py").write_text(f"raise SystemExit('{folder.name}')\n")
    (folders[2] / "stray.py").write_text("")
    (folders[0] / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModel": "modeling_own.Own"}})
    )
    out = merge(made.recipe(folders, "task_arithmetic"), tmp_path / "out")
    assert "base" in (out / "modeling_own.py").read_text() and not (out / "stray.py").exists()
    elsewhere = {"AutoModel": "org/model--modeling_own.Own"}
    (folders[0] / "config.json").write_text(json.dumps({**config, "auto_map": elsewhere}))
    assert not list(merge(made.recipe(folders, "task_arithmetic"), tmp_path / "two").glob("*.py"))


def test_what_is_drawn_for_a_tensor_does_not_depend_on_the_others(tmp_path):
    """One stream of chance over all tensors would make each depend on those before it."""
    small, large = (
        made.family(tmp_path / "small", experts=2),
        made.family(tmp_path / "large", experts=2, long=80),
    )
    results = []
    for folders in (small, large):
        asked = made.recipe(folders, "dare_linear", options={"density": 0.5}, dtype="float32")
        before, after = made.read(folders[0]), made.read(merge(asked, folders[0].parent / "out"))
        name = "model.layers.1.mlp.up_proj.weight"
        results.append(after[name] == before[name].float())
    assert torch.equal(*results) and 0 < results[0].float().mean() < 1
