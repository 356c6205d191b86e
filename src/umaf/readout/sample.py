"""Text that a model goes on with, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList

from umaf import seeds
from umaf.errors import ConfigError
from umaf.models import Model, bare
from umaf.models.quiet import quiet
from umaf.readout.encode import Encoded, encode
from umaf.readout.generate import alike, check_writes, line_ends, room_for, to_the_left


def samples(
    model: Model,
    texts: Sequence[str],
    *,
    count: int = 1,
    max_new_tokens: int = 24,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    truncate: bool = False,
) -> list[list[str]]:
    """Let a model go on with texts, up to the end of the line, drawing every token.

    Args:
        model: with the head "lm" or "seq2seq"; an adapter around it stays active.
        texts: openings, without a cue.
        count: how many continuations of each.
        max_new_tokens: longest continuation.
        temperature: divides the logits; 1 draws from the model's own distribution.
        seed: of the draws.
        batch_size: continuations written at once.
        truncate: cut texts that leave no room for the continuation.

    Returns:
        Per text, `count` continuations as they follow the text, white space at their beginning included. One
        that ends its line ends with a newline; one that was stopped ends with its last whole word.

    Raises:
        TaskError: the head does not write. ProbeError: a text does not fit.
        ConfigError: a temperature or a count that is not above 0.

    Example:
        >>> samples(model, ["Once upon a time"], count=2)  # doctest: +SKIP
        [[' there was a girl', ' in a town']]
    """
    check_writes(model)
    if not temperature > 0 or count < 1:
        raise ConfigError(
            f"Continuations need a temperature and a count above 0, got {temperature:g} and {count}; "
            "1 draws from the model's own distribution."
        )
    limit = room_for(model, max_new_tokens)
    batch = encode(model, texts, max_length=limit, truncate=truncate)
    found: list[list[str]] = [[] for _ in texts]
    for rows in alike(model, batch, max(1, batch_size // count)):
        drawn = _draw(model, batch.take(rows), count, max_new_tokens, temperature, seed)
        for place, row in enumerate(rows.tolist()):
            found[row] = drawn[place * count : (place + 1) * count]
    return found


def _draw(
    model: Model, batch: Encoded, count: int, max_new_tokens: int, temperature: float, seed: int
) -> list[str]:
    """Draw continuations of one batch, `count` of a text in a row."""
    ids, mask = to_the_left(model, batch) if model.head == "lm" else (batch.ids, batch.mask)
    ends, tokenizer = line_ends(model), model.tokenizer

    def line_ended(tokens: torch.Tensor, _scores: object, **_more: object) -> torch.Tensor:
        return torch.isin(tokens[:, -1], ends)

    config = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        num_return_sequences=count,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    net: Any = bare(model.net)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), quiet(), torch.inference_mode():
        # By what is read, not by its place, so that neither order nor batch size of other texts matters to a batch.
        torch.manual_seed(seeds.derive(seed, "samples", *map(str, batch.ids.flatten().tolist())) % 2**63)
        out = net.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([line_ended]),
        )
    if model.head != "lm":
        return [_whole(text, max_new_tokens, tokens) for text, tokens in _decoded(model, out[:, 1:])]
    # Decoded with the text before them, because many tokenizers drop the space of a first word.
    before = [text for text, _ in _decoded(model, ids)]
    after = _decoded(model, out)
    return [
        _whole(text[len(before[place // count]) :], max_new_tokens, tokens - int(mask[place // count].sum()))
        for place, (text, tokens) in enumerate(after)
    ]


def _decoded(model: Model, ids: torch.Tensor) -> list[tuple[str, int]]:
    """Texts with their numbers of tokens; padding counts for neither."""
    texts = model.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    counts = (ids != model.tokenizer.pad_token_id).sum(1).tolist()
    return list(zip(texts, counts, strict=True))


def _whole(text: str, most: int, tokens: int) -> str:
    """Keep the first line with its newline; of a line that was stopped, the whole words.

    Example:
        >>> _whole(" a day\\nand", 9, 4), _whole(" a long da", 4, 4)
        (' a day\\n', ' a long')
    """
    line, newline, _ = text.partition("\n")
    if newline or tokens < most:
        return line + newline
    return line.rpartition(" ")[0]
