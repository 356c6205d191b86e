"""The structured decoder: one direction per label in the universal space becomes a change of the target's writers.

A classification says "texts that lie along p are called w". In the target that is a sum of rank-one updates of the
linear modules that write into the residual stream. The keys are what in each module's input says how far a text lies
along p: maps learned once per target. The value is the shift of the stream that makes the target say w: it follows from
the read-out alone (a norm and the unembedding), and earlier layers may write it as well as the last. Nothing here
depends on which capability it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from umaf.adapters import lora_modules, weight_of
from umaf.generation.decisions import Asked, decide
from umaf.generation.outputs import last_writer
from umaf.generation.watch import watched
from umaf.models import bare

DAMPING = 1e-2
VALUED = 16
ENDINGS = (
    "o_proj", "out_proj", "attn.c_proj", "attention.output.dense", "attention.dense", "self_attn.dense", "out_lin",
    "attn.o", "SelfAttention.o", "EncDecAttention.o",
)  # fmt: skip
"""Last parts of the names of modules by which attention writes into the residual stream: what they are given at the
answer has come from the whole text, and reads the universal space better than what the MLPs are given."""


def writers(asked: Asked, *, share: float) -> list[str]:
    """Name the modules by which attention writes where the answer is read; the last writer of all comes last.

    Args:
        asked: a classification goal made ready for the target.
        share: of the layers, from the top; 0 gives the last writer alone.

    Returns:
        Full names; of an encoder-decoder those of the decoder.
    """
    last = last_writer(asked)
    stack, number = _place(last)
    lowest = (1 - share) * (number + 1)
    width = weight_of(asked.model, last).shape[0]
    found = [
        name
        for name in lora_modules(asked.model)
        if name.endswith(ENDINGS)
        and _place(name)[0] == stack
        and _place(name)[1] >= lowest
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


def refined(
    read: Float[Tensor, "text in"], scores: Float[Tensor, "text label"], *, rounds: int, strength: float
) -> Float[Tensor, "in label"]:
    """Fit keys to what the target itself makes of the probes, beginning with the scores that the fingerprint gives.

    Each round takes every probe's likeliest label for true and regresses it on what the writers are given. The errors
    of two models about a text are partly independent, and the regression averages them out. No gradient, no label.

    Args:
        read: what the writers are given at the answers of the probes, side by side.
        scores: where the fingerprint places them.
        rounds: how often, at least once.
        strength: of the ridge, per mean squared input.

    Returns:
        Keys, on the scale at which the probes' scores have a standard deviation of 1. They do not see the mean of what
        the writers are given, so that no label is preferred: a LoRA has no bias to take that back with.

    Source: self-training, Scudder, IEEE Transactions on Information Theory 1965.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> x = torch.randn(60, 4, generator=draw)
        >>> rough = x @ torch.tensor([[1.0, -1.0], [0.5, -0.5], [0.0, 0.0], [0.0, 0.0]])
        >>> float((x @ refined(x, rough, rounds=2, strength=0.1).float()).std().round(decimals=1))
        1.0
    """
    x = read.double()
    middle = x.mean(0)
    along = middle / middle.norm().clamp_min(1e-12)
    x = x - middle
    x = x - torch.outer(x @ along, along)
    # From the side of the texts, of which there are fewer than inputs.
    gram = x @ x.T
    ridge = strength * float(x.square().sum()) / x.shape[1]
    solved = torch.linalg.inv(gram + max(ridge, 1e-12) * torch.eye(len(gram), dtype=x.dtype, device=x.device))
    now, keys = scores.double(), torch.zeros(x.shape[1], scores.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(rounds):
        # Scores are compared within a label first, or one label would win every probe.
        even = now - now.mean(0)
        said = functional.one_hot(even.argmax(1), scores.shape[1]).double()
        keys = x.T @ (solved @ (said - said.mean(0)))
        now = x @ keys
    return cast(Tensor, keys / now.std().clamp_min(1e-12))


def levelled(
    read: Float[Tensor, "text in"], logits: Float[Tensor, "text label"]
) -> Float[Tensor, "in label"]:
    """Give the keys that take back which labels the target prefers on the probes before it has read them.

    They look along the mean of what the writers are given, which is nearly the same for every text.

    Args:
        read: as `refined` gets it.
        logits: the target's own, of the labels.

    Source: Zhao et al., Calibrate before use, ICML 2021, here with the probes' mean in place of an empty text.

    Example:
        >>> keys = levelled(torch.tensor([[2.0, 0.0], [2.0, 1.0]]), torch.tensor([[3.0, 1.0], [3.0, 1.0]]))
        >>> (torch.tensor([[2.0, 0.5]]) @ keys.float()).round(decimals=4).tolist()
        [[-1.0, 1.0]]
    """
    middle = read.double().mean(0)
    level = logits.double().mean(0)
    return torch.outer(middle / middle.square().sum().clamp_min(1e-12), level.mean() - level)


def _place(name: str) -> tuple[str, int]:
    """Part a module's name into its stack and the number of its layer."""
    parts = name.split(".")
    at = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[:at]), int(parts[at]) if at < len(parts) else 0
