"""`umaf merge` of LoRA folders alone: the result is a LoRA folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from umaf.cli import main
from umaf.deltas import LowRank, Target, read_adapter, write_adapter
from umaf.errors import ConfigError
from umaf.merging.stages import merge

UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    deltas = [LowRank(torch.randn(2, 8), torch.randn(12, 2)) for _ in range(2)]
    for name, delta in zip("ab", deltas, strict=True):
        write_adapter(name, {UP: Target("linear", delta)}, base="org/base")
    return [delta.dense() for delta in deltas]


@pytest.fixture
def run(tmp_path, capsys):
    def run(recipe, *words, code=0):
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
        with pytest.raises(SystemExit) as end:
            main(["merge", "recipe.yml", *words])
        shown = capsys.readouterr()
        assert end.value.code == code, shown.err
        return shown.out if code == 0 else shown.err

    return run


def recipe(method, **more):
    return {"umaf": 1, "method": method, "models": ["a", "b"], **more}


def test_weights_of_the_recipe_and_of_models_hold(two, run):
    models = [{"model": "a", "options": {"weight": 2.0}}, "b"]
    found = json.loads(
        run(recipe("task_arithmetic", models=models, options={"weight": 0.5, "scale": 3.0}), "out", "--json")
    )
    delta = read_adapter("out").targets[UP].delta
    torch.testing.assert_close(delta.dense(), 3 * (2 * two[0] + 0.5 * two[1]), atol=1e-4, rtol=0)
    assert found["modules"][0]["exact"] and found["error"] < 1e-5


@pytest.fixture
def deep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = [
        f"model.layers.{layer}.{part}" for layer in range(3) for part in ("self_attn.q_proj", "mlp.up_proj")
    ]
    made = {}
    for folder in "ab":
        targets = {name: Target("linear", LowRank(torch.randn(2, 8), torch.randn(12, 2))) for name in names}
        write_adapter(folder, targets, base="org/base")
        made[folder] = {name: target.delta.dense() for name, target in targets.items()}
    return made


@pytest.mark.parametrize("method", ["task_arithmetic", "linear", "ties"])
def test_options_run_over_layers_and_go_by_filters(deep, run, method):
    filters = [{"filter": "q_proj", "value": [1.0, 0.5, 3.0]}, {"value": 2.0}]
    models = [{"model": "a", "options": {"weight": filters}}, "b"]
    more = {"density": [{"filter": "layers.1", "value": 1.0}, {"value": 0.25}]} if method == "ties" else {}
    if method == "task_arithmetic":
        more = {"scale": [1.0, 2.0, 3.0]}
    run(recipe(method, models=models, options=more), "out", "--rank", "8")
    record = json.loads(Path("out/umaf.json").read_text())["by_tensor"]
    found = read_adapter("out").targets
    for name, one in deep["a"].items():
        layer = int(name.split(".")[2])
        weight = [1.0, 0.5, 3.0][layer] if "q_proj" in name else 2.0
        assert record[f"{name}.weight"]["weight"] == [weight, 1.0]
        total = weight * one + deep["b"][name]
        if method == "task_arithmetic":
            total *= layer + 1
        elif method == "linear":
            total /= weight + 1
        else:
            # Tensors of one density are trimmed by one threshold over them.
            assert record[f"{name}.weight"]["density"] == [1.0 if layer == 1 else 0.25] * 2
            continue
        torch.testing.assert_close(found[name].delta.dense(), total, atol=1e-4, rtol=0)


def test_gradients_run_over_the_layers_of_the_base(deep, run):
    Path("base").mkdir()
    Path("base/config.json").write_text(json.dumps({"num_hidden_layers": 5}))
    for folder in "ab":
        path = Path(folder) / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "base"}))
    run(recipe("task_arithmetic", options={"weight": [0.0, 4.0]}), "out")
    record = json.loads(Path("out/umaf.json").read_text())["by_tensor"]
    assert record["model.layers.2.mlp.up_proj.weight"]["weight"] == [2.0, 2.0]


def test_resume_begins_anew_because_nothing_is_ever_left(two, run):
    run(recipe("task_arithmetic"), "out", "--resume")
    torch.testing.assert_close(read_adapter("out").targets[UP].delta.dense(), sum(two), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_are_stored_in_the_dtype_of_the_recipe(two, run, dtype):
    run(recipe("task_arithmetic", dtype=str(dtype).removeprefix("torch.")), "out")
    stored = load_file("out/adapter_model.safetensors")
    assert {one.dtype for one in stored.values()} == {dtype}
    torch.testing.assert_close(read_adapter("out").targets[UP].delta.dense(), sum(two), atol=0.2, rtol=0)


def test_mergekits_linear_takes_its_base_for_the_ground_of_loras(two, run):
    models = [{"model": one, "parameters": {"weight": weight}} for one, weight in (("a", 1.0), ("b", 3.0))]
    run({"merge_method": "linear", "base_model": "org/base", "models": models}, "out")
    mean = 0.25 * two[0] + 0.75 * two[1]
    torch.testing.assert_close(read_adapter("out").targets[UP].delta.dense(), mean, atol=1e-4, rtol=0)


def test_loras_of_the_hub_that_were_fetched(two, run, tmp_path, monkeypatch):
    told = run(recipe("task_arithmetic", models=["org/far", "b"]), "out", code=1)
    assert "hf download org/far" in told
    there = tmp_path / "cache" / "models--org--far"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text("1" * 40)
    shutil.copytree("a", there / "snapshots" / ("1" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    run(recipe("task_arithmetic", models=["org/far", "b"]), "out")
    torch.testing.assert_close(read_adapter("out").targets[UP].delta.dense(), sum(two), atol=1e-4, rtol=0)


def test_loras_are_merged_of_merged_loras(two, run):
    stages = {"sum": {"method": "task_arithmetic", "models": ["a", "b"]}}
    models = [{"model": "sum", "options": {"weight": 2.0}}, {"model": "a", "options": {"weight": -1.0}}]
    whole = recipe("task_arithmetic", models=models, stages=stages)
    plan = json.loads(run(whole, "out", "--dry-run", "--json"))
    assert plan["later"] == ["task_arithmetic"] and plan["modules"][0]["ranks"] == [2, 2]
    run(whole, "out", "--rank", "4")
    delta = read_adapter("out").targets[UP].delta.dense()
    torch.testing.assert_close(delta, two[0] + 2 * two[1], atol=1e-4, rtol=0)
    assert sorted(one.name for one in Path().iterdir()) == ["a", "b", "out", "recipe.yml"]


def test_a_merged_lora_is_put_on_a_model(two, tmp_path, run):
    torch.manual_seed(1)
    weights = {f"{UP}.weight": torch.randn(12, 8)}
    Path("base").mkdir()
    save_file(weights, "base/model.safetensors")
    stages = {"mean": {"method": "linear", "models": ["a", "b"]}}
    run(recipe("passthrough", models=["base+mean"], stages=stages), "out")
    found = load_file("out/model.safetensors")[f"{UP}.weight"]
    torch.testing.assert_close(found, weights[f"{UP}.weight"] + sum(two) / 2, atol=1e-4, rtol=0)


def test_rank_is_kept_and_its_error_told(two, run):
    out = run(recipe("task_arithmetic"), "out", "--rank", "1")
    assert read_adapter("out").targets[UP].delta.rank == 1
    error = (read_adapter("out").targets[UP].delta.dense() - sum(two)).norm() / sum(two).norm()
    assert f"{float(error):.1%}" in out and "as factors" in out


def test_methods_on_entries_are_merged_densely(two, run):
    found = json.loads(run(recipe("ties", options={"density": 0.5}), "out", "--rank", "8", "--json"))
    assert not found["modules"][0]["exact"]


def test_the_plan_of_a_merge_writes_nothing(two, run):
    found = json.loads(run(recipe("task_arithmetic"), "out", "--dry-run", "--json"))
    module = next(one for one in found["modules"] if one["name"] == UP)
    made = json.loads(run(recipe("task_arithmetic"), "made", "--json"))
    merged = next(one for one in made["modules"] if one["name"] == UP)
    assert module["exact"] and merged["rank"] <= module["rank"] == sum(module["ranks"])
    assert not Path("out").exists() and "as factors" in run(recipe("task_arithmetic"), "--dry-run")
    dense = json.loads(run(recipe("ties"), "--dry-run", "--rank", "1", "--json"))["modules"]
    assert not any(one["exact"] for one in dense) and {one["rank"] for one in dense} == {1}


def test_a_plan_looks_at_where_the_result_will_lie(two, run):
    Path("full").mkdir()
    Path("full/here").touch()
    for words in (("full",), ("full", "--dry-run")):
        assert "full is not an empty folder" in run(recipe("task_arithmetic"), *words, code=1)
    assert "lies in the model" in run(recipe("task_arithmetic"), "a/in", "--dry-run", code=1)
    Path("empty").mkdir()
    run(recipe("task_arithmetic"), "empty", "--dry-run")
    assert not any(Path("empty").iterdir())
    run(recipe("task_arithmetic"), "empty")
    assert UP in read_adapter("empty").targets


def test_an_empty_folder_stays_where_a_merge_fails(two, run):
    Path("empty").mkdir()
    assert run(recipe("task_arithmetic", tokenizer="union"), "empty", code=1)
    assert run(recipe("ties", base="./nowhere"), "empty", code=1)
    assert list(Path("empty").iterdir()) == []


def card(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["card", *words])
    shown = capsys.readouterr()
    return end.value.code, shown.out + shown.err


def test_the_card_of_a_merged_lora(two, run, capsys):
    Path("a/README.md").write_text("---\nlicense: mit\n---\n")
    run(recipe("task_arithmetic"), "out")
    page = Path("out/README.md").read_text()
    assert card(capsys, "out") == (0, page) and "| `a` | mit |" in page and "base_model: org/base" in page
    Path("out/README.md").write_text("other")
    assert card(capsys, "out", "--write")[0] == 0 and Path("out/README.md").read_text() == page
    assert card(capsys, "out", "--verify") == (0, "1 file as made.\n")
    file = Path("out/adapter_model.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    code, said = card(capsys, "out", "--verify")
    assert code == 1 and "adapter_model.safetensors has changed" in said
    # One that was merged before checksums were written, and an adapter that is no merge.
    record = json.loads(Path("out/umaf.json").read_text())
    del record["shards"]
    Path("out/umaf.json").write_text(json.dumps(record))
    code, said = card(capsys, "out", "--verify")
    assert code == 1 and "no checksums" in said and card(capsys, "out") == (0, page)
    code, said = card(capsys, "a")
    assert code == 1 and "is not of a merge" in said


@pytest.fixture
def no_hub(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the hub was asked")

    monkeypatch.setattr("umaf.merging.lora.recipe.open_ref", refuse)


def test_mergekit_wants_a_base_named_and_it_is_not_fetched(two, run, no_hub):
    models = [{"model": "a"}, {"model": "b", "parameters": {"weight": 0.5}}]
    run({"merge_method": "task_arithmetic", "base_model": "org/base", "models": models}, "out")
    delta = read_adapter("out").targets[UP].delta.dense()
    assert read_adapter("out").base == "org/base"
    torch.testing.assert_close(delta, two[0] + 0.5 * two[1], atol=1e-4, rtol=0)


def test_a_base_that_is_a_path_must_be_there(two, run):
    told = run(recipe("ties", base="./nowhere"), "out", code=1)
    assert "nowhere" in told


def test_from_python(two):
    assert merge(recipe("tsv_m"), "out").name == "out"
    assert UP in read_adapter("out").targets


@pytest.mark.parametrize(
    ("more", "words", "says"),
    [
        ({"tokenizer": "union"}, ("out",), "tokenizer"),
        (
            {"options": {"weight": [{"filter": "down", "value": 2}]}},
            ("out",),
            "'down' of weight holds for no",
        ),
        ({}, ("out", "--rank", "many"), "whole number"),
        ({}, ("out", "--engine", "ray"), "--engine ray"),
        ({"dtype": "float64"}, ("out",), "float64"),
        ({"options": {"weight": [{"filter": "down", "value": 2}]}}, ("--dry-run",), "holds for no tensor"),
        ({}, ("a/in",), "lies in the model"),
        ({}, (), "needs a folder"),
    ],
)
def test_mistakes_are_one_sentence(two, run, more, words, says):
    told = run(recipe("task_arithmetic", **more), *words, code=1)
    assert says in told and len(told.strip().splitlines()) == 1


def test_a_rank_is_for_loras_only(two, run):
    told = run({"umaf": 1, "method": "linear", "models": ["./x", "./y"]}, "out", "--rank", "3", code=1)
    assert "--rank" in told


def test_of_a_model_and_a_lora_it_is_said_how_to_write_it(two, run):
    told = run({"umaf": 1, "method": "linear", "models": ["a", "zoo:llama-1m"]}, "out", code=1)
    assert "BASE+a" in told


def test_methods_on_weights_want_their_base(two):
    with pytest.raises(ConfigError, match="base"):
        merge(recipe("slerp", options={"t": 0.5}), "out")
