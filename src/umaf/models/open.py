"""Open a model and its tokenizer, or say in one sentence why not."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from umaf.errors import ModelError
from umaf.models.architectures import FAMILIES, family_of
from umaf.models.hub import hub_answers
from umaf.models.locate import adapter_base, check_folder, explain, locate
from umaf.models.model import Head, Model, bare
from umaf.models.quiet import quiet
from umaf.models.tokenizer import open_tokenizer
from umaf.seeds import derive

Ask = Literal["auto", Head]

_AUTO: dict[Head, Any] = {
    "lm": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classifier": AutoModelForSequenceClassification,
    "base": AutoModel,
}
# Endings of the class a checkpoint was saved from, first match wins.
_ENDINGS: tuple[tuple[str, Head], ...] = (
    ("ForSequenceClassification", "classifier"),
    ("ForConditionalGeneration", "seq2seq"),
    ("WithLMHeadModel", "seq2seq"),
    ("ForCausalLM", "lm"),
    ("LMHeadModel", "lm"),
    ("ForMaskedLM", "masked"),
    ("ForPreTraining", "masked"),
)
_LANGUAGE: dict[str, Head] = {"decoder": "lm", "encoder": "masked", "encoder-decoder": "seq2seq"}


def open_model(
    name: str | Path,
    *,
    head: Ask = "auto",
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Model:
    """Opens a model with its tokenizer, in evaluation mode.

    Args:
        name: a hub id, a folder, ``zoo:<name>``, or a local PEFT adapter, which is merged into its base.
        head: "auto" takes the head the checkpoint was saved with; "lm" takes the language model's head.
        device: where to put it, as torch names devices.
        dtype: type of the weights, as torch names it.
        trust_remote_code: run the code that comes with the checkpoint.
        allow_pickle: read pickled weights, which can run code.

    Returns:
        The model.

    Raises:
        ModelError: unknown, gated, unreachable, corrupt, pickled, without a fast tokenizer, without
            weights for the head, with NaN in its weights, or without hidden states.

    Example:
        >>> open_model("no/such/folder")
        Traceback (most recent call last):
        umaf.errors.ModelError: The model "no/such/folder" was asked for, but there is no such folder; check the path.
    """
    if head not in get_args(Ask):
        raise ModelError(f'A head "{head}" was asked for; choose one of {", ".join(get_args(Ask))}.')
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ModelError(
            f'The dtype "{dtype}" was asked for, but torch has none; use float32, bfloat16 or float16.'
        )
    place = locate(name)
    base = adapter_base(place)
    if base is not None:
        options = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle}
        model = open_model(base, head=head, device=device, dtype=dtype, **options)
        return _merged(model, place, str(name))
    check_folder(place, allow_pickle=allow_pickle)
    # What was fetched before can be opened without the hub.
    source = {"trust_remote_code": trust_remote_code}
    source["local_files_only"] = not Path(place).is_dir() and not hub_answers()
    with quiet():
        net, found = _load(place, head, kind, source, allow_pickle)
        tokenizer = open_tokenizer(place, size=net.config.vocab_size, **source)
    if getattr(net.config, "pad_token_id", None) is None:
        net.config.pad_token_id = tokenizer.pad_token_id
    return Model(
        net=net.to(device).eval(), tokenizer=tokenizer, name=str(name), family=family_of(net), head=found
    )


def fresh_classifier(model: Model, labels: Sequence[str], *, seed: int = 0) -> Model:
    """Puts a new classification head on a model, for fine-tuning.

    Args:
        model: a model with any head or none; its body is copied.
        labels: the classes, in the order of the logits.
        seed: of the new head's weights.

    Returns:
        A new model with head "classifier"; the head is random, the body is the given model's.

    Raises:
        ModelError: the architecture has no classifier in ``transformers``.
    """
    config = copy.deepcopy(model.config)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    body = bare(model.net)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "classifier head", *labels))
        try:
            net = AutoModelForSequenceClassification.from_config(config)
        except ValueError as error:
            raise ModelError(
                f'The model "{model.name}" ({config.model_type}) cannot get a classifier head.'
            ) from error
    # Some bodies hold their language head themselves (T5): the classifier's body says what it wants.
    state, wanted = body.base_model.state_dict(), net.base_model.state_dict()
    state = {key: value for key, value in state.items() if key in wanted and "pooler" not in key}
    lost = [
        key for key in net.base_model.load_state_dict(state, strict=False).missing_keys if "pooler" not in key
    ]
    if lost:
        raise ModelError(f'The body of "{model.name}" does not fit its own classifier: "{lost[0]}" differs.')
    net = net.to(device=model.device, dtype=body.dtype).eval()
    return replace(model, net=net, head="classifier", name=f"{model.name}+classifier")


def _load(
    place: str, ask: Ask, dtype: torch.dtype, source: dict[str, bool], allow_pickle: bool
) -> tuple[Any, Head]:
    """Reads configuration and weights, and refuses what cannot be used."""
    try:
        config = AutoConfig.from_pretrained(place, **source)
        head = _head(config, ask)
        net, report = _AUTO[head].from_pretrained(
            place,
            config=config,
            dtype=dtype,
            use_safetensors=not allow_pickle or None,
            output_loading_info=True,
            **source,
        )
    except Exception as error:  # every library below has its own tree; the user gets one sentence
        raise explain(place, error) from error
    _check_loaded(net, place, head, report["missing_keys"])
    return net, head


def _head(config: Any, ask: Ask) -> Head:
    """Chooses the head from what was asked and what the checkpoint was saved from."""
    family = FAMILIES.get(config.model_type)
    saved = (config.architectures or [""])[0]
    if ask == "lm":
        kind = family.kind if family else ("encoder-decoder" if config.is_encoder_decoder else "decoder")
        return _LANGUAGE[kind]
    if ask == "auto":
        matches: list[Head] = [head for ending, head in _ENDINGS if saved.endswith(ending)]
        return matches[0] if matches else "base"
    return ask


def _check_loaded(net: Any, place: str, head: Head, missing: Sequence[str]) -> None:
    """Refuses random heads, damaged numbers and models without hidden states of text."""
    # An encoder saved with a language head has no pooler; umaf never reads it, so it becomes zero
    # instead of random and the weights' hash stays the same in every process.
    for key in (key for key in missing if "pooler" in key):
        nn.init.zeros_(net.get_parameter(key))
    lost = sorted(key for key in missing if "pooler" not in key)
    if lost:
        raise ModelError(
            f'The model "{place}" was opened with the head "{head}", but its file has no weights for "{lost[0]}"'
            f"{f' and {len(lost) - 1} more' if len(lost) > 1 else ''}; open it with another head."
        )
    if getattr(net, "main_input_name", "input_ids") != "input_ids":
        raise ModelError(
            f'The model "{place}" ({net.config.model_type}) reads {net.main_input_name} instead of text, so it has '
            "no usable hidden states; give a language model or a text encoder."
        )
    family = family_of(net)
    try:
        layers = net.base_model.get_submodule(family.layers[0])
    except AttributeError:
        layers = None
    if not isinstance(layers, nn.ModuleList) or len(layers) == 0 or not hasattr(net.config, "hidden_size"):
        raise ModelError(
            f'The model "{place}" ({net.config.model_type}) has no layers at "{family.layers[0]}", so it has no usable '
            "hidden states; describe it with an entry point in the group umaf.architectures."
        )
    for key, parameter in net.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelError(
                f'The weights of "{place}" hold NaN or infinity in "{key}"; use an undamaged copy.'
            )


def _merged(model: Model, folder: str, name: str) -> Model:
    """Loads a PEFT adapter on its base and adds it into the weights."""
    with quiet():
        try:
            net = PeftModel.from_pretrained(model.net, folder).merge_and_unload()
        except Exception as error:
            raise ModelError(
                f'The adapter "{folder}" does not fit its base "{model.name}" ({" ".join(str(error).split())[:160]}).'
            ) from error
    return replace(model, net=net.eval(), name=name)
