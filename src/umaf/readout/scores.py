"""How strongly a model answers with each of some labels."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from umaf.errors import TaskError
from umaf.models import Model, bare
from umaf.readout.encode import Encoded, encode, forward
from umaf.readout.verbaliser import label_tokens

TEMPERATURE = 20.0
"""Factor on cosines, the one sentence encoders are trained with (Reimers and Gurevych, 2019)."""


@dataclass(frozen=True)
class Readout:
    """What is read from a model for a set of labels; made once, on the model without an adapter.

    Attributes:
        labels: the labels, in the order of the columns.
        cue: the word before the answer.
        tokens: per label, the token read in the vocabulary, or the class of a classifier head.
        label_embeddings: ``[label, hidden]`` of unit length, for models without a head.
    """

    labels: tuple[str, ...]
    cue: str | None
    tokens: tuple[int, ...] = ()
    label_embeddings: Tensor | None = None


def make_readout(model: Model, labels: Sequence[str], cue: str | None) -> Readout:
    """Decides how the labels are read from this model.

    Args:
        model: any opened model; an adapter around it is off while label words are embedded.
        labels: label words; empty for all classes of a classifier head.
        cue: the word before the answer; classifier heads and bare models do not use it.

    Returns:
        The readout, good for the same model with and without adapters.

    Raises:
        TaskError: labels that are not the classifier's, share tokens, or a missing cue.
    """
    labels = tuple(labels)
    if model.head == "classifier":
        return Readout(labels or model.labels, cue, _classes(model, labels))
    if model.head == "base":
        with torch.no_grad(), _without_adapter(model):
            words = functional.normalize(pooled(model, encode(model, labels)), dim=-1)
        return Readout(labels, cue, label_embeddings=words)
    if not cue:
        raise TaskError(
            f'Labels are read after a cue, but none was given for "{model.name}"; name one, such as Answer.'
        )
    if model.head == "masked" and model.tokenizer.mask_token_id is None:
        raise TaskError(
            f'The tokenizer of "{model.name}" has no mask token; open the model without its head.'
        )
    return Readout(labels, cue, tuple(label_tokens(model.tokenizer, labels)))


def prepare(model: Model, texts: Sequence[str], readout: Readout, *, truncate: bool = False) -> Encoded:
    """Encodes texts for :func:`label_logits`.

    Args:
        model: the model that will read them.
        texts: texts alone, without a prompt.
        readout: gives the cue.
        truncate: cut texts that are too long.

    Returns:
        The batch.
    """
    return encode(model, texts, readout.cue, truncate=truncate)


def label_logits(model: Model, batch: Encoded, readout: Readout) -> Tensor:
    """Reads one number per label; gradients flow.

    Args:
        model: the model the readout was made for, or the same with an adapter in place of its net.
        batch: what :func:`prepare` gave.
        readout: what :func:`make_readout` gave.

    Returns:
        float32 ``[text, label]`` logits: of the labels' tokens after the prompt (lm, seq2seq) or at the
        mask (masked), of the classes, or 20 times the cosine to the label words (base).
    """
    if model.head == "base":
        if readout.label_embeddings is None:
            raise TaskError(
                f'The readout was made for a model with a head, but "{model.name}" has none; make a new one.'
            )
        texts = functional.normalize(pooled(model, batch), dim=-1)
        return TEMPERATURE * texts.float() @ readout.label_embeddings.float().T
    columns = torch.tensor(readout.tokens, device=batch.ids.device)
    return answer_position(model, batch)[:, columns].float()


def answer_position(model: Model, batch: Encoded) -> Tensor:
    """Logits where the answer starts; gradients flow.

    Args:
        model: a model with a head.
        batch: prompts, from :func:`umaf.readout.encode.encode`.

    Returns:
        ``[text, token of the vocabulary]``, or ``[text, class]`` for a classifier.
    """
    if model.head == "classifier":
        return forward(model, batch).logits
    if model.head == "seq2seq":
        start = torch.full_like(batch.ids[:, :1], model.config.decoder_start_token_id)
        return forward(model, batch, decoder_input_ids=start).logits[:, 0]
    rows, where, more = torch.arange(len(batch), device=batch.ids.device), batch.last, {}
    if "logits_to_keep" in inspect.signature(bare(model.net).forward).parameters:
        wanted, where = torch.unique(batch.last, return_inverse=True)
        more = {"logits_to_keep": wanted}
    with _choosing(bare(model.net).get_output_embeddings(), rows, where) as chosen:
        logits = forward(model, batch, **more).logits
    return logits[:, 0] if chosen else logits[rows, where]


def pooled(model: Model, batch: Encoded) -> Tensor:
    """Mean of the last hidden states over a text's tokens; gradients flow.

    Args:
        model: a model without a head; of an encoder-decoder the encoder is read.
        batch: texts, from :func:`umaf.readout.encode.encode`.

    Returns:
        ``[text, hidden]``.
    """
    net = bare(model.net).get_encoder() if model.kind == "encoder-decoder" else model.net
    hidden = net(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    mask = batch.mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


def label_scores(
    model: Model,
    texts: Sequence[str],
    labels: Sequence[str],
    cue: str | None,
    *,
    batch_size: int = 64,
    truncate: bool = False,
) -> Tensor:
    """Log-probabilities of the labels, for any kind of model.

    Args:
        model: any opened model.
        texts: texts alone.
        labels: label words.
        cue: the word before the answer.
        batch_size: texts per forward pass; texts of near length go together.
        truncate: cut texts that are too long.

    Returns:
        float32 ``[text, label]`` on the CPU; rows of probabilities add up to one.

    Raises:
        ProbeError: a text does not fit. TaskError: the labels cannot be read from this model.
    """
    readout = make_readout(model, labels, cue)
    batch = prepare(model, texts, readout, truncate=truncate)
    return encoded_label_scores(model, batch, readout, batch_size=batch_size)


def encoded_label_scores(model: Model, batch: Encoded, readout: Readout, *, batch_size: int = 64) -> Tensor:
    """Reads texts that :func:`prepare` encoded, as :func:`label_scores` does.

    Returns:
        float32 ``[text, label]`` log-probabilities on the CPU, in the order of the texts.
    """
    order = batch.mask.sum(1).argsort(stable=True)
    scores = torch.empty(len(batch), len(readout.labels))
    with torch.inference_mode():
        for rows in order.split(batch_size):
            scores[rows.cpu()] = label_logits(model, batch.take(rows), readout).log_softmax(-1).cpu()
    return scores


@contextmanager
def _choosing(head: Any, rows: Tensor, where: Tensor) -> Iterator[list[bool]]:
    """Lets a head see one position of each text, since its product with the vocabulary is dear; says if it did."""
    chosen: list[bool] = []
    own, count = threading.get_ident(), len(rows)

    def choose(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        # Another thread may run the same model meanwhile.
        if threading.get_ident() != own or not given or given[0].dim() != 3 or len(given[0]) != count:
            return None
        chosen.append(True)
        return (given[0][rows, where][:, None], *given[1:])

    handle = head.register_forward_pre_hook(choose) if isinstance(head, nn.Module) else None
    try:
        yield chosen
    finally:
        if handle is not None:
            handle.remove()


def _classes(model: Model, labels: tuple[str, ...]) -> tuple[int, ...]:
    """Which of the classifier's own classes each label is."""
    own = model.labels
    if not labels:
        return tuple(range(len(own)))
    low = [label.casefold() for label in own]
    if sorted(low) == sorted(label.casefold() for label in labels):
        return tuple(low.index(label.casefold()) for label in labels)
    unnamed = all(label.startswith("LABEL_") for label in own)
    if unnamed and len(labels) == len(own):
        return tuple(range(len(own)))
    raise TaskError(
        f'The labels {", ".join(labels)} were asked for, but the classifier "{model.name}" has {", ".join(own)}; '
        "use its own labels."
    )


def _without_adapter(model: Model):
    return model.net.disable_adapter() if isinstance(model.net, PeftModel) else nullcontext()
