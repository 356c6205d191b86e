"""Recipes as people write them for mergekit: they run as they are, or one sentence says what to change."""

from __future__ import annotations

import pytest

from tests.unit.merging import made_checkpoints as made
from tests.unit.merging.plan_models import shelf
from umaf.errors import ConfigError
from umaf.merging.planning.plan import make_plan
from umaf.merging.recipes.read import read_recipe, read_stages
from umaf.merging.recipes.reference import parse_ref
from umaf.merging.stages import merge

# Of mergekit's examples and manual, and of model cards; names and numbers of layers are shorter here.
RUN = {
    "examples/bio-merge": """
models:
  - model: a
    parameters:
      density: 0.5
      weight: 0.5
  - model: b
    parameters:
      density: 0.5
      weight: 0.5
merge_method: ties
base_model: base
parameters:
  normalize: false
  int8_mask: true
dtype: float16
""",
    "examples/gradient-slerp": """
slices:
  - sources:
      - model: a
        layer_range: [0, 5]
      - model: b
        layer_range: [0, 5]
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
  embed_slerp: true
dtype: float16
""",
    "examples/orcamini-platy-44layer": """
slices:
  - sources:
    - model: a
      layer_range: [0, 3]
  - sources:
    - model: b
      layer_range: [2, 5]
merge_method: passthrough
dtype: float16
""",
    "examples/ties": """
models:
  - model: a
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: c
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
    "a card: the base among the models, without parameters": """
models:
  - model: base
    # No parameters necessary for base model
  - model: a
    parameters: {density: 0.53, weight: 0.4}
  - model: b
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_ties
base_model: base
parameters:
  int8_mask: true
dtype: bfloat16
random_seed: 42
""",
    "a card: parts of layers silenced": """
slices:
  - sources:
      - {model: a, layer_range: [0, 4]}
  - sources:
      - model: a
        layer_range: [2, 5]
        parameters:
          scale:
            - {filter: o_proj, value: 0.0}
            - {filter: down_proj, value: 0.0}
            - {value: 1.0}
merge_method: passthrough
""",
    "a card: della": """
merge_method: della
base_model: base
models:
  - {model: a, parameters: {weight: 0.4, density: 0.6, epsilon: 0.2}}
  - {model: b, parameters: {weight: 0.6, density: 0.6}}
parameters: {normalize: false, int8_mask: true, lambda: 1.05, rescale: true}
""",
    "tables by name": """
merge_method: linear
models:
  - model: a
    parameters:
      weight: [{filter: embed_tokens, value: 0.7}, {filter: lm_head, value: 0.7}, {value: 0.5}]
  - {model: b, parameters: {weight: 0.5}}
tokenizer: null
chat_template: null
""",
}


@pytest.mark.parametrize("name", RUN)
def test_they_are_planned_as_they_are(name):
    plan = make_plan(read_recipe(RUN[name]), open=shelf("base", "a", "b", "c").open)
    assert plan.jobs and all(job.dtype in {"F16", "BF16"} for job in plan.jobs)


LINEAR = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
SLERP = "merge_method: slerp\nbase_model: %s\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.5}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n  density: 0.5",
            "line 5: An entry of models has no key 'density'; it belongs under its parameters.",
        ),
        (
            "merge_method: ties\nbase_model: base\nnormalize: true\nmodels: [{model: a}]",
            "line 3: A recipe has no key 'normalize'; it belongs under parameters.",
        ),
        (
            "merge_method: ties\nbase_model: base\nparameters: {dtype: bfloat16}\nmodels: [{model: a}]",
            "line 3: ties has no parameter 'dtype'; it is a key of the recipe itself, beside merge_method.",
        ),
        (
            "merge_method: passthrough\nslices:\n- sources:\n  - {model: a, revision: v0, layer_range: [0, 2]}",
            "line 4: A source has no key 'revision'; write model: a@v0.",
        ),
        (
            "merge_method: linear\nmodels:\n- {model: a, lora: b}",
            "line 3: An entry of models has no key 'lora'; write model: a+b.",
        ),
        (
            "base_model: a\ngate_mode: hidden\nexperts:\n- source_model: b",
            "line 2: gate_mode is of mergekit-moe, which makes a mixture of models; umaf merge makes none.",
        ),
        (
            "merge_method: moe\nbase_model: a\nexperts:\n- source_model: b",
            "line 3: experts is of mergekit-moe",
        ),
        (
            SLERP % "base",
            "slerp merges 2 models, got 3, the base (base) among them; take one of the others for it.",
        ),
        (
            LINEAR + "tokenizer_source: unoin",
            'line 4: The tokenizer is to come from unoin, which is none of the models. Did you mean "union"?',
        ),
        (
            LINEAR + "tokenizer: {tokens: {x: {source: c}}}",
            "line 4: The row of the token 'x' is to come from c, which is none of the models. It can be a, b.",
        ),
        (
            "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\nchat_template: chatlm",
            "line 4: There is no chat template 'chatlm'. Did you mean \"chatml\"?",
        ),
        (
            "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
            'chat_template: "{% for m in messages %}{{ m.content }}"',
            "line 4: The chat template is no Jinja (",
        ),
    ],
)
def test_one_sentence_says_what_to_change(text, said):
    with pytest.raises(ConfigError) as caught:
        read_stages(text + "\n")
    assert said in str(caught.value)


def test_templates_with_the_tags_of_transformers_are_templates():
    text = "{% for m in all %}{% if m %}{% break %}{% endif %}{% generation %}{{ m }}{% endgeneration %}{% endfor %}"
    recipe = {"umaf": 1, "method": "linear", "models": ["a", "b"], "chat_template": text}
    assert read_recipe(recipe).chat_template == text


def test_a_template_that_is_none_is_found_before_a_weight_is_read(tmp_path):
    folders = made.family(tmp_path)
    with pytest.raises(ConfigError, match="There is no chat template 'chatlm'"):
        merge(made.recipe(folders, "linear", chat_template="chatlm"), tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(one.name for one in folders)


def test_the_explicit_form_of_a_model_is_read():
    explicit = {"model": {"path": "org/a", "revision": "v1"}, "lora": {"path": "org/b", "revision": "v2"}}
    assert str(parse_ref(explicit)) == "org/a@v1+org/b@v2"
    assert str(parse_ref({"path": "org/a", "revision": "v1"})) == "org/a@v1"
    with pytest.raises(ConfigError, match="lora must be a path, or a mapping"):
        parse_ref({"model": "org/a", "lora": {"path": "org/b", "rank": 3}})


@pytest.mark.parametrize("method", ["linear", "multislerp", "nuslerp"])
@pytest.mark.parametrize("weights", [(1, -1), (0, 0)])
def test_weights_that_add_up_to_nothing_are_a_mistake(method, weights):
    models = [{"model": one, "options": {"weight": w}} for one, w in zip("ab", weights, strict=True)]
    recipe = read_recipe({"umaf": 1, "method": method, "models": models})
    with pytest.raises(ConfigError, match=rf"{method}: the weights of model\.\S+ add up to 0"):
        make_plan(recipe, open=shelf("a", "b").open)


def test_weights_of_changes_may_add_up_to_nothing():
    models = [{"model": one, "options": {"weight": w}} for one, w in (("a", 1), ("b", -1))]
    recipe = read_recipe({"umaf": 1, "method": "task_arithmetic", "base": "base", "models": models})
    assert make_plan(recipe, open=shelf("base", "a", "b").open).jobs
    models = [{"model": one, "options": {"weight": w}} for one, w in (("a", 1), ("b", -1))]
    recipe = read_recipe({"umaf": 1, "method": "linear", "models": models, "options": {"normalize": False}})
    assert make_plan(recipe, open=shelf("a", "b").open).jobs
