"""The one training loop: steps by an objective, looks at the validation split, the best kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from umaf import pulse, seeds
from umaf.errors import ExpertError, NumericalError, TaskError
from umaf.experts.policy import Policy
from umaf.experts.reinforce import advantages, reinforce_loss, rollout
from umaf.experts.rewards import RIGHT, Judge
from umaf.experts.rollout import answered
from umaf.experts.settings import TrainSettings
from umaf.experts.state import State, fresh_state, go_on, keep
from umaf.experts.supervised import next_token_loss
from umaf.models import Model
from umaf.readout.encode import prompt_of
from umaf.tasks.task import Example, Task

Tell = Callable[[str], None]
Watch = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Work:
    """What a training works with.

    Attributes:
        policy: what is trained.
        task: cue and splits; examples that do not fit have left.
        judge: gives rewards.
        settings: how.
        folder: where the state is kept.
        about: what a kept state has to be of.
        tell: called with a sentence when something unexpected is dealt with.
        watch: called with the step and its numbers.
    """

    policy: Policy
    task: Task
    judge: Judge
    settings: TrainSettings
    folder: Path
    about: Mapping[str, Any] = field(default_factory=dict)
    tell: Tell = print
    watch: Watch = lambda step, numbers: None


@dataclass(frozen=True)
class Fitted:
    """What came out.

    Attributes:
        parameters: the best by validation.
        curve: the numbers of every step and look.
        score: mean validation reward of the best.
        steps: gradient steps done.
        ended: why it stopped.
    """

    parameters: dict[str, Tensor]
    curve: tuple[dict[str, Any], ...]
    score: float
    steps: int
    ended: str


def fit(work: Work) -> Fitted:
    """Train a policy in place, from a kept state where there is one.

    Raises:
        ExpertError: no answer earned more than another for many steps; the reward failed; memory is out.
        NumericalError: a loss or gradient became NaN or infinite; the state before it is kept.
        ConfigError: the kept state is of another training.
    """
    settings, policy = work.settings, work.policy
    state = fresh_state(policy.parameters, rows=settings.prompts)
    if go_on(state, work.folder, work.about):
        work.tell(f"Going on at step {state.step}, from the state in {work.folder}.")
    if not state.curve:
        look(work, state)
    ended = "all steps done"
    try:
        while state.step < settings.steps:
            numbers = take_step(work, state)
            work.watch(state.step, numbers)
            if state.step % settings.validate_every == 0 or state.step == settings.steps:
                look(work, state)
            if state.step % settings.keep_every == 0:
                keep(state, work.folder, work.about)
            if state.flat >= settings.flat_steps:
                raise ExpertError(_nothing_to_learn(state, settings))
            if settings.patience and state.since >= settings.patience:
                ended = f"no better validation score in {settings.patience} looks"
                break
    except (KeyboardInterrupt, SystemExit, ExpertError):
        keep_whole(work, state)
        raise
    keep(state, work.folder, work.about)
    return Fitted(dict(state.best), tuple(state.curve), state.best_score, state.step, ended)


def take_step(work: Work, state: State) -> dict[str, float]:
    """Take one step; where memory runs out, halve what is in it at once, say so, and do the step again."""
    settings = work.settings
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(state.step, settings)
    examples = batch_of(work.task, state.step, settings)
    while True:
        try:
            take = _reinforce if settings.objective == "reinforce" else _next_token
            numbers = take(work, state, examples)
            break
        except (RuntimeError, MemoryError) as problem:
            if "probability tensor contains" in str(problem):  # torch's words for a draw among NaN
                _lost(work, state, "chances of tokens that are NaN or infinite")
            if not out_of_memory(problem):
                raise
            state.optimiser.zero_grad(set_to_none=True)
            if state.rows == 1:
                raise ExpertError(
                    f"A step of one prompt with {settings.samples} answers does not fit into memory; lower --samples "
                    "or --max-new-tokens, or take a smaller model."
                ) from problem
            state.rows = max(1, state.rows // 2)
            work.tell(f"Memory ran out at step {state.step}; going on with {state.rows} prompts at a time.")
    state.step += 1
    state.moving = False
    state.curve.append({"step": state.step, **{key: round(value, 6) for key, value in numbers.items()}})
    pulse.tell("expert", state.step, **numbers)
    return numbers


def look(work: Work, state: State) -> float:
    """Score the validation split by greedy answers, and keep the parameters if they are the best so far."""
    examples = work.task.validation[: work.settings.validation]
    found = _answered_in_halves(work, state, examples)
    score = sum(found) / len(found)
    right = sum(value >= RIGHT for value in found) / len(found)
    state.curve.append(
        {"step": state.step, "validation": round(right, 6), "validation_reward": round(score, 6)}
    )
    pulse.tell("expert on validation", state.step, right=right, reward=score)
    if score > state.best_score:
        state.best = {name: p.detach().clone() for name, p in state.parameters.items()}
        state.best_score, state.since = score, 0
    else:
        state.since += 1
    return right


def rewards_of(
    policy: Policy,
    cue: str,
    examples: Sequence[Example],
    judge: Judge,
    settings: TrainSettings,
    *,
    at_once: int = 128,
) -> list[float]:
    """Give the reward of the greedy answer to each example."""
    with policy.active():
        texts = [one.text for one in examples]
        with torch.autocast(policy.model.device.type, torch.bfloat16, enabled=settings.bfloat16):
            answers = answered(
                policy.model, texts, cue, max_new_tokens=settings.max_new_tokens, batch_size=at_once
            )
    return judge(answers, examples)


def _answered_in_halves(work: Work, state: State, examples: Sequence[Example]) -> list[float]:
    """Give the rewards of greedy answers; where memory runs out, ask for half as many at once, and say so."""
    while True:
        try:
            return rewards_of(
                work.policy, work.task.cue, examples, work.judge, work.settings, at_once=state.asked
            )
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            if state.asked == 1:
                raise ExpertError(
                    "The answer to a single validation prompt does not fit into memory; lower --max-new-tokens, or "
                    "take a smaller model."
                ) from problem
        state.asked = max(1, min(state.asked, len(examples)) // 2)
        work.tell(f"Memory ran out on validation; going on with {state.asked} prompts at a time.")


def batch_of(task: Task, step: int, settings: TrainSettings) -> list[Example]:
    """Draw the prompts of a step: rounds through a shuffled train split, by the seed and the step alone."""
    size = min(settings.prompts, len(task.train))
    per_round = len(task.train) // size
    turn, place = divmod(step, per_round)
    order = np.random.default_rng(seeds.derive(settings.seed, "prompts", turn)).permutation(len(task.train))
    return [task.train[i] for i in order[place * size : (place + 1) * size]]


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate: linear warm-up over a twentieth of the steps, then a cosine down to a tenth."""
    warm = max(1, settings.steps // 20)
    if step < warm:
        return settings.rate * (step + 1) / warm
    share = (step - warm) / max(1, settings.steps - warm)
    return settings.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))


def fitting(model: Model, task: Task, settings: TrainSettings, tell: Tell) -> Task:
    """Check that every prompt leaves room for its answer, or let those that do not leave.

    Raises:
        TaskError: a prompt is too long and may not be dropped, or nothing is left to train or to validate with.
    """
    kept: dict[str, tuple[Example, ...]] = {}
    room = None if model.window is None or model.head != "lm" else model.window - settings.max_new_tokens
    for split in ("train", "validation"):
        examples: tuple[Example, ...] = getattr(task, split)
        if room is not None and examples:
            asked = model.tokenizer([prompt_of(model, one.text, task.cue) for one in examples], verbose=False)
            fits = [len(ids) <= room for ids in asked["input_ids"]]
            lost = len(fits) - sum(fits)
            if lost and settings.too_long == "stop":
                raise TaskError(
                    f"{lost} of {len(fits)} {split} prompts of {task.name} are longer than the {room} tokens that "
                    f'"{model.name}" has beside an answer of {settings.max_new_tokens}; drop them with --too-long '
                    "drop, or take a model with a larger window."
                )
            if lost:
                tell(
                    f"{lost} of {len(fits)} {split} prompts of {task.name} do not fit the window and were dropped."
                )
            examples = tuple(one for one, fit_in in zip(examples, fits, strict=True) if fit_in)
        if not examples:
            raise TaskError(f"{task.name} has no {split} examples to work with; choose another task.")
        kept[split] = examples
    return Task(
        task.name, task.kind, task.labels, task.cue, kept["train"], kept["validation"], task.test, task.source,
        task.licence,
    )  # fmt: skip


def out_of_memory(problem: BaseException) -> bool:
    """Say whether an exception means that memory is out: of a device, of the CPU's allocator, or of Python.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    text = str(problem).lower()
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or (
        isinstance(problem, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
    )


def _parts(examples: Sequence[Example], rows: int) -> list[Sequence[Example]]:
    return [examples[start : start + rows] for start in range(0, len(examples), rows)]


def _reinforce(work: Work, state: State, examples: Sequence[Example]) -> dict[str, float]:
    settings, policy = work.settings, work.policy
    cast = torch.autocast(policy.model.device.type, torch.bfloat16, enabled=settings.bfloat16)
    with cast:
        drawn = [
            rollout(policy, part, work.task.cue, work.judge, settings=settings, step=state.step)
            for part in _parts(examples, state.rows)
        ]
    rewards = torch.cat([one.rewards for one in drawn])
    old: list[Tensor | None] = [None] * len(drawn)
    apart = norm = 0.0
    for turn in range(settings.passes):
        apart = 0.0
        for place, one in enumerate(drawn):
            share = len(one.rewards) / len(rewards)
            with cast:
                loss, away, chosen = reinforce_loss(policy, one, settings=settings, old=old[place])
            if turn == 0:
                old[place] = chosen
            _backward(work, state, loss * share)
            apart += float(away) * share
        norm = _update(work, state)
    flat = bool((advantages(rewards).abs() < 1e-9).all())
    state.flat = state.flat + 1 if flat else 0
    length = sum(float(one.answers.mask.sum()) for one in drawn) / rewards.numel()
    return {
        "reward": float(rewards.mean()),
        "right": float((rewards >= RIGHT).float().mean()),
        "divergence": apart,
        "length": length,
        "gradient": norm,
    }


def _next_token(work: Work, state: State, examples: Sequence[Example]) -> dict[str, float]:
    settings, total = work.settings, 0.0
    for part in _parts(examples, state.rows):
        with torch.autocast(work.policy.model.device.type, torch.bfloat16, enabled=settings.bfloat16):
            loss = next_token_loss(work.policy, part, work.task.cue)
        _backward(work, state, loss * (len(part) / len(examples)))
        total += float(loss.detach()) * len(part) / len(examples)
    return {"loss": total, "gradient": _update(work, state)}


def _backward(work: Work, state: State, loss: Tensor) -> None:
    if not torch.isfinite(loss):
        _lost(work, state, f"a loss of {float(loss.detach())}")
    loss.backward()


def _update(work: Work, state: State) -> float:
    """Clip the gradient's norm and step; gives the norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(
        list(state.parameters.values()), work.settings.grad_clip, foreach=False
    )
    if not torch.isfinite(norm):
        _lost(work, state, f"a gradient of norm {float(norm)}")
    state.moving = True
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    return float(norm)


def keep_whole(work: Work, state: State) -> None:
    """Write the state, unless a step was cut short while it moved parameters: then the one before it stays."""
    if not state.moving:
        keep(state, work.folder, work.about)


def _lost(work: Work, state: State, what: str) -> NoReturn:
    """Stop at a number that is none."""
    state.optimiser.zero_grad(set_to_none=True)
    keep_whole(work, state)
    raise NumericalError(
        f"Training on {work.task.name} gave {what} after step {state.step}; the last good state is kept in "
        f"{work.folder}; lower the learning rate, or load the model in float32."
    )


def _nothing_to_learn(state: State, settings: TrainSettings) -> str:
    last = [entry for entry in state.curve if "reward" in entry][-1]["reward"]
    why = "every answer is wrong: take easier examples or a stronger base"
    if last > 0:
        why = "every answer is right already: there is nothing to gain here"
    return (
        f"In {settings.flat_steps} steps no answer earned more than another to the same prompt (mean reward "
        f"{last:.2f}), so nothing can be learned: {why}, or raise --samples or --temperature."
    )
