"""What headers and configs can tell before a weight is read: shapes, dtypes, vocabularies, configs, disk, folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umaf.checkpoints import check_place
from umaf.errors import CheckpointError, ConfigError, OutputError
from umaf.merging.planning.jobs import Job, Opened, Plan
from umaf.merging.planning.sources import Laid
from umaf.merging.recipes.recipe import Recipe

_FLOATS = {"F64", "F32", "F16", "BF16"}

_WRONG = {
    "model_type": "they are different architectures",
    "hidden_act": "activations differ",
    "hidden_activation": "activations differ",
    "activation_function": "activations differ",
    "num_attention_heads": "rows of the attention mean other heads",
    "n_head": "rows of the attention mean other heads",
    "num_key_value_heads": "rows of the attention mean other heads",
    "head_dim": "rows of the attention mean other heads",
    "rms_norm_eps": "norms differ",
    "layer_norm_eps": "norms differ",
    "layer_norm_epsilon": "norms differ",
    "norm_epsilon": "norms differ",
    "rope_theta": "positions are encoded differently",
    "rope_scaling": "positions are encoded differently",
    "partial_rotary_factor": "positions are encoded differently",
    "position_embedding_type": "positions are encoded differently",
    "sliding_window": "layers attend to different spans",
    "num_experts_per_tok": "other numbers of experts are used",
    "attn_logit_softcapping": "logits are capped differently",
    "final_logit_softcapping": "logits are capped differently",
    "query_pre_attn_scalar": "attention is scaled differently",
    "residual_multiplier": "residuals are scaled differently",
    "embedding_multiplier": "embeddings are scaled differently",
    "logits_scaling": "logits are scaled differently",
    "attention_multiplier": "attention is scaled differently",
}
"""Keys in which models must agree for the merged weights to mean anything, and why."""

_HARMLESS = ("max_position_embeddings", "n_positions", "bos_token_id", "eos_token_id", "pad_token_id")
"""Keys whose difference is worth a note: the donor's value holds."""

_SAME = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}
_UNSAID = {"rope_theta": 10_000.0}


def float_entry(dtype: str) -> bool:
    """Tell whether numbers of a dtype can be merged.

    Example:
        >>> float_entry("BF16"), float_entry("I64")
        (True, False)
    """
    return dtype in _FLOATS


def check_configs(models: Sequence[Laid], donor: Laid, recipe: Recipe) -> list[str]:
    """Compare every model's config with the donor's.

    Returns:
        Notes on differences that do no harm, or that the recipe allows.

    Raises:
        ConfigError: models differ in what would make the result wrong.
        CheckpointError: a model's weights are quantised.
    """
    notes = []
    for one in models:
        config = one.opened.checkpoint.config or {}
        if config.get("quantization_config"):
            raise CheckpointError(
                f"{one.name} is quantised ({_kind(config['quantization_config'])}), and its stored numbers cannot be "
                "averaged; take the model it was made from."
            )
    ours = settled(donor.opened.checkpoint.config)
    for one in models:
        theirs = settled(one.opened.checkpoint.config)
        if one is donor or not ours or not theirs:
            continue
        for key in (*_WRONG, *_HARMLESS):
            mine, other = ours.get(key, _UNSAID.get(key)), theirs.get(key, _UNSAID.get(key))
            said = (key in ours and key in theirs) or (key in _UNSAID and (key in ours or key in theirs))
            if not said or mine == other:
                continue
            if key in _WRONG and key not in recipe.allow and "*" not in recipe.allow:
                raise ConfigError(
                    f"{one.name} has {key} {other} and {donor.name} has {mine}, so {_WRONG[key]} and the result would "
                    f"be wrong; merge models that agree, or allow {key}."
                )
            notes.append(f"{key} is {mine} in {donor.name}, which holds, and {other} in {one.name}.")
    return notes


def _kind(config: Any) -> str:
    return (
        str(config.get("quant_method", "quantization_config")) if isinstance(config, Mapping) else str(config)
    )


def settled(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give a config with one spelling for what has several.

    Example:
        >>> settled({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "hidden_act": "swish"})
        {'hidden_act': 'silu', 'rope_theta': 500000.0, 'rope_scaling': None}
    """
    if config is None:
        return {}
    whole = {**config, **(config.get("text_config") or {})}
    if "model_type" in config:
        whole["model_type"] = config["model_type"]
    rope = whole.pop("rope_parameters", None)
    if isinstance(rope, Mapping) and not any(isinstance(one, Mapping) for one in rope.values()):
        rest = {key: one for key, one in rope.items() if key not in {"rope_theta", "rope_type", "type"}}
        kind = rope.get("rope_type", rope.get("type", "default"))
        whole["rope_theta"] = rope.get("rope_theta", whole.get("rope_theta", _UNSAID["rope_theta"]))
        whole["rope_scaling"] = None if kind == "default" else {"rope_type": kind, **rest}
    elif isinstance(rope, Mapping):
        whole["rope_scaling"] = rope
    elif isinstance(whole.get("rope_scaling"), Mapping):
        scaling = dict(whole["rope_scaling"])
        kind = scaling.pop("type", scaling.pop("rope_type", "default"))
        scaling.pop("rope_type", None)
        scaling.pop("rope_theta", None)
        whole["rope_scaling"] = None if kind == "default" else {"rope_type": kind, **scaling}
    for key in ("hidden_act", "hidden_activation", "activation_function"):
        if key in whole:
            whole[key] = _SAME.get(whole[key], whole[key])
    if isinstance(whole.get("rope_theta"), int):
        whole["rope_theta"] = float(whole["rope_theta"])
    return whole


def check_shapes(jobs: Sequence[Job], models: Sequence[Opened], recipe: Recipe) -> None:
    """Compare the shapes and dtypes of the sources of every job.

    Raises:
        CheckpointError: shapes differ, or numbers are stored in a way that cannot be merged.
    """
    for job in jobs:
        first = job.base or job.sources[0]
        own = models[first.model].checkpoint.entries[first.tensor]
        for source in job.sources:
            entry = models[source.model].checkpoint.entries[source.tensor]
            if entry.shape != own.shape:
                _wrong_shape(job, (first.model, own), (source.model, entry), (models, recipe))
            if float_entry(entry.dtype) != float_entry(own.dtype):
                raise CheckpointError(
                    f"{job.name} is stored as {entry.dtype} in {models[source.model].ref} and as {own.dtype} in "
                    f"{models[first.model].ref}; such numbers cannot be merged."
                )
        if not float_entry(own.dtype) and (
            job.role in {"matrix", "embedding", "head"} or own.dtype.startswith("F8")
        ):
            raise CheckpointError(
                f"{job.name} of {models[first.model].ref} is stored as {own.dtype}, a quantised or packed form that "
                "cannot be merged; take the model it was made from."
            )


def _wrong_shape(
    job: Job, own: tuple[int, Any], other: tuple[int, Any], at: tuple[Sequence[Opened], Recipe]
) -> None:
    models, recipe = at
    ours, theirs = models[own[0]].ref, models[other[0]].ref
    here, there = list(own[1].shape), list(other[1].shape)
    if job.vocabulary and here[1:] == there[1:]:
        if recipe.tokenizer is not None:
            return
        raise CheckpointError(
            f"{job.name} has {there[0]} tokens in {theirs} and {here[0]} in {ours}; bring the vocabularies together "
            "with tokenizer: {source: base} or tokenizer: {source: union}."
        )
    raise CheckpointError(
        f"{job.name} has the shape {there} in {theirs} and {here} in {ours}; only models of one size can be merged."
    )


def check_vocabularies(models: Sequence[Opened], donor: Laid) -> list[str]:
    """Compare the tokens of all models, where their folders hold a tokenizer.

    Returns:
        Notes on tokens that only some have.

    Raises:
        ConfigError: the same row means different tokens in two models.
    """
    own_file = _tokenizer_file(donor.opened)
    if own_file is None:
        return []
    notes, own = [], None
    for one in models:
        file = _tokenizer_file(one)
        if file is None or file == own_file or file.read_bytes() == own_file.read_bytes():
            continue
        own = own if own is not None else _tokens(own_file)
        other = _tokens(file)
        if not own or not other:
            continue
        by_row = {row: token for token, row in own[0].items()}
        moved = [token for token, row in other[0].items() if by_row.get(row, token) != token]
        if moved:
            raise ConfigError(
                f"Row {other[0][moved[0]]} of the embeddings is {moved[0]!r} in {one.ref} and "
                f"{by_row[other[0][moved[0]]]!r} in {donor.name}, and {len(moved)} rows differ in all; bring the "
                "vocabularies together with tokenizer: {source: base} or tokenizer: {source: union}."
            )
        if {**own[0], **own[1]} != {**other[0], **other[1]}:
            notes.append(
                f"{one.ref} and {donor.name} have different added tokens; those of {donor.name} hold."
            )
    return notes


def _tokenizer_file(model: Opened) -> Path | None:
    folder = Path(model.checkpoint.folder)
    for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
        if (folder / name).is_file() and model.checkpoint.config is not None:
            return folder / name
    return None


def _tokens(file: Path) -> tuple[dict[str, int], dict[str, int]] | None:
    """Give the plain tokens and the added tokens of a file, with their rows; None where it is of another kind."""
    try:
        if file.name == "vocab.txt":
            lines = file.read_text(encoding="utf-8").splitlines()
            return {token: row for row, token in enumerate(lines)}, {}
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{file} cannot be read ({problem}); mend or replace it.") from problem
    if file.name == "vocab.json":
        return dict(data), {}
    vocabulary = (data.get("model") or {}).get("vocab")
    added = {one["content"]: one["id"] for one in data.get("added_tokens") or []}
    if isinstance(vocabulary, list):
        plain = {one[0]: row for row, one in enumerate(vocabulary)}
    elif isinstance(vocabulary, dict):
        plain = vocabulary
    else:
        return None
    return {token: row for token, row in plain.items() if token not in added}, added


def check_output(plan: Plan, out: str | Path, *, resume: bool = False) -> None:
    """Check where a result is to go: a new or empty folder, not inside an input, with room for it.

    Args:
        plan: what will be written.
        out: the folder.
        resume: part of it may be there already, in the draft beside it.

    Raises:
        OutputError: the folder holds something, is a model of the merge, or the disk is too full.
    """
    out = Path(out).expanduser()
    for one in plan.models:
        folder = Path(one.checkpoint.folder)
        if folder.exists() and out.resolve() == folder.resolve():
            raise OutputError(
                f"{out} is the model {one.ref} that is merged; write the result somewhere else."
            )
    check_place(out)
    parent = next((one for one in (out, *out.absolute().parents) if one.is_dir()), None)
    if parent is None or resume:
        return
    free = shutil.disk_usage(parent).free
    if free < plan.bytes_written:
        raise OutputError(
            f"The result takes {_gigabytes(plan.bytes_written)}, and {parent} has {_gigabytes(free)} free; make room, "
            "or write it elsewhere."
        )


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e7 else f"{number / 1e3:.1f} kB"
