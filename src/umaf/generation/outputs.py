"""Output-shift regression: the answers the target should give, regressed into its last writer.

What the logits of the choices lack at the place of the answer is carried back to the output of the last writer by the
regularised pseudo-inverse of the Jacobian between them, ``E = J^T (J J^T + damping I)^-1 shift``. Behind the last
writer come only a norm and the read-out, so J is the label rows of the unembedding times the scale of the norm, and for
a model without a head the label embeddings seen through cosine and mean. The ridge regression of E on the writer's
inputs, cut to a rank where those inputs are, is the update. It is repeated on the adapted target, because softmax and
norm are not linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from umaf import tensors
from umaf.adapters import cores, lora_modules, weight_of
from umaf.generation.decisions import Asked, Decisions, ask, decide
from umaf.generation.goals import Goal
from umaf.generation.newton import as_cores, mean_divergence
from umaf.generation.watch import watched
from umaf.models import Model

Update = dict[str, tuple[Tensor, Tensor]]
STEPS = (1.0, 0.5, 0.25)
LIMIT = 12.0
"""Most that a logit is asked to move in one round, in nats."""
FLOOR = 1e-3
"""Least probability that a choice is wanted with: no finite shift of logits gives 0."""
DAMPING = 1e-2
BATCH = 32


def output_shift(
    model: Model,
    goals: Sequence[Goal],
    *,
    rank: int = 8,
    rounds: int = 3,
    ridges: Sequence[float] = (1e-2,),
    check: Sequence[Goal] = (),
    truncate: bool = False,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Make an update of a target's last writer that moves its answers to the wanted ones.

    Args:
        model: the target; an adapter around it stays active.
        goals: what it should answer; each counts by its weight.
        rank: rank of the update.
        rounds: most regressions, each on the target as adapted so far.
        ridges: strengths of the regressions, as in :func:`umaf.tensors.ridge`; each round takes the best.
        check: goals on other probes, by which strength, step and end are chosen; `goals` when empty, which
            always prefers the weakest ridge.
        truncate: cut probes that are longer than the target's window.

    Returns:
        The writer's name -> (A [rank, in], B [out, rank]), float32; zeros where no step brought the
        answers on the probes nearer to the wanted ones.

    Raises:
        ProbeError: a probe does not fit the target's window.
        TaskError: the target cannot be read for these labels, or cannot write answers.
    """
    asked = [ask(model, goal, truncate=truncate) for goal in goals]
    judges = [ask(model, goal, truncate=truncate) for goal in check] or asked
    writer = last_writer(asked[0])
    weight = weight_of(model, writer)
    none = (torch.zeros(rank, weight.shape[1]).double(), torch.zeros(weight.shape[0], rank).double())
    update: Update = {writer: none}
    best = _divergence(judges, update)
    for _ in range(rounds):
        x, lack = _rows(asked, update)
        a, b = update[writer]
        found = None
        for ridge in ridges:
            move = tensors.ridge(x, lack, strength=ridge).T
            for step in STEPS:
                trial = {writer: tensors.truncate_weighted(b @ a + step * move, x.T @ x, rank)}
                value = _divergence(judges, trial)
                if value < best - 1e-6:
                    best, found = value, trial
        if found is None:
            break
        update = found
    return {name: (a.float().contiguous(), b.float().contiguous()) for name, (a, b) in update.items()}


def last_writer(asked: Asked) -> str:
    """Name the linear module that runs last before the read-out."""
    with watched(asked.model, lora_modules(asked.model)) as seen, torch.no_grad():
        decide(asked, [0])
    return list(seen)[-1]


def pulled_back(
    decisions: Decisions, output: Float[Tensor, "... out"]
) -> tuple[Float[Tensor, "text token out"], Tensor]:
    """Carry what the logits lack back to the output of a module that they were computed from.

    Only differences between choices count, so logits are centred over the choices of a decision.

    Args:
        decisions: with logits through which gradients reach `output`.
        output: of the module, in the graph of the logits.

    Returns:
        The least shift of the output that gives the wanted logits, to first order and damped; and which
        of its positions the logits depend on, bool [text, token].
    """
    lack = decisions.wanted.clamp_min(FLOOR).log() - decisions.logits.detach().log_softmax(-1)
    lack = (lack - lack.mean(-1, keepdim=True)).clamp(-LIMIT, LIMIT)
    texts, steps, choices = lack.shape
    total: Tensor | float = 0.0
    used: Tensor | bool = False
    for step in range(steps):
        exists = decisions.mask[:, step].float()
        rows = [
            torch.autograd.grad(decisions.logits[:, step, choice].sum(), output, retain_graph=True)[0]
            for choice in range(choices)
        ]
        # Some modules see [text * token, out]; the text is the slow axis of their rows.
        jacobian = torch.stack([row.reshape(texts, -1, output.shape[-1]) for row in rows], dim=1).float()
        jacobian = jacobian * exists[:, None, None, None]
        used = used | jacobian.ne(0).any(-1).any(1)
        total = total + _least_shift(jacobian, lack[:, step] * exists[:, None])
    return cast(Tensor, total), cast(Tensor, used)


def _least_shift(
    jacobian: Float[Tensor, "text choice token out"], lack: Float[Tensor, "text choice"]
) -> Float[Tensor, "text token out"]:
    """Regularised pseudo-inverse of each text's Jacobian, times what its choices lack."""
    flat = (jacobian - jacobian.mean(1, keepdim=True)).flatten(2)
    gram = flat @ flat.mT
    size = gram.diagonal(dim1=1, dim2=2).mean(-1).clamp_min(1e-12)
    damped = gram + DAMPING * size[:, None, None] * torch.eye(gram.shape[-1], device=gram.device)
    return (flat.mT @ torch.linalg.solve(damped, lack[..., None]))[..., 0].unflatten(1, jacobian.shape[2:])


def _rows(asked: Sequence[Asked], update: Update) -> tuple[Float[Tensor, "row in"], Float[Tensor, "row out"]]:
    """Inputs of the writer and wanted shifts of its output where they decide, weighted, float64 on the CPU."""
    inputs, shifts = [], []
    for one in asked:
        scale = (one.goal.weight / len(one)) ** 0.5
        for start in range(0, len(one), BATCH):
            rows = range(start, min(start + BATCH, len(one)))
            # The cores' hook comes first, so that what is watched includes the update.
            with (
                cores(one.model, *as_cores(_on(one, update))),
                watched(one.model, list(update), graph=True) as seen,
            ):
                decisions = decide(one, rows)
            ((x, output),) = seen.values()
            shift, used = pulled_back(decisions, output)
            x = cast(Tensor, x).reshape(len(rows), -1, cast(Tensor, x).shape[-1])
            inputs.append(scale * x[used].double().cpu())
            shifts.append(scale * shift[used].double().cpu())
    return torch.cat(inputs), torch.cat(shifts)


def _divergence(asked: Sequence[Asked], update: Update) -> float:
    return mean_divergence(asked, _on(asked[0], update))


def _on(one: Asked, update: Update) -> Update:
    """An update where and as the target computes."""
    device = one.model.device
    return {name: (a.float().to(device), b.float().to(device)) for name, (a, b) in update.items()}
