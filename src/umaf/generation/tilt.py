"""Tilt what a target writes of its own accord towards texts that a source calls by a label, without gradient descent.

Wanted is the target's own distribution, tilted: ``p_target(text) * p_source(label | text)^strength`` up to a constant.
No other distribution that diverges as little from the target's is liked as much (the optimum of KL-regularised reward:
Korbak et al., 2022). Three linear systems approximate it:

1. The target draws continuations of openings, the source judges each whole text, and what each token of the target's
   vocabulary adds to the judgement is a ridge regression of the judgements on the tokens that occur.
2. A tilt of the logits by these values is, in the metric of the target's own next-token distributions, nearest to one
   constant shift in front of the unembedding: one step of Gauss-Newton. Its length is what the divergence may cost.
3. That shift, carried back through the last norm, is regressed on the inputs of the last writer, a low-rank update.

So it moves the choice of words, not the train of thought: "not good" counts as "not" and "good".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from umaf import tensors
from umaf.activations import check_probes
from umaf.adapters import attach, lora_modules
from umaf.errors import ConfigError, NumericalError, ProbeError, TaskError
from umaf.generation.watch import watched
from umaf.models import Model, bare
from umaf.readout import encode, samples
from umaf.readout.encode import Encoded, forward
from umaf.readout.generate import answer_ids

BATCH = 64
TEXTS = 600
"""About how many texts the update is regressed on, at all their tokens."""
MEASURED = 128
"""About how many of them what it costs is measured on."""
SIGNS = 4
"""Random signs by which the slope of the last norm is measured, place by place."""
VALUE_RIDGE = 20.0
"""Occurrences that a token's value is shrunk by: one seen twenty times keeps half of its value."""
DAMPING = 1e-2
COST = 0.07
TINY = 1e-18


@dataclass(frozen=True)
class Drafts:
    """What a target writes of its own accord.

    Attributes:
        rows: continuations, opening by opening; those that cannot stand behind an opening as words left out.
        texts: every continuation behind its opening, in the same order.

    Example:
        >>> Drafts(((" good", " bad"),), ("it is good", "it is bad")).rows[0]
        (' good', ' bad')
    """

    rows: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]


def drafts(target: Model, openings: Sequence[str], *, draws: int = 16, seed: int = 0) -> Drafts:
    """Let a decoder go on with openings, drawing every token from its own distribution.

    Args:
        target: a decoder.
        openings: at least 16 beginnings of texts.
        draws: continuations of each.
        seed: of the draws.

    Raises:
        TaskError: the target is no decoder with a language head.
        ProbeError: openings that are too few, repeated or too long, or that the target does not go on with.
    """
    if target.head != "lm" or target.kind != "decoder":
        raise TaskError(
            f'The writing of "{target.name}" was to be tilted, but it is no decoder with a language head '
            f"({target.kind}, {target.head}); choose one that is."
        )
    check_probes(openings)
    drawn = samples(target, openings, count=draws, seed=seed)
    # One that goes on inside the opening's last word, or with nothing, cannot be put behind it as words.
    rows = tuple(tuple(dict.fromkeys(d for d in each if d[:1] == " " and d.strip())) for each in drawn)
    texts = tuple(
        opening + draft.rstrip() for opening, each in zip(openings, rows, strict=True) for draft in each
    )
    if len(texts) < len(openings):
        raise ProbeError(
            f'"{target.name}" went on with {len(openings)} openings only {len(texts)} times in words of their own; '
            "give openings that end with a whole word."
        )
    return Drafts(rows, texts)


def tilt(
    target: Model,
    written: Drafts,
    judged: Float[Tensor, " text"],
    *,
    cost: float = COST,
    away: bool = False,
    rank: int = 8,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Make an update of a decoder that lets it write more of what a judge of texts likes.

    Args:
        target: a decoder; left as it was.
        written: its own continuations, from `drafts`.
        judged: one number for each of `written.texts`, for instance a source's log-odds of a label.
        cost: how far to go: divergence from the target's own next-token distributions, in nats per token of its own
            texts; 0 changes nothing.
        away: write less of what the judge likes, instead of more.
        rank: of the update.

    Returns:
        The last writer's name -> (A [rank, in], B [out, rank]), float32, as every other adapter's factors.

    Raises:
        NumericalError: judgements that are NaN, infinite, or of another number than the texts.
        ConfigError: a cost below 0.

    Example:
        >>> own = drafts(decoder, openings)  # doctest: +SKIP
        >>> scores = label_scores(classifier, own.texts, (), None)  # doctest: +SKIP
        >>> list(tilt(decoder, own, scores[:, 0] - scores[:, 1]))  # doctest: +SKIP
        ['model.layers.4.mlp.down_proj']
    """
    if judged.shape != (len(written.texts),) or not torch.isfinite(judged).all():
        raise NumericalError(
            f"Judgements of {len(written.texts)} texts are needed, one finite number for each; found "
            f"{list(judged.shape)}, {int((~torch.isfinite(judged)).sum())} of them NaN or infinite; check the judge."
        )
    if not cost >= 0:
        raise ConfigError(
            f"A tilt was asked for at a cost of {cost:g} nats per token; give 0 or more, such as {COST:g}."
        )
    values = token_values(target, written.rows, judged)
    chosen = written.texts[:: max(1, len(written.texts) // TEXTS)]
    return _update(target, chosen, -values if away else values, cost=cost, rank=rank)


def token_values(
    target: Model, rows: Sequence[Sequence[str]], judged: Float[Tensor, " text"]
) -> Float[Tensor, " token"]:
    """Regress judgements of texts on the tokens that occur in them, each opening's texts against each other.

    Args:
        target: gives the vocabulary.
        rows: what was written, opening by opening.
        judged: one number for each draft, in the same order.

    Returns:
        What each token of the vocabulary adds, float64, in the judgements' units; 0 where it never occurred.
    """
    size = int(bare(target.net).get_output_embeddings().weight.shape[0])  # type: ignore[union-attr]
    seen = torch.zeros(len(judged), size, dtype=torch.float64)
    judged = judged.double().cpu()
    wanted, row = judged.clone(), 0
    for each in rows:
        if each:
            span = slice(row, row + len(each))
            wanted[span] = judged[span] - judged[span].mean()
        for draft in each:
            seen[row, answer_ids(target, draft.strip(), ended=False)] = 1
            row += 1
    used = seen.any(0)
    x = seen[:, used]
    gram = x.T @ x + VALUE_RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    values = torch.zeros(size, dtype=torch.float64)
    values[used] = torch.linalg.solve(gram, x.T @ wanted)
    return values


def _update(
    target: Model, texts: Sequence[str], tilts: Tensor, *, cost: float, rank: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Regress the shift of the last writer's output that tilts the logits on the writer's inputs."""
    batch = encode(target, texts, truncate=True)
    writer = _last_writer(target, batch)
    rows = torch.arange(len(batch)).split(BATCH)
    shift = _shift(target, batch, rows, tilts, cost)
    inputs, outputs = [], []
    for part in rows:
        x, gain = _gain(target, batch.take(part), writer)
        # Where the norm all but closes a channel, an endless shift would be asked for.
        floor = 1e-4 * gain.square().mean(-1, keepdim=True)
        inputs.append(x)
        outputs.append(shift * gain / (gain.square() + floor))
    x, y = torch.cat(inputs), torch.cat(outputs)
    delta = tensors.ridge(x, y, strength=DAMPING).T
    a, b = tensors.truncate_weighted(delta, x.T @ x / len(x), rank)
    factors = {writer: (a.float().contiguous(), b.float().contiguous())}
    few = encode(target, texts[:: max(1, len(texts) // MEASURED)], truncate=True)
    for _ in range(2 if bool(b.any()) else 0):
        # The divergence was taken to second order, and as if nothing but a norm followed the writer.
        a, b = factors[writer]
        factors = {
            writer: (a, b * (cost / max(divergence(attach(target, factors), target, few), TINY)) ** 0.5)
        }
    return factors


def divergence(model: Model, other: Model, batch: Encoded) -> float:
    """Mean divergence of one model's next-token distributions from another's, in nats per token of some texts."""
    total, count = 0.0, 0
    for rows in torch.arange(len(batch)).split(BATCH):
        chosen = batch.take(rows)
        with torch.inference_mode():
            p, q = (
                forward(one, chosen).logits[chosen.mask.bool()].double().log_softmax(-1)
                for one in (model, other)
            )
        total, count = total + float((p.exp() * (p - q)).sum()), count + len(p)
    return total / count


def _shift(
    target: Model, batch: Encoded, rows: Sequence[Tensor], tilts: Tensor, cost: float
) -> Float[Tensor, " hidden"]:
    """Find the one shift before the unembedding U whose logits are nearest to the tilt: F e = U^T H tilts.

    H = diag(p) - p p^T is the curvature of a next-token distribution, F = U^T H U; both are means over places. The
    shift's divergence is e^T F e / 2 to second order, and e is made as long as the cost allows.
    """
    u = cast(Any, bare(target.net).get_output_embeddings()).weight.detach().double().cpu()
    spread, wanted, count = torch.zeros(u.shape[1], u.shape[1]).double(), torch.zeros(u.shape[1]).double(), 0
    mean = torch.zeros(len(u)).double()
    for part in rows:
        chosen = batch.take(part)
        with torch.inference_mode():
            p = forward(target, chosen).logits[chosen.mask.bool()].double().softmax(-1).cpu()
        seen = p @ u
        spread -= seen.T @ seen
        wanted -= seen.T @ (p @ tilts)
        mean += p.sum(0)
        count += len(p)
    spread = (spread + u.T @ (mean[:, None] * u)) / count
    wanted = (wanted + u.T @ (mean * tilts)) / count
    damping = DAMPING * spread.diagonal().mean() * torch.eye(len(spread)).double()
    shift = torch.linalg.solve(spread + damping, wanted)
    length = shift @ spread @ shift / 2
    # A judge that likes all texts alike has nothing to say about any token.
    return shift * (cost / length).sqrt() if length > TINY else torch.zeros_like(shift)


def _gain(target: Model, batch: Encoded, writer: str) -> tuple[Tensor, Tensor]:
    """Inputs of the last writer, and the slope of what the unembedding sees by its output, [row, ...] float64.

    Behind the last writer come a sum and a norm, whose slope is all but diagonal: for random signs v, v * (J^T v) is
    the diagonal on average (Hutchinson, 1990).
    """
    head = cast(Any, bare(target.net).get_output_embeddings())
    caught: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    try:
        with watched(target, [writer], graph=True) as seen, torch.enable_grad():
            forward(target, batch)
    finally:
        handle.remove()
    x, output = seen[writer]
    draw = torch.Generator().manual_seed(0)
    gain = torch.zeros_like(output)
    for _ in range(SIGNS):
        signs = torch.randint(0, 2, output.shape, generator=draw).to(output) * 2 - 1
        slope = torch.autograd.grad(
            (caught[0].reshape(output.shape) * signs).sum(), output, retain_graph=True
        )[0]
        gain = gain + signs * slope / SIGNS
    keep = batch.mask.bool().flatten()
    x = cast(Tensor, x)
    return tuple(t.detach().reshape(-1, t.shape[-1])[keep].double().cpu() for t in (x, gain))  # type: ignore[return-value]


def _last_writer(target: Model, batch: Encoded) -> str:
    """Name the linear module that runs last."""
    with watched(target, lora_modules(target)) as seen, torch.no_grad():
        forward(target, batch.take([0]))
    return list(seen)[-1]
