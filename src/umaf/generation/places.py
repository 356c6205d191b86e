"""Places in probes where two models of different tokenizers are compared, and what their modules do there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umaf.activations import align, token_ends
from umaf.errors import ProbeError
from umaf.generation.watch import watched
from umaf.models import Model, bare
from umaf.readout import Encoded, encode, prompt_of

ROWS = 20_000
"""Most token positions used; evenly spaced ones of the probes when there are more."""


@dataclass(frozen=True)
class Places:
    """Token positions of one model, as many as of the other it is paired with.

    Attributes:
        batch: the probes as the model reads them.
        text: which probe, ``[row]``, never decreasing.
        token: which token of it, ``[row]``.
    """

    batch: Encoded
    text: Tensor
    token: Tensor


def pair(
    source: Model, target: Model, texts: Sequence[str], cue: str | None = None, *, truncate: bool = False
) -> tuple[Places, Places]:
    """Pair the tokens of two models that have read the same characters.

    Args:
        source: one model.
        target: the other; each of its tokens gets at most one of the source's.
        texts: what both read.
        cue: as in `residual_shift`.
        truncate: cut texts that are longer than a window.

    Returns:
        Rows of the source's tokens and rows of the target's, in step.

    Raises:
        ProbeError: a text does not fit, or no tokens meet.
    """
    batches = [encode(model, texts, cue, truncate=truncate) for model in (source, target)]
    ends = [
        token_ends(model.tokenizer, [prompt_of(model, text, cue) for text in texts], _ids(batch))
        for model, batch in zip((source, target), batches, strict=True)
    ]
    rows = []
    for text, (theirs, own) in enumerate(zip(*ends, strict=True)):
        partners = dict(enumerate(align(theirs, own)))
        if cue is not None:
            partners[int(batches[1].last[text])] = _answers_at(source, batches[0], text)
        rows += [(text, partner, token) for token, partner in partners.items() if partner >= 0]
    if not rows:
        raise ProbeError(
            f'The tokens of "{source.name}" and "{target.name}" were to be paired on {len(texts)} probes, but none '
            "meet; give longer texts."
        )
    chosen = torch.linspace(0, len(rows) - 1, min(ROWS, len(rows)), dtype=torch.float64).round().long()
    text, partner, token = torch.tensor(rows)[chosen].T
    return Places(batches[0], text, partner), Places(batches[1], text, token)


def read(
    model: Model, places: Places, names: Sequence[str], *, batch_size: int = 64
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the inputs and outputs of modules of the stack that reads the text, at some places.

    Args:
        model: any opened model; an adapter around it stays active.
        places: where to read.
        names: modules by their full names.
        batch_size: probes per pass.

    Returns:
        Inputs and outputs by name, ``[row, hidden]`` float32 on the CPU. A module that gets its input by
        name has none.
    """
    inputs: dict[str, list[Tensor]] = {name: [] for name in names}
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, len(places.batch), batch_size):
        texts = range(start, min(start + batch_size, len(places.batch)))
        here = (places.text >= texts.start) & (places.text < texts.stop)
        if not here.any():
            continue
        text, token = places.text[here] - start, places.token[here]
        with watched(model, names) as seen:
            run(model, places.batch.take(texts))
        for name in names:
            for kept, value in zip((inputs[name], outputs[name]), seen[name], strict=True):
                if value is not None:
                    # Some modules see [text * token, hidden].
                    kept.append(value.reshape(len(texts), -1, value.shape[-1]).float().cpu()[text, token])
    return (
        {name: torch.cat(parts) for name, parts in inputs.items() if parts},
        {name: torch.cat(parts) for name, parts in outputs.items()},
    )


def run(model: Model, batch: Encoded) -> None:
    """Run the stack that reads the text, without a head."""
    net = bare(model.net)
    body = net.get_encoder() if model.kind == "encoder-decoder" else net.base_model
    with torch.no_grad():
        body(input_ids=batch.ids, attention_mask=batch.mask)


def _answers_at(model: Model, batch: Encoded, text: int) -> int:
    """Where a model's answer is read; encoders with a classifier read it at their first token."""
    return 0 if model.head == "classifier" and model.kind == "encoder" else int(batch.last[text])


def _ids(batch: Encoded) -> list[list[int]]:
    return [row[:length] for row, length in zip(batch.ids.tolist(), batch.mask.sum(1).tolist(), strict=True)]
