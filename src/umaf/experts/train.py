"""Train an expert on a task, and what it is compared with: LoRA and IA3 by the same objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umaf.adapters import factors_of
from umaf.errors import ConfigError
from umaf.experts.bound import bounded
from umaf.experts.decompose import Factored, base_identity, decompose, svf_modules
from umaf.experts.expert import Expert, new_card, save_expert
from umaf.experts.fit import Fitted, Tell, Watch, Work, fit, fitting
from umaf.experts.policy import Policy, ia3, lora, svf
from umaf.experts.rewards import judge
from umaf.experts.settings import TrainSettings
from umaf.files import hash_texts, refuse_existing
from umaf.models import Model
from umaf.tasks import reasoning
from umaf.tasks.graded import reward_of
from umaf.tasks.task import Task

KEPT = ".training"


def train_expert(
    model: Model,
    task: Task,
    *,
    settings: TrainSettings,
    folder: str | Path,
    modules: Sequence[str] | None = None,
    factored: Mapping[str, Factored] | None = None,
    description: str = "",
    tell: Tell = print,
    watch: Watch = lambda step, numbers: None,
) -> Expert:
    """Train the multipliers of a base's singular values on a task, and write the expert.

    The state is kept in ``FOLDER.training`` beside the folder: after an interruption, the same call goes on to the
    same bits. The best parameters by the validation split become the expert; the test split is never looked at.

    Args:
        model: the base; it is left as it was.
        task: with train and validation examples.
        settings: how; the reward is the task's own when none is named.
        folder: where the expert goes; must not exist.
        modules: parts of names of modules, as `svf_modules` takes them; attention and MLP when None.
        factored: the base's decomposition, where it is at hand.
        description: one line for people and dispatchers; made from the task's name when empty.
        tell: called with a sentence when something unexpected is dealt with.
        watch: called after every step with its number and what was measured.

    Returns:
        The expert; its folder holds a few kilobytes.

    Raises:
        ExpertError: nothing can be learned, or the reward failed.
        NumericalError: NaN; the last good state is kept.
        ConfigError: no reward is known for the task, code may not be run, or the kept state is of another training.
        TaskError: no examples, or prompts longer than the window.
        OutputError: the folder exists.

    Example:
        >>> from umaf.models import open_model
        >>> train_expert(open_model("zoo:llama-1m"), load_task("graded/kinds"), settings=TrainSettings(),
        ...     folder="kinds")  # doctest: +SKIP
    """
    refuse_existing(folder)
    names = svf_modules(model, modules)
    given = decompose(model, names) if factored is None else {name: factored[name] for name in names}
    policy = svf(model, given)
    fitted = train_policy(
        policy, task, settings=settings, folder=folder, tell=tell, watch=watch, modules=names
    )
    card = new_card(
        model,
        names,
        description=description or f"{task.cue} of {task.name}",
        objective=settings.objective,
        reward=reward_name(task, settings),
        data=about_data(task),
        settings=settings.model_dump(mode="json"),
        scores=scores_of(fitted),
        curves=curves_of(fitted),
    )
    z = {name: bounded(value).detach().cpu() for name, value in fitted.parameters.items()}
    expert = Expert(Path(folder).name, z, card)
    save_expert(expert, folder)
    forget(folder)
    return expert


def train_policy(
    policy: Policy,
    task: Task,
    *,
    settings: TrainSettings,
    folder: str | Path,
    tell: Tell = print,
    watch: Watch = lambda step, numbers: None,
    modules: Sequence[str] = (),
) -> Fitted:
    """Train any policy on a task, keeping its state beside the folder that its result will have.

    Args:
        policy: an expert's multipliers, a LoRA or IA3.
        task: with train and validation examples.
        settings: how.
        folder: the result's; the state is in ``FOLDER.training``.
        tell: called with a sentence when something unexpected is dealt with.
        watch: called after every step.
        modules: of an expert; a kept state has to be of the same.
    """
    task = fitting(policy.model, task, settings, tell)
    about = {
        "base": base_identity(policy.model),
        "task": [task.name, hash_texts(text for one in task.train for text in (one.text, one.answer))],
        "settings": settings.model_dump(mode="json"),
        "modules": list(modules) or sorted(policy.parameters),
    }
    with judge(
        reward_name(task, settings), run_code=settings.run_code, seconds=settings.reward_seconds
    ) as judged:
        return fit(Work(policy, task, judged, settings, state_folder(folder), about, tell, watch))


def train_lora(
    model: Model, task: Task, *, settings: TrainSettings, folder: str | Path, tell: Tell = print
) -> tuple[dict[str, Any], Fitted]:
    """Train a LoRA of ``settings.rank`` on every linear module: the comparison of Transformer-squared.

    Returns:
        Factors by module, as `umaf.adapters.write_lora` takes them, and what was measured.
    """
    policy = lora(model, rank=settings.rank, seed=settings.seed)
    fitted = train_policy(policy, task, settings=settings, folder=folder, tell=tell)
    take_best(policy, fitted)
    return dict(factors_of(policy.model)), fitted


def train_ia3(
    model: Model, task: Task, *, settings: TrainSettings, folder: str | Path, tell: Tell = print
) -> tuple[Policy, Fitted]:
    """Train IA3 through PEFT; the policy comes back with the best parameters in it."""
    policy = ia3(model)
    fitted = train_policy(policy, task, settings=settings, folder=folder, tell=tell)
    take_best(policy, fitted)
    return policy, fitted


def take_best(policy: Policy, fitted: Fitted) -> None:
    """Put the best parameters of a training into its policy."""
    for name, parameter in policy.parameters.items():
        parameter.data.copy_(fitted.parameters[name])


def reward_name(task: Task, settings: TrainSettings) -> str:
    """Give the reward of a training: the one asked for, the task's own, or "label" for a classification.

    Raises:
        ConfigError: none was asked for and none is known.
    """
    own = reward_of(task.name) or reasoning.REWARDS.get(task.name)
    known = settings.reward or own or ("label" if task.labels else None)
    if known is None:
        raise ConfigError(
            f"An expert for {task.name} needs a reward, and that task has none of its own; name one with --reward "
            "(exact, numeric, label, code, or one added by entry point)."
        )
    return known


def state_folder(folder: str | Path) -> Path:
    """Give the folder beside a result's in which its training's state is kept.

    Example:
        >>> state_folder("experts/sums").as_posix()
        'experts/sums.training'
    """
    return Path(folder).with_name(Path(folder).name + KEPT)


def forget(folder: str | Path) -> None:
    """Remove the state of a training whose result is written."""
    kept = state_folder(folder)
    for path in kept.glob("*.safetensors"):
        path.unlink()
    if kept.is_dir() and not any(kept.iterdir()):
        kept.rmdir()


def about_data(task: Task) -> dict[str, Any]:
    """Say in an expert's card what it was trained on."""
    return {
        "task": task.name,
        "cue": task.cue,
        "train": len(task.train),
        "validation": len(task.validation),
        "hash": hash_texts(one.text for one in task.train),
        "source": task.source,
        "licence": task.licence,
    }


def scores_of(fitted: Fitted) -> dict[str, float]:
    """Give validation scores before and after, and the steps done."""
    looks = [entry for entry in fitted.curve if "validation" in entry]
    best = max(looks, key=lambda entry: entry["validation_reward"])
    return {
        "validation": best["validation"],
        "validation_before": looks[0]["validation"],
        "steps": float(fitted.steps),
    }


def curves_of(fitted: Fitted) -> dict[str, list[float | None]]:
    """Turn the entries of a curve into one list per number; looks at the validation split with their steps."""
    steps = [entry for entry in fitted.curve if "validation" not in entry]
    looks = [entry for entry in fitted.curve if "validation" in entry]
    curves: dict[str, list[float | None]] = {}
    for name in ("reward", "right", "divergence", "length", "gradient", "loss"):
        if any(name in entry for entry in steps):
            curves[name] = [entry.get(name) for entry in steps]
    curves["validation_step"] = [entry["step"] for entry in looks]
    curves["validation"] = [entry["validation"] for entry in looks]
    return curves
