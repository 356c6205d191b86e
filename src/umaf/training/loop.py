"""The one loop every stage is trained by: resumable to the same bits, watched on validation capabilities.

Whatever is random in a step is seeded by the run's seed and the number of the step, so a training that was stopped
anywhere and gone on with takes the same steps as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf import pulse
from umaf.errors import NumericalError
from umaf.training.devices import Devices, alone
from umaf.training.settings import LoopSettings
from umaf.training.state import State, fresh_state, go_on, keep

Loss = Callable[[int], Tensor]
Look = Callable[[], Mapping[str, float]]
Said = Callable[[int, int, Mapping[str, Any]], object]


@dataclass(frozen=True)
class Trained:
    """What a training gave; its parameters hold the best of what was looked at.

    Attributes:
        curve: one row per step ("step", "loss") and per look ("step", and what was looked at).
        best: the row of the look whose parameters were kept.
        stopped: whether patience ended it before its last step.
    """

    curve: tuple[dict[str, Any], ...]
    best: dict[str, Any]
    stopped: bool


def train(
    parameters: Mapping[str, Tensor],
    loss: Loss,
    look: Look,
    *,
    settings: LoopSettings,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    rates: Mapping[str, float] | None = None,
    said: Said | None = None,
    devices: Devices | None = None,
) -> Trained:
    """Train parameters in place.

    Args:
        parameters: leaves by name.
        loss: the loss of a step, by its number from 0.
        look: scores on validation capabilities; "score" is what is to become greatest.
        settings: how long and how fast.
        folder: where the state is kept between steps, and found again; nothing is kept when None.
        about: what the training is of; a kept state of something else is refused.
        rates: what the rate is multiplied with for parameters whose name begins so; the longest match counts.
        said: called after each step with (steps done, steps at most, the newest row of the curve).
        devices: processes that share the work; this one alone when None.

    Returns:
        The curve and the best look. The parameters hold the best values.

    Raises:
        NumericalError: the loss became NaN or infinite.
        ConfigError: the folder holds a training of something else.

    Example:
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> plan = LoopSettings(steps=60, rate=0.2, look_every=10)
        >>> done = train({"x": x}, lambda step: (x**2).sum(), lambda: {"score": -float(x.detach() ** 2)}, settings=plan)
        >>> abs(float(x.detach())) < 0.3, done.best["step"] > 10
        (True, True)
    """
    crew = devices or alone()
    state = fresh_state(parameters, settings, rates or {})
    facts = {**(about or {}), **settings.model_dump(), "processes": crew.count}
    if folder is not None:
        go_on(state, folder, facts)
    if not state.curve:
        _look(state, look)
    while state.step < settings.steps and not _tired(state, settings):
        value = _step(state, loss, settings, crew)
        state.curve.append({"step": state.step, "loss": value})
        pulse.tell("training", state.step, loss=value)
        if state.step % settings.look_every == 0 or state.step == settings.steps:
            _look(state, look)
        if folder is not None and crew.first and state.step % settings.keep_every == 0:
            keep(state, folder, facts)
        if said is not None:
            said(state.step, settings.steps, state.curve[-1])
    if folder is not None and crew.first:
        keep(state, folder, facts)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state.best[name])
    looked = max((row for row in state.curve if "score" in row), key=lambda row: row["score"])
    return Trained(tuple(state.curve), looked, state.step < settings.steps)


def _step(state: State, loss: Loss, settings: LoopSettings, crew: Devices) -> float:
    """Take one step; the mean loss over the processes."""
    for group in state.optimiser.param_groups:
        group["lr"] = group["share"] * _rate(state.step, settings)
    device = next(iter(state.parameters.values())).device
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
        value = loss(state.step)
    if not torch.isfinite(value.detach()):
        raise NumericalError(
            f"The training gave a loss of {float(value.detach())} at step {state.step}; lower the learning rate, or "
            "check the training material."
        )
    value.backward()
    own = [p for p in state.parameters.values() if p.requires_grad]
    crew.share([p.grad for p in own if p.grad is not None])
    # foreach sums in another order on other machines.
    torch.nn.utils.clip_grad_norm_(own, settings.clip, foreach=False)
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    state.step += 1
    return float(value.detach())


def _look(state: State, look: Look) -> None:
    """Look at the validation capabilities, and keep the parameters if they are the best so far."""
    seen = {name: float(value) for name, value in look().items()}
    if seen["score"] > state.best_score:
        state.best_score, state.since = seen["score"], 0
        state.best = {name: p.detach().clone() for name, p in state.parameters.items()}
    else:
        state.since += 1
    state.curve.append({"step": state.step, **seen})


def _tired(state: State, settings: LoopSettings) -> bool:
    return 0 < settings.patience <= state.since


def _rate(step: int, settings: LoopSettings) -> float:
    warm = max(1, settings.steps // 10)
    if step < warm:
        return settings.rate * (step + 1) / warm
    done = (step - warm) / max(1, settings.steps - warm)
    return settings.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
