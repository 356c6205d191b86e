"""An expert of one model used on another, by what it does.

On shared texts without labels, the source's hidden states move when the expert is attached; that shift, carried into
the target's space by a ridge map between the two models' states, is the goal, and the target's z is its least-squares
fit. The shift of what is answered is met too: of the logits of the words that answers are, where those are known; else,
between models that write text, of all next tokens' logits, carried between vocabularies by strings. The words matter:
an expert may raise the right one above the others by much and yet leave all of them a few thousandths of what could be
written, and then hardly any of the shift over a whole vocabulary speaks of the answer.

No two singular values have to mean the same thing, so widths, depths, architectures and tokenizers may differ. The ways
by number, controls for this one, are in `umaf.experts.by_number`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from umaf import seeds
from umaf.activations import depth_layers
from umaf.errors import ExpertError, NumericalError
from umaf.experts.attach import attached
from umaf.experts.bound import bounded
from umaf.experts.decompose import Factored
from umaf.experts.expert import Expert, check_expert, new_card
from umaf.experts.vocabulary import token_map
from umaf.generation.places import Places, pair, read
from umaf.generation.watch import watched
from umaf.models import Model, bare, layer_list
from umaf.readout import Encoded, Readout, encoded_label_scores, label_logits, make_readout
from umaf.tensors import ridge

Factors = Mapping[str, Factored]


@dataclass(frozen=True)
class Fit:
    """How the target's z is fitted.

    Attributes:
        steps: gradient steps on the least squares.
        rate: learning rate of Adam on the parameters before the bound; falls linearly to zero.
        batch_size: texts per step.
        strength: of the ridge map between the models' states, as in :func:`umaf.tensors.ridge`.
        decay: weight of the mean square of the parameters, which keeps unneeded directions at 1.
        answers: share of a layer's loss taken at the place where an answer is read; the rest is at all tokens.
        outputs: share of the loss taken at the logits of answers there, where both models have some.
        seed: of the order of texts.
    """

    steps: int = 250
    rate: float = 0.05
    batch_size: int = 16
    strength: float = 1e-3
    decay: float = 1e-3
    answers: float = 0.9
    outputs: float = 0.5
    seed: int = 0


def aligned(
    expert: Expert,
    models: tuple[Model, Model],
    factored: tuple[Factors, Factors],
    texts: Sequence[str],
    *,
    cue: str | None = None,
    labels: Sequence[str] = (),
    fit: Fit = Fit(),
) -> Expert:
    """Fit an expert of the target to what an expert does in the source.

    Args:
        expert: of the source.
        models: source and target.
        factored: their decompositions; the target's z covers the modules of the second.
        texts: without labels; those on which the expert matters are best.
        cue: the word before the answer, where the texts are questions.
        labels: the words that answers are, where they are known; which text has which stays unknown.
        fit: how.

    Returns:
        An expert of the target; its card says how far the shift was met.

    Raises:
        ExpertError: the expert is not of the source, or changes nothing on these texts.
        ProbeError: a text does not fit a window, or no token of the two models meets.
        TaskError: the labels cannot be read from one of the models.
        NumericalError: the fit became NaN or infinite.
    """
    source, target = models
    check_expert(expert, source)
    there, here = pair(source, target, texts, cue)
    with attached(source, factored[0], expert.z):
        after = read(source, there, _layers(source))[1]
    before = read(source, there, _layers(source))[1]
    goals = _goals(models, (before, after), here, fit.strength)
    if not any(goal.moved[0] > 0 for goal in goals.values()):
        raise ExpertError(
            f'Expert "{expert.name}" was to be carried to "{target.name}", but on these {len(texts)} texts it changes '
            "nothing; give texts of the task it was trained on."
        )
    if labels:
        outputs = _label_goal(expert, models, (there, here), factored[0], (tuple(labels), cue))
    else:
        outputs = _output_goal(expert, models, (there, here), factored[0])
    z, missing = _least_squares(_Problem(target, factored[1], goals, here, fit, outputs))
    settings = {"way": "aligned", "texts": len(texts), "cue": cue, "labels": list(labels), "fit": asdict(fit)}
    return made_across(expert, target, z, settings, {"missing": missing})


@dataclass(frozen=True)
class _Goal:
    """Wanted outputs of a layer of the target.

    Attributes:
        states: ``[row, hidden]``.
        moved: mean square of the shift that leads there, over all rows and over those where answers are read.
    """

    states: Tensor
    moved: tuple[float, float]


def _goals(
    models: tuple[Model, Model], states: tuple[Mapping, Mapping], here: Places, strength: float
) -> dict[str, _Goal]:
    """Carry the source's shift into the target, layer by layer at the same share of depth."""
    source, target = models
    before, after = states
    own, theirs = _layers(target), _layers(source)
    meets = depth_layers(len(theirs), [(at + 1) / len(own) for at in range(len(own))])
    present, answers = read(target, here, own)[1], _answers(here)
    goals = {}
    for name, at in zip(own, meets, strict=True):
        x, y = before[theirs[at]].double(), present[name].double()
        across = ridge(x - x.mean(0), y - y.mean(0), strength=strength)
        shift = ((after[theirs[at]] - before[theirs[at]]).double() @ across).float()
        moved = shift.square().sum(1)
        spots = moved[answers] if answers.any() else moved
        goals[name] = _Goal(present[name] + shift, (float(moved.mean()), float(spots.mean())))
    return goals


@dataclass(frozen=True)
class _Outputs:
    """Wanted logits where answers are read.

    Attributes:
        ids: of the target's tokens that the source's vocabulary speaks for, or of the labels.
        logits: of these, ``[text, token]``, less their mean.
        moved: mean square of the shift that leads there.
        readout: how labels are read from the target; None for next tokens.
    """

    ids: Tensor
    logits: Tensor
    moved: float
    readout: Readout | None = None


def _label_goal(
    expert: Expert, models: tuple[Model, Model], places: tuple, factored: Factors, asked: tuple
) -> _Outputs:
    """Add the source's shift of the labels' logits to the target's."""
    source, target = models
    theirs, own = (make_readout(model, *asked) for model in models)
    before = encoded_label_scores(source, places[0].batch, theirs)
    with attached(source, factored, expert.z):
        shift = encoded_label_scores(source, places[0].batch, theirs) - before
    shift = shift - shift.mean(1, keepdim=True)
    wanted = encoded_label_scores(target, places[1].batch, own) + shift
    wanted = wanted - wanted.mean(1, keepdim=True)
    return _Outputs(torch.tensor(own.tokens), wanted, float(shift.square().sum(1).mean()), own)


def _output_goal(
    expert: Expert, models: tuple[Model, Model], places: tuple, factored: Factors
) -> _Outputs | None:
    """Add the source's shift of logits to the target's; None where a model has no next-token logits."""
    (source, target), (there, here) = models, places
    if any(model.head != "lm" or model.kind != "decoder" for model in models):
        return None
    between = token_map(source, target)
    if between is None:
        return None
    with torch.no_grad():
        before = _logits(source, there)
        with attached(source, factored, expert.z):
            shift = between.carry(before, _logits(source, there))
        wanted = _logits(target, here)[:, between.target] + shift
    wanted = wanted - wanted.mean(1, keepdim=True)
    return _Outputs(between.target, wanted, float(shift.square().sum(1).mean()))


def _logits(model: Model, places: Places) -> Tensor:
    """Logits where answers are read, ``[text, vocabulary]`` on the CPU."""
    found = []
    for start in range(0, len(places.batch), 64):
        batch = places.batch.take(range(start, min(start + 64, len(places.batch))))
        hidden = bare(model.net).base_model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        found.append(_at_answers(model, hidden, batch.last).cpu())
    return torch.cat(found)


def _at_answers(model: Model, hidden: Tensor, last: Tensor) -> Tensor:
    head: Any = bare(model.net).get_output_embeddings()
    return head(hidden[torch.arange(len(hidden)), last.to(hidden.device)]).float()


def _answers(here: Places) -> Tensor:
    """Which rows are where an answer is read."""
    return here.token == here.batch.last.cpu()[here.text]


@dataclass(frozen=True)
class _Problem:
    """A least-squares problem: which z of the target meets the goals."""

    target: Model
    factored: Factors
    goals: Mapping[str, _Goal]
    here: Places
    fit: Fit
    outputs: _Outputs | None


def _least_squares(problem: _Problem) -> tuple[dict[str, Tensor], list[float | None]]:
    """Fit z to the goals; also give the share of the shift that was missing, step by step."""
    fit = problem.fit
    free = {name: torch.zeros_like(f.s, requires_grad=True) for name, f in problem.factored.items()}
    optimiser = torch.optim.Adam(free.values(), lr=fit.rate, betas=(0.9, 0.98))
    draw, losses = seeds.generator(fit.seed, "aligned", "order"), []
    queue: list[Tensor] = []
    for step in range(fit.steps):
        for group in optimiser.param_groups:
            group["lr"] = fit.rate * (1 - step / fit.steps)
        if not queue:
            queue = list(torch.randperm(len(problem.here.batch), generator=draw).split(fit.batch_size))
        missing = _missing(problem, {name: bounded(p) for name, p in free.items()}, queue.pop())
        if not torch.isfinite(missing):
            raise NumericalError(
                f'The fit of an expert for "{problem.target.name}" became {float(missing)} at step {step}; lower its '
                "rate."
            )
        size = sum(p.square().sum() for p in free.values()) / sum(p.numel() for p in free.values())
        (missing + fit.decay * size).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(missing.detach()))
    return {name: bounded(p.detach()) for name, p in free.items()}, losses


def _missing(problem: _Problem, z: Mapping[str, Tensor], texts: Tensor) -> Tensor:
    """Mean square of what is missing to the goals on some texts, as a share of the shift's."""
    target, here, share = problem.target, problem.here, problem.fit.answers
    at = torch.full((len(here.batch),), -1)
    at[texts] = torch.arange(len(texts))
    rows = (at[here.text] >= 0).nonzero().squeeze(1)
    batch, answers = here.batch.take(texts.tolist()), _answers(here)[rows]
    net = bare(target.net)
    body = net.get_encoder() if target.kind == "encoder-decoder" else net.base_model
    with attached(target, problem.factored, z, form="whole"):
        with watched(target, list(problem.goals)) as seen:
            hidden = body(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        logits = _output_logits(problem, hidden, batch)
    parts = []
    for name, goal in problem.goals.items():
        states = seen[name][1]
        states = states.reshape(len(texts), -1, states.shape[-1])[at[here.text[rows]], here.token[rows]]
        gap = (states.float() - goal.states[rows].to(states.device)).square().sum(1)
        part = gap.mean() / max(goal.moved[0], 1e-12)
        if answers.any():
            spots = gap[answers.to(gap.device)].mean() / max(goal.moved[1], 1e-12)
            part = (1 - share) * part + share * spots
        parts.append(part)
    layers, outputs = torch.stack(parts).mean(), problem.outputs
    if outputs is None or logits is None or outputs.moved == 0:
        return layers
    gap = logits - logits.mean(1, keepdim=True) - outputs.logits[texts].to(logits.device)
    missed = gap.square().sum(1).mean() / outputs.moved
    return (1 - problem.fit.outputs) * layers + problem.fit.outputs * missed


def _output_logits(problem: _Problem, hidden: Tensor, batch: Encoded) -> Tensor | None:
    """Logits of what the outputs' goal speaks of, ``[text, token]``; gradients flow."""
    outputs, target = problem.outputs, problem.target
    if outputs is None:
        return None
    if outputs.readout is None or (target.head == "lm" and target.kind == "decoder"):
        return _at_answers(target, hidden, batch.last)[:, outputs.ids]
    return label_logits(target, batch, outputs.readout)


def _layers(model: Model) -> list[str]:
    """Full names of the layers of the stack that reads the text."""
    layers = {id(layer) for layer in layer_list(model)}
    return [name for name, module in bare(model.net).named_modules() if id(module) in layers]


def made_across(
    expert: Expert, target: Model, z: Mapping[str, Tensor], settings: dict, curves: dict
) -> Expert:
    """Make the target's expert, whose card says where it comes from."""
    about = {
        **settings,
        "expert": expert.name,
        "base": expert.card.base,
        "identity": expert.card.base_identity,
    }
    card = new_card(
        target,
        list(z),
        description=expert.card.description,
        objective="across",
        reward=expert.card.reward,
        data=expert.card.data,
        settings=about,
        curves=curves,
    )
    return Expert(expert.name, dict(z), card)
