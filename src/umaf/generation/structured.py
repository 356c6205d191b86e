"""The structured decoder: one direction per label in the universal space becomes a change of the target's last writer.

A classification says "texts that lie along p are called w". In the target that is a sum of rank-one updates of the
last linear module before the read-out. The key is what in the module's input says how far a text lies along p: a map
learned once per target. The value is the shift of the module's output that makes the target say w: it follows from the
read-out alone (a norm and the unembedding). Nothing here depends on which capability it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from umaf.generation.decisions import Asked, decide
from umaf.generation.watch import watched
from umaf.models import bare

DAMPING = 1e-2
VALUED = 16


@contextmanager
def listening(asked: Asked, writer: str) -> Iterator[list[Tensor]]:
    """Hear what a module is given while the block runs, gradients and all: one tensor per pass."""
    heard: list[Tensor] = []
    module = bare(asked.model.net).get_submodule(writer)
    handle = module.register_forward_hook(lambda _module, inputs, _output: heard.append(inputs[0]))
    try:
        yield heard
    finally:
        handle.remove()


def at_answers(asked: Asked, rows: Sequence[int], given: Tensor) -> Float[Tensor, "text in"]:
    """Take what a module was given where the answer is read; the mean over the text where no head reads it.

    Args:
        asked: a goal made ready for its target.
        rows: the texts of the pass.
        given: `[text, token, in]`, or `[text * token, in]`.
    """
    if asked.batch is None:
        raise ValueError("only goals with labels are read at one place")
    x = given.reshape(len(rows), -1, given.shape[-1])
    batch, model = asked.batch.take(list(rows)), asked.model
    if model.head == "base":
        mask = batch.mask[:, : x.shape[1]].to(x.dtype)
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    first = model.head == "seq2seq" or (model.head == "classifier" and model.kind == "encoder")
    where = torch.zeros_like(batch.last) if first else batch.last
    return x[torch.arange(len(x), device=x.device), where]


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

    Each round takes every probe's likeliest label for true and regresses it on what the writer is given. The errors
    of two models about a text are partly independent, and the regression averages them out. No gradient, no label.

    Args:
        read: what the writer is given at the answers of the probes.
        scores: where the fingerprint places them.
        rounds: how often.
        strength: of the ridge, per mean squared input.

    Returns:
        Keys, on the scale at which the probes' scores have a standard deviation of 1.

    Source: self-training, Scudder, IEEE Transactions on Information Theory 1965.
    """
    x = read.double()
    x = x - x.mean(0)
    gram = x.T @ x
    gram = gram + strength * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=x.dtype)
    now, keys = scores.double(), torch.zeros(x.shape[1], scores.shape[1], dtype=x.dtype)
    for _ in range(rounds):
        # Scores are compared within a label first, or one label would win every probe.
        even = now - now.mean(0)
        said = functional.one_hot(even.argmax(1), scores.shape[1]).double()
        keys = torch.linalg.solve(gram, x.T @ (said - said.mean(0)))
        now = x @ keys
    return cast(Tensor, keys / now.std().clamp_min(1e-12))
