"""Make `mergekit_parameters.json`: what mergekit 0.1.5 makes of options, gradients, filters and slices.

Run with a Python that has mergekit: `python tests/reference/make_mergekit_parameters.py`. Every model is a small LLaMA
whose entries all have one value, so that the merged value of a tensor shows which options it was merged with.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

MODELS = {"zero": (0.0, 5), "ones": (1.0, 5), "two": (2.0, 5), "four": (4.0, 5), "long": (3.0, 7)}
CASES = {
    "gradient": "{merge_method: passthrough, models: [{model: ones, parameters: {scale: [0, 0.5, 2]}}]}",
    "gradient.one": "{merge_method: passthrough, models: [{model: ones, parameters: {scale: [0.25]}}]}",
    "gradient.four": "{merge_method: passthrough, models: [{model: long, parameters: {scale: [1, 0.1, 0.7, 3]}}]}",
    "slices.gradient": """
        merge_method: passthrough
        slices:
        - sources: [{model: ones, layer_range: [0, 2], parameters: {scale: [0.1, 0.9]}}]
        - sources: [{model: long, layer_range: [3, 6], parameters: {scale: [0, 1]}}]
        """,
    "slices.global_gradient": """
        merge_method: passthrough
        slices:
        - sources: [{model: ones, layer_range: [0, 2]}]
        - sources: [{model: ones, layer_range: [1, 4]}]
        parameters: {scale: [0, 1]}
        """,
    "slices.single": """
        merge_method: passthrough
        slices: [{sources: [{model: ones, layer_range: [0, 1], parameters: {scale: [0.1, 0.4]}}]}]
        """,
    "slices.ends": """
        merge_method: passthrough
        slices: [{sources: [{model: long, layer_range: [0, 1]}]}, {sources: [{model: ones, layer_range: [1, 2]}]}]
        """,
    "slices.base_unused": """
        merge_method: passthrough
        base_model: two
        slices: [{sources: [{model: ones, layer_range: [1, 3]}]}, {sources: [{model: four, layer_range: [0, 1]}]}]
        """,
    "filters": """
        merge_method: passthrough
        models:
        - model: ones
          parameters: {scale: [{filter: q_proj, value: [0, 1]}, {filter: layers.1., value: 7}]}
        parameters: {scale: [{filter: "*", value: 5}]}
        """,
    "filters.first_wins": """
        merge_method: passthrough
        models: [{model: ones, parameters: {scale: [{value: 3}, {filter: q_proj, value: 9}]}}]
        """,
    "filters.some": """
        merge_method: passthrough
        models: [{model: ones, parameters: {scale: [{filter: q_proj, value: 9}]}}]
        """,
    "filters.own_names": """
        merge_method: linear
        slices: [{sources: [{model: ones, layer_range: [1, 2]}, {model: two, layer_range: [3, 4]}]}]
        parameters:
          normalize: false
          weight: [{filter: layers.1., value: 10}, {filter: layers.3., value: 1000}, {value: 0}]
        """,
    "filters.names_of_the_result": """
        merge_method: slerp
        base_model: two
        slices:
        - sources: [{model: ones, layer_range: [1, 3]}, {model: two, layer_range: [2, 4]}]
        - sources: [{model: ones, layer_range: [0, 1]}, {model: two, layer_range: [0, 1]}]
        parameters:
          t: [{filter: layers.0., value: 0}, {filter: layers.1., value: 0.2}, {value: 0.7}]
        """,
    "precedence": """
        merge_method: passthrough
        slices:
        - sources: [{model: ones, layer_range: [0, 2], parameters: {scale: [{filter: q_proj, value: 2}]}}]
          parameters: {scale: [{filter: gate_proj, value: 3}]}
        - sources: [{model: ones, layer_range: [2, 3]}]
        parameters: {scale: 5}
        """,
    "linear.sizes": """
        merge_method: linear
        slices:
        - sources:
          - {model: long, layer_range: [0, 2], parameters: {weight: 1}}
          - {model: ones, layer_range: [3, 5], parameters: {weight: [0, 1]}}
        parameters: {normalize: false}
        """,
    "linear.base_joins": """
        merge_method: linear
        base_model: four
        models: [{model: ones}, {model: two}]
        parameters: {weight: 1, normalize: false}
        """,
    "linear.base_listed": """
        merge_method: linear
        base_model: four
        models: [{model: ones, parameters: {weight: 1}}, {model: four, parameters: {weight: 10}}]
        parameters: {normalize: false}
        """,
    "linear.base_in_slices": """
        merge_method: linear
        base_model: two
        slices: [{sources: [{model: ones, layer_range: [1, 3]}, {model: four, layer_range: [1, 3]}]}]
        parameters: {weight: 1, normalize: false}
        """,
    "linear.normalized": """
        merge_method: linear
        models: [{model: ones, parameters: {weight: [1, 3]}}, {model: four, parameters: {weight: 1}}]
        """,
    "slerp.base_second": """
        merge_method: slerp
        base_model: two
        models: [{model: ones}, {model: two}]
        parameters: {t: 0.25}
        """,
    "slerp.base_not_listed": "{merge_method: slerp, base_model: two, models: [{model: ones}], parameters: {t: 0.25}}",
    "slerp.recipe": """
        merge_method: slerp
        base_model: two
        slices: [{sources: [{model: ones, layer_range: [0, 5]}, {model: two, layer_range: [0, 5]}]}]
        parameters:
          t:
          - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
          - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
          - value: 0.5
        """,
    "task_arithmetic.lambda": """
        merge_method: task_arithmetic
        base_model: ones
        models: [{model: ones, parameters: {weight: 100}}, {model: two, parameters: {weight: 3}}]
        parameters: {lambda: [0, 1]}
        """,
    "task_arithmetic.slices": """
        merge_method: task_arithmetic
        base_model: ones
        slices:
        - sources: [{model: four, layer_range: [0, 2]}, {model: ones, layer_range: [1, 3]}]
        - sources: [{model: two, layer_range: [2, 3], parameters: {weight: 0.5}}, {model: ones, layer_range: [2, 3]}]
        parameters: {weight: 1}
        """,
}
SHOWN = ("embed_tokens", "model.norm", "lm_head", "q_proj", "gate_proj", "input_layernorm")


def make_models(folder: Path) -> None:
    """Write every model of `MODELS`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    for name, (value, layers) in MODELS.items():
        config = LlamaConfig(
            vocab_size=32,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
        model = LlamaForCausalLM(config)
        for parameter in model.parameters():
            parameter.data.fill_(value)
        model.save_pretrained(folder / name)


def merged(text: str, folder: Path) -> dict[str, float]:
    """Run mergekit on one case, and give a value for each tensor that is shown."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    for name in MODELS:
        text = text.replace(f"model: {name}", f"model: {folder / name}")
    config = MergeConfiguration.model_validate({**yaml.safe_load(text), "dtype": "float32"})
    with tempfile.TemporaryDirectory() as out:
        run_merge(config, out, MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False))
        tensors = {
            name: one for file in Path(out).glob("*.safetensors") for name, one in load_file(file).items()
        }
    return {
        name: round(float(one.flatten()[0]), 5)
        for name, one in sorted(tensors.items())
        if any(part in name for part in SHOWN)
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        make_models(Path(place))
        results = {name: merged(text, Path(place)) for name, text in CASES.items()}
    file = Path(__file__).with_name("mergekit_parameters.json")
    made = {"made_by": "mergekit 0.1.5", "models": MODELS, "cases": CASES, "results": results}
    file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
