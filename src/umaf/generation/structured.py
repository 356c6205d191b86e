"""The structured decoder: what each probe is called becomes a change of the target's last writers.

A classification says "texts like these are called w". In the target that is a sum of rank-one updates of the linear
modules that write into the residual stream last. The keys are what in a module's input tells these texts from the
others: a ridge regression over the probes, as the target reads them. The value is the shift of the stream that makes
the target say w: it follows from the read-out alone (a norm and the unembedding). Nothing here depends on which
capability it is, and all of it can be differentiated, so that what a target reads can be trained for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.activations import token_ids
from umaf.adapters import lora_modules, weight_of
from umaf.generation.decisions import Asked, decide
from umaf.generation.outputs import last_writer
from umaf.generation.watch import watched
from umaf.models import Model, bare

DAMPING = 1e-2
LEVEL = 1e-3
VALUED = 16
PLACES = 1
ENDINGS = (
    "o_proj", "out_proj", "attn.c_proj", "attention.output.dense", "attention.dense", "self_attn.dense", "out_lin",
    "attn.o", "SelfAttention.o", "EncDecAttention.o",
)  # fmt: skip
"""Last parts of the names of modules by which attention writes into the residual stream: what they are given at the
answer has come from the whole text, and tells texts apart better than what the MLPs are given."""


def writers(asked: Asked, *, layers: int = 1) -> list[str]:
    """Name the modules by which attention writes where the answer is read; the last writer of all comes last.

    Args:
        asked: a classification goal made ready for the target.
        layers: how many, from the top; 0 gives the last writer alone.

    Returns:
        Full names; of an encoder-decoder those of the decoder.
    """
    last = last_writer(asked)
    stack, number = _place(last)
    width = weight_of(asked.model, last).shape[0]
    found = [
        name
        for name in lora_modules(asked.model)
        if name.endswith(ENDINGS)
        and _place(name)[0] == stack
        and _place(name)[1] > number - layers
        and weight_of(asked.model, name).shape[0] == width
    ]
    return [*(name for name in found if name != last), last]


@contextmanager
def listening(asked: Asked, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Hear what modules are given in the latest pass while the block runs, gradients and all."""
    heard: dict[str, Tensor] = {}
    net, handles = bare(asked.model.net), []

    def hearer(name: str):
        def hear(_module: object, inputs: tuple, _output: object) -> None:
            heard[name] = inputs[0]

        return hear

    try:
        for name in names:
            handles.append(net.get_submodule(name).register_forward_hook(hearer(name)))
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def at_answers(
    asked: Asked, rows: Sequence[int], heard: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "text in"]]:
    """Take what modules were given where the answer is read; the mean over the text where no head reads it.

    Args:
        asked: a classification goal made ready for its target.
        rows: the texts of the pass.
        heard: per module `[text, token, in]`, or `[text * token, in]`.
    """
    if asked.batch is None:
        raise ValueError("only goals with labels are read at one place")
    batch, model = asked.batch.take(list(rows)), asked.model
    first = model.head == "seq2seq" or (model.head == "classifier" and model.kind == "encoder")
    where = torch.zeros_like(batch.last) if first else batch.last
    found = {}
    for name, given in heard.items():
        x = given.reshape(len(rows), -1, given.shape[-1]).float()
        if model.head == "base":
            mask = batch.mask[:, : x.shape[1]].to(x.dtype)
            found[name] = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            found[name] = x[torch.arange(len(x), device=x.device), where]
    return found


def values(asked: Asked, writer: str) -> Float[Tensor, "label out"]:
    """Find, per label, the shift of the last writer's output that raises its logit by 1 against the others.

    It is the regularised pseudo-inverse of the Jacobian of the logits, centred over the labels, at the output of the
    writer, averaged over a few texts. Nothing before that output is differentiated.
    """
    rows = range(min(VALUED, len(asked)))
    with torch.enable_grad(), watched(asked.model, [writer], graph=True) as seen:
        logits = decide(asked, rows).logits[:, 0]
        output = seen[writer][1]
        slopes = [
            torch.autograd.grad(logits[:, label].sum(), output, retain_graph=True)[0]
            for label in range(logits.shape[1])
        ]
    # Each text's slopes add up over the positions that are all shifted alike.
    jacobian = torch.stack([one.reshape(len(rows), -1, one.shape[-1]).sum(1).mean(0) for one in slopes])
    jacobian = (jacobian - jacobian.mean(0)).detach().double()
    gram = jacobian @ jacobian.T
    size = gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), device=gram.device)
    return torch.linalg.solve(gram + DAMPING * size, jacobian).float()


def fitted(
    reads: Sequence[Float[Tensor, "text in"]],
    said: Sequence[Float[Tensor, "text label"]],
    strength: Tensor,
    *,
    plain: Float[Tensor, "token in"] | None = None,
) -> list[Float[Tensor, "in label"]]:
    """Fit the keys of several capabilities, so that each says what its probes are called and is silent elsewhere.

    Args:
        reads: per capability, what the writers are given at the answers of its probes, side by side.
        said: per capability, 1 for what a probe is called and 0 for the other labels.
        strength: of the ridge, per mean squared input; gradients flow through it and through `reads`.
        plain: what the writers are given in ordinary text, where nothing was asked.

    Returns:
        Keys per capability, at the scale at which its own probes' scores have a standard deviation of 1. They do not
        see the mean of what the writers are given, so that no label is preferred: a LoRA has no bias to take that back.

    Source: a closed-form learner on features trained for it, Bertinetto et al., Meta-learning with differentiable
    closed-form solvers, ICLR 2019, here between label directions and a LoRA.

    Example:
        >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0.0, 0.0, 9.0])
        >>> called = torch.stack([x[:, 0] > 0, x[:, 0] <= 0], dim=1).float()
        >>> [keys] = fitted([x], [called], torch.tensor(0.1))
        >>> float((((x - x.mean(0)) @ keys).argmax(1) == called.argmax(1)).float().mean()) > 0.9
        True
    """
    found = []
    for own, (x, called) in enumerate(zip(reads, said, strict=True)):
        middle = x.mean(0)
        # What belongs elsewhere stands where it is seen from this capability's middle, and shall get no score.
        others = [each for at, each in enumerate(reads) if at != own] + ([] if plain is None else [plain])
        rows = torch.cat([each - middle for each in (x, *others)])
        first = middle / middle.norm().clamp_min(1e-12)
        rows = rows - torch.outer(rows @ first, first)
        wanted = torch.zeros(len(rows), called.shape[1], dtype=rows.dtype, device=rows.device)
        wanted[: len(x)] = (called - called.mean(0)).to(wanted)
        keys = _ridge(rows, wanted, strength * rows[: len(x)].square().sum(1).mean().clamp_min(1e-12))
        found.append(keys / (rows[: len(x)] @ keys).std().clamp_min(1e-6))
    return found


def corrected(
    reads: Sequence[Float[Tensor, "text in"]],
    said: Sequence[Float[Tensor, "text label"]],
    logits: Sequence[Float[Tensor, "text label"]],
    strength: Tensor,
    *,
    size: Tensor,
    plain: Float[Tensor, "token in"] | None = None,
) -> list[Float[Tensor, "in label"]]:
    """Fit what keys lack once they act: the update of one writer changes what the next one is given.

    It is one more step of gradient boosting with ridge regression as the learner: what the target says with the
    adapter is compared with what the probes are called, and the difference is fitted to what the writers are given now.

    Args:
        reads: per capability, what the writers are given at the answers of its probes, with the adapter.
        said: per capability, 1 for what a probe is called and 0 for the other labels.
        logits: per capability, what the target says of its labels, with the adapter.
        strength: of the ridge, as in `fitted`.
        size: how many nats a difference of 1 in probability becomes.
        plain: what the writers are given in ordinary text, where nothing shall change.

    Source: Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 2001, with the
    gradient of the cross-entropy.

    Example:
        >>> x, called = torch.eye(3), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> says = torch.tensor([[9.0, -9.0], [-9.0, 9.0], [-9.0, 9.0]])
        >>> [keys] = corrected([x], [called], [says], torch.tensor(0.1), size=torch.tensor(1.0))
        >>> (10 * (x @ keys)).round().int().tolist()
        [[0, 0], [9, -9], [0, 0]]
    """
    found = []
    for own, (x, called, logit) in enumerate(zip(reads, said, logits, strict=True)):
        others = [each for at, each in enumerate(reads) if at != own] + ([] if plain is None else [plain])
        rows = torch.cat([x, *others])
        wanted = torch.zeros(len(rows), called.shape[1], dtype=rows.dtype, device=rows.device)
        wanted[: len(x)] = size * (called.to(logit) - logit.softmax(-1)).to(wanted)
        spread = (x - x.mean(0)).square().sum(1).mean().clamp_min(1e-12)
        found.append(_ridge(rows, wanted, strength * spread))
    return found


def _ridge(rows: Tensor, wanted: Tensor, strength: Tensor) -> Tensor:
    """Solve a ridge regression `[in, label]` from the side that is smaller, that of the rows or that of the inputs."""
    few = rows.shape[0] <= rows.shape[1]
    gram = rows @ rows.T if few else rows.T @ rows
    gram = gram + strength * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if few:
        return rows.T @ torch.linalg.solve(gram, wanted)
    return torch.linalg.solve(gram, rows.T @ wanted)


@torch.no_grad()
def plainly(model: Model, names: Sequence[str], texts: Sequence[str]) -> dict[str, Float[Tensor, "token in"]]:
    """Hear what modules are given in ordinary texts, at a drawn place of each; hooks around the model stay active.

    Args:
        model: an opened model. The decoder of an encoder-decoder writes the text that its encoder reads.
        names: of the modules.
        texts: plain texts, cut to the model's window.
    """
    draw = torch.Generator().manual_seed(0)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with watched(model, names) as seen:
        for row in token_ids(model, texts, truncate=True):
            ids = torch.tensor([row], device=model.device)
            more = {"decoder_input_ids": ids} if model.head == "seq2seq" else {}
            model.net(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
            where = torch.randperm(len(row), generator=draw)[:PLACES].to(model.device)
            for name in names:
                given = cast(Tensor, seen[name][0])
                found[name].append(given.reshape(-1, given.shape[-1])[where].float())
    return {name: torch.cat(parts) for name, parts in found.items()}


def levelled(
    reads: Sequence[Float[Tensor, "text in"]], logits: Sequence[Float[Tensor, "text label"]]
) -> list[Float[Tensor, "in label"]]:
    """Give the keys that take back which labels the target prefers on the probes before it has read them.

    They look along the mean of what the writers are given, which is nearly the same for every text of a capability, and
    not along the means of the other capabilities.

    Args:
        reads: as `fitted` gets them.
        logits: per capability, the target's own, of its labels.

    Source: Zhao et al., Calibrate before use, ICML 2021, here with the probes' mean in place of an empty text.

    Example:
        >>> [keys] = levelled([torch.tensor([[2.0, 0.0], [2.0, 1.0]])], [torch.tensor([[3.0, 1.0], [3.0, 1.0]])])
        >>> (torch.tensor([[2.0, 0.5]]) @ keys).round(decimals=2).tolist()
        [[-1.0, 1.0]]
    """
    means = torch.stack([x.mean(0) for x in reads])
    gram = means @ means.T
    even = gram + LEVEL * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), device=gram.device)
    # Row k answers 1 on the mean of capability k and 0 on the others'.
    rows = torch.linalg.solve(even, means)
    levels = [each.mean(0) for each in logits]
    return [torch.outer(row, level.mean() - level) for row, level in zip(rows, levels, strict=True)]


def _place(name: str) -> tuple[str, int]:
    """Part a module's name into its stack and the number of its layer."""
    parts = name.split(".")
    at = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[:at]), int(parts[at]) if at < len(parts) else 0
