"""The planner: sources, options, ties, layers and checks, on checkpoints that are headers only."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.unit.merging.plan_methods import stand_ins  # noqa: F401
from tests.unit.merging.plan_models import Shelf, llama, llama_config, shelf
from umaf.errors import CheckpointError, ConfigError, OutputError
from umaf.merging.planning.check import check_output
from umaf.merging.planning.plan import Source, make_plan
from umaf.merging.recipes.read import read_recipe
from umaf.merging.recipes.recipe import Recipe

pytestmark = pytest.mark.usefixtures("stand_ins")


def ties(*models, **more):
    return Recipe(**{"method": "ties", "base": "base", "models": models or ("a", "b"), **more})


def jobs_of(plan):
    return {job.name: job for job in plan.jobs}


def test_every_tensor_has_a_source_in_every_model_and_in_the_base():
    plan = make_plan(ties("b", "a", options={"scale": 0.5}), open=shelf("a", "b", "base").open)
    assert [str(one.ref) for one in plan.models] == ["base", "b", "a"]
    assert [job.name for job in plan.jobs] == list(llama())
    job = jobs_of(plan)["model.layers.3.self_attn.q_proj.weight"]
    assert job.sources == (Source(1, job.name), Source(2, job.name)) and job.base == Source(0, job.name)
    assert (job.method, job.scale, job.dtype, job.role) == ("ties", 0.5, "BF16", "matrix")
    assert job.options["density"] == (0.2, 0.2) and job.options["trim"] == "model"
    assert plan.donor == 0 and plan.config == {}
    assert plan.bytes_written * 3 == plan.bytes_read


def test_the_result_is_stored_as_the_recipe_says():
    plan = make_plan(ties(dtype="float32"), open=shelf("a", "b", "base").open)
    assert {job.dtype for job in plan.jobs} == {"F32"} and plan.config == {"dtype": "float32"}


def test_dtypes_that_differ_are_noted():
    models = shelf("a", "base").add("b", llama(), llama_config(), dtype="F32")
    plan = make_plan(ties(), open=models.open)
    assert {job.dtype for job in plan.jobs} == {"BF16"} and "stored as BF16, F32" in plan.notes[0]


def test_a_method_for_matrices_leaves_the_rest_to_its_rule():
    recipe = Recipe(method="spectral", base="base", models=["a", "b"], options={"weight": 0.5, "scale": 2})
    jobs = jobs_of(make_plan(recipe, open=shelf("a", "b", "base").open))
    assert jobs["model.layers.0.mlp.up_proj.weight"].method == "spectral"
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert (jobs[name].method, jobs[name].options, jobs[name].scale) == (
            "mean",
            {"weight": (0.5, 0.5)},
            2,
        )


def test_bare_files_are_models():
    models = Shelf()
    for name in ("base", "a", "b"):
        models.add(name, {"w": (4, 4), "layer.bias": (4,), "steps": ((), "I64")}, dtype="F32")
    plan = make_plan(ties(dtype="bfloat16"), open=models.open)
    jobs = jobs_of(plan)
    assert (jobs["w"].role, jobs["w"].method, jobs["w"].dtype) == ("matrix", "ties", "BF16")
    assert (jobs["steps"].method, len(jobs["steps"].sources), jobs["steps"].dtype) == ("copy", 3, "I64")
    assert plan.config == {}


def test_filters_by_role_and_options_by_depth():
    options = {"weight": [{"filter": "role:embedding", "value": 0.0}, {"value": [1, 3]}]}
    jobs = jobs_of(
        make_plan(ties({"model": "a", "options": options}, "b"), open=shelf("a", "b", "base").open)
    )
    assert jobs["model.embed_tokens.weight"].options["weight"] == (0.0, 1.0)
    assert jobs["lm_head.weight"].options["weight"] == (1.0, 1.0)
    assert jobs["model.layers.2.mlp.up_proj.weight"].options["weight"] == (2.0, 1.0)


def test_a_filter_that_holds_for_nothing_is_a_mistake():
    text = "merge_method: ties\nbase_model: base\nmodels:\n- model: a\nparameters:\n"
    recipe = read_recipe(text + "  weight: [{filter: mpl, value: 1}, {value: 1}]")
    with pytest.raises(ConfigError, match="line 6: The filter 'mpl' of weight holds for no tensor"):
        make_plan(recipe, open=shelf("a", "base").open)


def test_layers_are_put_together_anew():
    kinds = [f"kind{layer}" for layer in range(5)]
    models = Shelf()
    for name in ("a", "b"):
        models.add(name, llama(), llama_config(layer_types=kinds))
    text = "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 4]}]\n"
    plan = make_plan(read_recipe(text + "- sources: [{model: b, layer_range: [2, 5]}]"), open=models.open)
    jobs = jobs_of(plan)
    assert jobs["model.layers.4.mlp.up_proj.weight"].sources == (
        Source(1, "model.layers.2.mlp.up_proj.weight"),
    )
    assert jobs["model.embed_tokens.weight"].sources[0].model == 0
    assert jobs["lm_head.weight"].sources[0].model == jobs["model.norm.weight"].sources[0].model == 1
    assert plan.config == {"num_hidden_layers": 7, "layer_types": [*kinds[:4], *kinds[2:]]}
    assert len(jobs) == 7 * 9 + 3


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "- sources: [{model: a, layer_range: [4, 9]}]",
            "line 3: a has 5 layers, and [4, 9] goes beyond them.",
        ),
        (
            "- sources: [{model: a, layer_range: [0, 2]}]\n  parameters: {scael: 1}",
            "line 4: passthrough has no",
        ),
    ],
)
def test_layers_that_are_not_there(lines, said):
    with pytest.raises(ConfigError) as caught:
        make_plan(read_recipe("merge_method: passthrough\nslices:\n" + lines), open=shelf("a").open)
    assert said in str(caught.value)


def test_layer_range_of_a_whole_model_is_let_pass():
    text = "merge_method: linear\nmodels:\n- {model: a, layer_range: [0, 5], parameters: {weight: 1}}\n"
    assert make_plan(read_recipe(text), open=shelf("a").open).jobs
    with pytest.raises(ConfigError, match=r"line 3: a has 5 layers, .* write slices for the layers \[0, 4\]"):
        make_plan(read_recipe(text.replace("5]", "4]")), open=shelf("a").open)


def test_other_numbers_of_layers_need_slices():
    models = shelf("a", "base").add("b", llama(7), llama_config(7))
    with pytest.raises(ConfigError, match="b has 7 layers and base has 5; choose layers of each with slices"):
        make_plan(ties(), open=models.open)


def test_slices_of_a_model_with_two_stacks_are_refused():
    shapes = {f"{part}.block.{n}.w.weight": (4, 4) for part in ("encoder", "decoder") for n in range(2)}
    models = Shelf().add("a", shapes, {"model_type": "t5", "num_layers": 2, "is_encoder_decoder": True})
    text = "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 1]}]\n"
    with pytest.raises(ConfigError, match="several stacks of layers"):
        make_plan(read_recipe(text), open=models.open)


def test_missing_and_surplus_tensors():
    lacking = llama()
    del lacking["model.layers.2.mlp.up_proj.weight"]
    models = shelf("a", "base").add("b", lacking, llama_config())
    with pytest.raises(
        CheckpointError, match=r"b has no tensor model\.layers\.2\.mlp\.up_proj\.weight, which base has"
    ):
        make_plan(ties(), open=models.open)
    models = shelf("a", "base").add("b", {**llama(), "score.weight": (2, 8)}, llama_config())
    with pytest.raises(CheckpointError, match=r"b has 1 tensor that base lacks, score\.weight among them"):
        make_plan(ties(), open=models.open)
    spare = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": (4,) for n in range(5)}
    models = shelf("a", "base").add("b", {**llama(), **spare}, llama_config())
    assert any("left out" in note for note in make_plan(ties(), open=models.open).notes)


@pytest.mark.parametrize("method", ["ties", "linear"])
@pytest.mark.parametrize("holder", ["a", "b", "base"])
def test_buffers_that_some_models_store_and_others_compute(method, holder):
    spare = {
        **{f"model.layers.{n}.self_attn.rotary_emb.inv_freq": (4,) for n in range(5)},
        **{f"model.layers.{n}.attn.bias": (1, 1, 32, 32) for n in range(5)},
        "model.embeddings.position_ids": ((1, 32), "I64"),
    }
    models = shelf("a", "b", "base").add(holder, {**llama(), **spare}, llama_config())
    based = {"base": "base", "models": ["a", "b"]} if method == "ties" else {"models": ["base", "a", "b"]}
    plan = make_plan(read_recipe({"umaf": 1, "method": method, **based}), open=models.open)
    assert {job.name for job in plan.jobs} == set(llama())
    assert any(f"of {holder} is left out" in note for note in plan.notes)
    every = shelf()
    for name in ("a", "b", "base"):
        every.add(name, {**llama(), **spare}, llama_config())
    plan = make_plan(read_recipe({"umaf": 1, "method": method, **based}), open=every.open)
    assert {job.name for job in plan.jobs} == {*llama(), *spare}


def test_shapes_that_differ():
    models = shelf("a", "base").add("b", {**llama(), "model.norm.weight": (9,)}, llama_config())
    with pytest.raises(
        CheckpointError, match=r"model\.norm\.weight has the shape \[9\] in b and \[8\] in base"
    ):
        make_plan(ties(), open=models.open)


def test_vocabularies_that_differ_in_length():
    models = shelf("a", "base").add("b", llama(vocab=40), llama_config())
    with pytest.raises(
        CheckpointError, match=r"has 40 tokens in b and 32 in base; .*tokenizer: \{source: base\}"
    ):
        make_plan(ties(), open=models.open)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_theta", 1e6),
        ("hidden_act", "gelu"),
        ("num_attention_heads", 4),
        ("model_type", "mistral"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
    ],
)
def test_configs_that_differ(key, value):
    ours = llama_config(rope_scaling=None)
    models = Shelf()
    for name in ("a", "base"):
        models.add(name, llama(), ours)
    models.add("b", llama(), {**ours, key: value})
    with pytest.raises(ConfigError, match=f"b has {key}"):
        make_plan(ties(), open=models.open)
    plan = make_plan(ties(allow=[key]), open=models.open)
    assert any(note.startswith(key) for note in plan.notes)


def test_configs_that_say_the_same_in_other_words():
    models = shelf("a", "base")
    other = llama_config(hidden_act="swish", rope_parameters={"rope_theta": 10000.0, "rope_type": "default"})
    del other["rope_theta"]
    models.add("b", llama(), other)
    assert make_plan(ties(), open=models.open).notes == ()
    longer = llama_config(max_position_embeddings=64)
    models = (
        shelf("a").add("base", llama(), longer).add("b", llama(), {**longer, "max_position_embeddings": 128})
    )
    assert make_plan(ties(), open=models.open).notes == (
        "max_position_embeddings is 64 in base, which holds, and 128 in b.",
    )


def test_quantised_models_are_refused():
    models = shelf("a", "base").add("b", llama(), llama_config(quantization_config={"quant_method": "gptq"}))
    with pytest.raises(CheckpointError, match=r"b is quantised \(gptq\)"):
        make_plan(ties(), open=models.open)
    packed = {**llama(), "model.layers.0.mlp.up_proj.weight": ((16, 8), "U8")}
    models = Shelf()
    for name in ("a", "b", "base"):
        models.add(name, packed, llama_config())
    with pytest.raises(CheckpointError, match="stored as U8, a quantised or packed form"):
        make_plan(ties(), open=models.open)


def test_tied_heads():
    tied = llama_config(tie_word_embeddings=True)
    models = Shelf()
    for name in ("a", "b", "base"):
        models.add(name, llama(tied=True), tied)
    assert "lm_head.weight" not in jobs_of(make_plan(ties(), open=models.open))
    models.add("b", llama(), tied)
    plan = make_plan(ties(), open=models.open)
    assert "lm_head.weight" not in jobs_of(plan) and any("left out" in note for note in plan.notes)
    for name in ("a", "b", "base"):
        models.add(name, llama(), tied)
    plan = make_plan(ties(), open=models.open)
    assert "lm_head.weight" not in jobs_of(plan) and any("stored once" in note for note in plan.notes)


def test_a_head_of_its_own_is_kept():
    models = Shelf().add("base", llama(tied=True), llama_config(tie_word_embeddings=True))
    models.add("a", llama(tied=True), llama_config(tie_word_embeddings=True)).add(
        "b", llama(), llama_config()
    )
    plan = make_plan(ties(), open=models.open)
    head = jobs_of(plan)["lm_head.weight"]
    table = "model.embed_tokens.weight"
    assert head.base == Source(0, table) and head.sources == (Source(1, table), Source(2, "lm_head.weight"))
    assert plan.config == {"tie_word_embeddings": False}
    plan = make_plan(ties(base="b", models=["a", "base"]), open=models.open)
    assert jobs_of(plan)["lm_head.weight"].sources == (Source(1, table), Source(2, table))
    assert plan.config == {}


def test_prefixes_that_some_lack():
    bare = {"embeddings.word_embeddings.weight": (9, 4), "encoder.layer.0.output.dense.weight": (4, 4)}
    whole = {f"bert.{name}": shape for name, shape in bare.items()}
    config = {"model_type": "bert", "num_hidden_layers": 1}
    models = Shelf().add("base", bare, config).add("a", whole, config).add("b", bare, config)
    jobs = jobs_of(make_plan(ties(), open=models.open))
    assert set(jobs) == set(bare)
    assert [one.tensor for one in jobs["embeddings.word_embeddings.weight"].sources] == [
        "bert.embeddings.word_embeddings.weight",
        "embeddings.word_embeddings.weight",
    ]
    jobs = jobs_of(make_plan(ties(base="a", models=["base", "b"]), open=models.open))
    assert set(jobs) == set(whole)


def test_donors_and_bases_of_methods_on_weights():
    recipe = Recipe(method="linear", base="base", models=["a", "b"])
    plan = make_plan(recipe, open=shelf("a", "b", "base").open)
    assert plan.donor == 0 and plan.jobs[0].base is None and len(plan.jobs[0].sources) == 2
    plan = make_plan(Recipe(method="free", models=["b", "a"]), open=shelf("a", "b").open)
    assert str(plan.models[plan.donor].ref) == "b" and plan.jobs[0].base is None
    plan = make_plan(Recipe(method="free", base="a", models=["b"]), open=shelf("a", "b").open)
    assert plan.jobs[0].base == Source(0, plan.jobs[0].name)


def test_tokens_that_differ_in_content(tmp_path):
    models = Shelf()
    words = {"base": ["x", "y", "z"], "a": ["x", "y", "z"], "b": ["x", "z", "y"]}
    for name, listed in words.items():
        (tmp_path / name).mkdir()
        vocabulary = {"model": {"vocab": {word: row for row, word in enumerate(listed)}}, "added_tokens": []}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        models.add(name, llama(), llama_config(), folder=tmp_path / name)
    assert make_plan(ties("a"), open=models.open).jobs
    with pytest.raises(
        ConfigError, match="Row 1 of the embeddings is 'z' in b and 'y' in base, and 2 rows differ"
    ):
        make_plan(ties(), open=models.open)


def test_where_the_result_goes(tmp_path):
    models = shelf("a", "b", "base")
    models.models["a"].folder = tmp_path / "a"
    (tmp_path / "a").mkdir()
    plan = make_plan(ties(), open=models.open)
    check_output(plan, tmp_path / "new")
    with pytest.raises(OutputError, match="is the model a that is merged"):
        check_output(plan, tmp_path / "a")
    (tmp_path / "old").mkdir()
    check_output(plan, tmp_path / "old")
    (tmp_path / "old" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="not an empty folder"):
        check_output(plan, tmp_path / "old")
    huge = Shelf()
    for name in ("a", "b", "base"):
        huge.add(name, {"w": (1 << 30, 1 << 20)})
    with pytest.raises(OutputError, match="free; make room"):
        check_output(make_plan(ties(), open=huge.open), tmp_path / "new")


def test_fifty_thousand_tensors_are_planned_in_seconds():
    shapes = {
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight": (4, 4)
        for layer in range(60)
        for expert in range(280)
        for part in ("gate", "up", "down")
    }
    models = Shelf()
    for name in ("base", "a", "b"):
        models.add(name, shapes, {"model_type": "deepseek_v3", "num_hidden_layers": 60})
    recipe = ties(
        "a", {"model": "b", "options": {"weight": [{"filter": "gate", "value": 0.2}, {"value": [0, 1]}]}}
    )
    start = time.process_time()
    plan = make_plan(recipe, open=models.open)
    assert len(plan.jobs) == 50_400 and time.process_time() - start < 10


def test_one_model_under_two_names_is_refused():
    models = shelf("a", "base").add("./a", llama(), llama_config(), files=(Path("a/model.safetensors"),))
    with pytest.raises(ConfigError, match=r"\./a and a are the same files"):
        make_plan(ties("a", "./a"), open=models.open)
