"""Free answers: greedy continuations, the loss of given answers, and bits per byte of plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, StoppingCriteriaList

from umaf.errors import ProbeError, TaskError
from umaf.models import Model, bare
from umaf.models.quiet import quiet
from umaf.readout.encode import Encoded, encode, forward
from umaf.readout.verbaliser import answer_tokens


def continuations(
    model: Model,
    texts: Sequence[str],
    cue: str | None,
    *,
    max_new_tokens: int = 24,
    batch_size: int = 64,
    truncate: bool = False,
) -> list[str]:
    """Lets the model answer, always taking the likeliest token, up to the end of the line.

    Args:
        model: with the head "lm" or "seq2seq".
        texts: texts alone.
        cue: the word before the answer.
        max_new_tokens: longest answer.
        batch_size: texts per pass.
        truncate: cut texts that leave no room for the answer.

    Returns:
        One stripped answer per text, without its newline.

    Raises:
        TaskError: the head cannot continue a text. ProbeError: a text does not fit.
    """
    check_writes(model)
    room = room_for(model, max_new_tokens)
    batch = encode(model, texts, cue, max_length=room, truncate=truncate)
    ends = line_ends(model)
    answers = [""] * len(texts)
    for rows in alike(model, batch, batch_size):
        for row, answer in zip(
            rows.tolist(), _greedy(model, batch.take(rows), ends, max_new_tokens), strict=True
        ):
            answers[row] = answer
    return answers


def answer_logits(
    model: Model,
    texts: Sequence[str],
    answers: Sequence[str],
    cue: str | None,
    *,
    truncate: bool = False,
    ended: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits at every token of given answers and, behind a cue, of the end of their line; gradients flow.

    Args:
        model: with the head "lm" or "seq2seq".
        texts: texts alone.
        answers: one per text.
        cue: the word before the answer; None where the answer goes on with the text itself, and may go on further.
        truncate: cut texts that are too long.
        ended: whether the end of the answer's line is read too; behind a cue it is, unless this says otherwise.

    Returns:
        float32 ``[row, token of the vocabulary]`` and the target ids ``[row]``, text by text.

    Raises:
        TaskError: the head cannot answer. ProbeError: a text does not fit.
    """
    check_writes(model)
    closed = cue is not None if ended is None else ended
    targets = [answer_ids(model, answer, ended=closed) for answer in answers]
    longest = max(map(len, targets), default=0)
    room = model.window - longest if model.head == "lm" and model.window is not None else None
    batch = encode(model, texts, cue, max_length=room, truncate=truncate)
    flat = torch.tensor([token for target in targets for token in target], device=batch.ids.device)
    row = torch.tensor([i for i, target in enumerate(targets) for _ in target], device=batch.ids.device)
    step = torch.tensor([k for target in targets for k in range(len(target))], device=batch.ids.device)
    if model.head == "seq2seq":
        shifted = torch.full((len(batch), longest), model.tokenizer.pad_token_id, device=batch.ids.device)
        shifted[row, step] = flat
        start = torch.full_like(shifted[:, :1], model.config.decoder_start_token_id)
        inputs = torch.cat([start, shifted[:, :-1]], dim=1)
        return forward(model, batch, decoder_input_ids=inputs).logits[row, step].float(), flat
    joined = _append(model, batch, targets)
    return forward(model, joined).logits[row, batch.last[row] + step].float(), flat


def answer_loss(
    model: Model, texts: Sequence[str], answers: Sequence[str], cue: str | None, *, truncate: bool = False
) -> Tensor:
    """Mean cross-entropy over the answers' tokens; gradients flow.

    Args:
        model: with the head "lm" or "seq2seq".
        texts: texts alone.
        answers: one per text.
        cue: the word before the answer.
        truncate: cut texts that are too long.

    Returns:
        A number, in nats per token.
    """
    logits, targets = answer_logits(model, texts, answers, cue, truncate=truncate)
    return functional.cross_entropy(logits, targets)


def answer_ids(model: Model, answer: str, *, ended: bool = True) -> list[int]:
    """Tokens of `` answer`` and, where it is ended, of the end of its line (a newline, else the end token)."""
    if not ended:
        return answer_tokens(model.tokenizer, answer)
    tokens = answer_tokens(model.tokenizer, f"{answer}\n" if model.head == "lm" else answer)
    newline = model.head == "lm" and "\n" in model.tokenizer.decode(tokens[-1:])
    end = [] if newline or model.tokenizer.eos_token_id is None else [model.tokenizer.eos_token_id]
    return tokens + end


def bits_per_byte(
    model: Model, texts: Sequence[str], *, batch_size: int = 32, truncate: bool = False
) -> float:
    """How badly the model predicts plain text; lower is better, comparable between tokenizers.

    A decoder predicts every token after its first; an encoder-decoder reads the first half of the
    words and predicts the second. Bytes are those of the predicted part, in UTF-8.

    Args:
        model: with the head "lm" or "seq2seq".
        texts: plain texts of at least two tokens (words for seq2seq).
        batch_size: texts per pass.
        truncate: cut texts that are longer than the window.

    Returns:
        Bits per byte.

    Raises:
        TaskError: the head does not predict text. ProbeError: texts too long or too short.
    """
    check_writes(model)
    nats, size = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            part = texts[start : start + batch_size]
            read = _second_half if model.head == "seq2seq" else _next_tokens
            loss, count = read(model, part, truncate)
            nats, size = nats + loss, size + count
    if size == 0:
        raise ProbeError(
            "Bits per byte need texts of at least two tokens, and there are none; give longer texts."
        )
    return nats / math.log(2) / size


def _next_tokens(model: Model, texts: Sequence[str], truncate: bool) -> tuple[float, int]:
    batch = encode(model, texts, truncate=truncate)
    logits = forward(model, batch).logits[:, :-1].float()
    keep = batch.mask[:, 1:].bool()
    loss = (
        functional.cross_entropy(logits[keep], batch.ids[:, 1:][keep], reduction="sum") if keep.any() else 0.0
    )
    size = 0
    for i, text in enumerate(texts):
        spans = model.tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        used = spans[: int(batch.mask[i].sum())]
        size += len(text[used[0][1] : max(end for _, end in used)].encode("utf-8"))
    return float(loss), size


def _second_half(model: Model, texts: Sequence[str], truncate: bool) -> tuple[float, int]:
    words = [text.split() for text in texts]
    pairs = [(" ".join(w[: len(w) // 2]), " ".join(w[len(w) // 2 :])) for w in words if len(w) > 1]
    if not pairs:
        return 0.0, 0
    first, second = zip(*pairs, strict=True)
    logits, targets = answer_logits(model, first, second, None, truncate=truncate)
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    return float(loss), sum(len(half.encode("utf-8")) for half in second)


def room_for(model: Model, max_new_tokens: int) -> int | None:
    """Give the longest text after which so many tokens can be written; None where nothing limits it.

    Raises:
        ProbeError: the model's window has no room for them alone.
    """
    if model.head != "lm" or model.window is None:
        return None
    if model.window <= max_new_tokens:
        raise ProbeError(
            f'Answers of {max_new_tokens} tokens were asked for, but "{model.name}" reads {model.window}; '
            "ask for fewer."
        )
    return model.window - max_new_tokens


def check_writes(model: Model) -> None:
    """Stop at a model whose head writes no text.

    Raises:
        TaskError: its head is not "lm" or "seq2seq".
    """
    if model.head not in ("lm", "seq2seq"):
        raise TaskError(
            f'Text was asked from "{model.name}", but its head ({model.head}) does not write; use a language model.'
        )


def alike(model: Model, batch: Encoded, batch_size: int) -> list[Tensor]:
    """Texts of near length together; of equal length where the model would read padding on the left."""
    lengths = batch.mask.sum(1)
    order = lengths.argsort(stable=True)
    if model.family.masked or model.head == "seq2seq":
        return list(order.split(batch_size))
    _, counts = torch.unique_consecutive(lengths[order], return_counts=True)
    return [rows for group in order.split(counts.tolist()) for rows in group.split(batch_size)]


def line_ends(model: Model) -> Tensor:
    """Ids of the tokens that end a line, in the spellings byte-level and byte-fallback vocabularies use."""
    vocabulary = model.tokenizer.get_vocab()
    ends = [i for token, i in vocabulary.items() if any(mark in token for mark in ("\n", "Ċ", "<0x0A>"))]
    return torch.tensor(sorted(ends), dtype=torch.long, device=model.device)


def _greedy(model: Model, batch: Encoded, ends: Tensor, max_new_tokens: int) -> list[str]:
    """One batch; decoders are padded on the left so that every text goes on at the same place."""
    ids, mask = to_the_left(model, batch) if model.head == "lm" else (batch.ids, batch.mask)
    eos = model.tokenizer.eos_token_id
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        pad_token_id=model.tokenizer.pad_token_id,
        eos_token_id=eos,
        bos_token_id=model.tokenizer.bos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )

    def line_ended(tokens: Tensor, _scores: object, **_more: object) -> Tensor:
        return torch.isin(tokens[:, -1], ends)

    net: Any = bare(model.net)
    with quiet(), torch.inference_mode():
        out = net.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([line_ended]),
        )
    new = out[:, ids.shape[1] :] if model.head == "lm" else out[:, 1:]
    texts = model.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [text.split("\n")[0].strip() for text in texts]


def to_the_left(model: Model, batch: Encoded) -> tuple[Tensor, Tensor]:
    """Move a batch's padding to the left, so that every text goes on at the same place: ids and mask."""
    ids, mask = torch.full_like(batch.ids, model.tokenizer.pad_token_id), torch.zeros_like(batch.mask)
    for i, length in enumerate(batch.mask.sum(1).tolist()):
        ids[i, -length:], mask[i, -length:] = batch.ids[i, :length], 1
    return ids, mask


def _append(model: Model, batch: Encoded, targets: Sequence[Sequence[int]]) -> Encoded:
    """Puts each answer right behind its prompt."""
    lengths = batch.mask.sum(1).tolist()
    rows = [batch.ids[i, :n].tolist() + list(targets[i]) for i, n in enumerate(lengths)]
    longest, pad = max(map(len, rows)), model.tokenizer.pad_token_id
    device = batch.ids.device
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return Encoded(ids, mask, batch.last, batch.cut)
