"""Experts inside a model that also sees: a vision tower in front of a language model, as in LLaVA (Liu et al., 2023).

A picture becomes a few tokens of the language model, and from there on everything is text. So experts live in the
language model's weights, whether they were trained on text or on questions about pictures.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, CLIPVisionConfig, LlavaConfig

from umaf.errors import ModelError
from umaf.models import Model, family_of
from umaf.models.locate import explain, locate
from umaf.models.quiet import quiet
from umaf.models.tokenizer import open_tokenizer


def with_eyes(
    language: Model,
    *,
    image_size: int,
    patch_size: int,
    channels: int = 3,
    width: int = 64,
    image_token: int | None = None,
) -> Model:
    """Put a fresh, small vision tower and projector in front of a language model, whose weights are shared.

    Args:
        language: a decoder with a language head; it stays as it is.
        image_size: height and width of pictures, in pixels.
        patch_size: height and width of what becomes one token.
        channels: of pictures.
        width: of the vision tower, two layers deep.
        image_token: the id that stands for a token of a picture; the end of text by default, which no text inside a
            prompt holds.

    Returns:
        A model of ``transformers``' LLaVA class: it takes ``pixel_values`` ``[picture, channel, height, width]``.

    Raises:
        ModelError: the model has no language head.
    """
    if language.head != "lm":
        raise ModelError(
            f'"{language.name}" (head {language.head}) cannot speak of pictures; give a decoder with a language head.'
        )
    text = copy.deepcopy(language.config)
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=image_size,
        patch_size=patch_size,
        num_channels=channels,
        projection_dim=width,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=language.tokenizer.eos_token_id if image_token is None else image_token,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(image_size // patch_size) ** 2,
    )
    config.pad_token_id = language.tokenizer.pad_token_id
    with quiet():
        net: Any = AutoModelForImageTextToText.from_config(config).to(language.device)
    net.model.language_model.load_state_dict(language.net.base_model.state_dict(), assign=True)
    net.lm_head.weight = language.net.get_output_embeddings().weight
    return replace(language, net=net.eval(), name=f"{language.name}+eyes", family=family_of(net))


def open_vision(name: str | Path, *, device: str = "cpu", dtype: str = "float32") -> Model:
    """Open a vision-language model whose language model experts can adapt.

    Args:
        name: a folder or hub id of a LLaVA-style model.
        device: where to put it.
        dtype: type of its weights, as torch names it.

    Raises:
        ModelError: it cannot be opened, or has no language model inside.
    """
    place = locate(name)
    try:
        with quiet():
            net: Any = AutoModelForImageTextToText.from_pretrained(place, dtype=getattr(torch, dtype))
            tokenizer = open_tokenizer(
                place, trust_remote_code=False, size=net.config.get_text_config().vocab_size
            )
    except Exception as error:  # every library below has its own tree; the user gets one sentence
        raise explain(place, error) from error
    model = Model(net.to(device).eval(), tokenizer, str(name), family_of(net), "lm")
    language_of(model)
    return model


def language_of(model: Model) -> Model:
    """Give the language model inside a vision-language model: the same modules under the names they have alone.

    An expert trained on the language model fits it by name and hash, as long as learning to see left the language
    model as it was; what is attached to it acts in the vision-language model too.

    Args:
        model: what `with_eyes` or `open_vision` gave.

    Raises:
        ModelError: there is no language model inside.
    """
    body = getattr(model.net.base_model, "language_model", None)
    if body is None:
        raise ModelError(
            f'"{model.name}" ({model.config.model_type}) has no language model inside; open one that sees.'
        )
    config = model.config.get_text_config()
    with quiet(), torch.device("meta"):
        shell: Any = AutoModelForCausalLM.from_config(config)
    setattr(shell, shell.base_model_prefix, body)
    shell.set_output_embeddings(model.net.get_output_embeddings())
    return replace(model, net=shell.eval(), name=f"{model.name}, its language model", family=family_of(shell))
