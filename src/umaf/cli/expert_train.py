"""`umaf expert train`: train an expert on a task, showing how it goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.markup import escape

from umaf.cli.adapting import CacheOption
from umaf.cli.opening import ModelConfig, PickleOption, RemoteOption, opener
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle
from umaf.cli.watching import MonitorOption, monitored

if TYPE_CHECKING:
    from umaf.experts.expert import Expert
    from umaf.experts.settings import TrainSettings

TaskOption = Annotated[str | None, typer.Option(metavar="NAME", help="What to learn.")]
OutOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The expert's folder; must not exist.")]
DataOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of real tasks.")]
RewardOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="exact, numeric, label, code, or a plugin's. [default: the task's]"),
]
ObjectiveOption = Annotated[
    Literal["reinforce", "next_token"], typer.Option(help="Learn from rewards, or from wanted answers.")
]
ModulesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PART", help="Modules by parts of their names, once for each: mlp, attention, q_proj."
    ),
]
NormaliseOption = Annotated[
    bool, typer.Option("--normalise", help="Divide advantages by their deviation in the group.")
]
PatienceOption = Annotated[
    int, typer.Option(min=0, help="Looks without a better score before it stops; 0: never.")
]
CodeOption = Annotated[
    bool, typer.Option("--run-code", help="Allow the reward code to run what the model writes, in a sandbox.")
]
LongOption = Annotated[
    Literal["stop", "drop"], typer.Option(help="What to do with prompts longer than the window.")
]
Watch = Callable[[int, Mapping[str, float]], None]


class ExpertTrainConfig(ModelConfig):
    """What `umaf expert train` does."""

    model: str
    task: str
    out: Path
    data: Path | None = None
    reward: str | None = None
    objective: Literal["reinforce", "next_token"] = "reinforce"
    modules: tuple[str, ...] = ()
    description: str = ""
    steps: int = Field(default=120, ge=1)
    rate: float = Field(default=0.02, gt=0)
    prompts: int = Field(default=16, ge=1)
    samples: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=16, ge=1)
    kl: float = Field(default=0.02, ge=0)
    normalise: bool = False
    clip: float | None = Field(default=None, gt=0, lt=1)
    passes: int = Field(default=1, ge=1)
    validate_every: int = Field(default=10, ge=1)
    patience: int = Field(default=6, ge=0)
    run_code: bool = False
    reward_seconds: float = Field(default=10.0, gt=0)
    too_long: Literal["stop", "drop"] = "stop"
    cache: Path | None = None
    monitor: Path | None = None


def train(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="The base: a hub id, a folder, or zoo:NAME.")] = None,
    task: TaskOption = None,
    out: OutOption = None,
    data: DataOption = None,
    reward: RewardOption = None,
    objective: ObjectiveOption = "reinforce",
    modules: ModulesOption = None,
    description: Annotated[str, typer.Option(help="One line for people and dispatchers.")] = "",
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps at most.")] = 120,
    rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 0.02,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts per step.")] = 16,
    samples: Annotated[int, typer.Option(min=2, help="Answers drawn per prompt.")] = 8,
    temperature: Annotated[float, typer.Option(help="Of the answers drawn.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 16,
    kl: Annotated[float, typer.Option(help="Weight of the divergence from the base.")] = 0.02,
    normalise: NormaliseOption = False,
    clip: Annotated[float | None, typer.Option(help="Clip probability ratios at 1 +- this.")] = None,
    passes: Annotated[int, typer.Option(min=1, help="Gradient steps on the same answers.")] = 1,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between looks at validation.")] = 10,
    patience: PatienceOption = 6,
    run_code: CodeOption = False,
    reward_seconds: Annotated[float, typer.Option(help="Longest one call of a reward may take.")] = 10.0,
    too_long: LongOption = "stop",
    cache: CacheOption = None,
    monitor: MonitorOption = None,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Train an expert on a task by rewards. Interrupted, the same command goes on where it was."""
    settings = settle(ExpertTrainConfig, ctx)
    console = Console(stderr=True, quiet=as_json)
    watched = monitored(settings.monitor, f"expert {settings.task}")
    with shown(settings.steps, console) as (watch, tell, say), watched:
        expert = make(settings, watch=watch, tell=tell, say=say)
    figure = draw(expert, settings.out)
    scores = expert.card.scores
    if as_json:
        found = {"out": str(settings.out), "name": expert.name, "scores": scores}
        print(json.dumps({**found, "figure": None if figure is None else str(figure)}, indent=2))
        return
    before, after = scores["validation_before"], scores["validation"]
    Console().print(
        f"{escape(str(settings.out))}: {before:.3f} of the validation answers were right, now {after:.3f}, after "
        f"{scores['steps']:.0f} steps.",
        highlight=False,
    )
    if after <= before:
        Console().print("Nothing was gained, so the expert changes nothing; try another rate or more steps.")


def make(
    settings: ExpertTrainConfig, *, watch: Watch, tell: Callable[[str], None], say: Callable[[str], None]
) -> Expert:
    """Do what the command does, without printing."""
    from umaf.experts import decompose, svf_modules
    from umaf.experts.rewards import judge
    from umaf.experts.train import reward_name, train_expert
    from umaf.files import refuse_existing
    from umaf.tasks.door import load_task

    refuse_existing(settings.out)
    task, training = load_task(settings.task, data=settings.data, seed=settings.seed), training_of(settings)
    with judge(reward_name(task, training), run_code=training.run_code):
        pass  # what cannot be judged is said before a large model is opened
    model, wanted = opener(settings)(settings.model), list(settings.modules) or None
    names = svf_modules(model, wanted)
    done = iter(range(1, len(names) + 1))
    return train_expert(
        model,
        task,
        settings=training,
        folder=settings.out,
        modules=wanted,
        factored=decompose(
            model,
            names,
            cache=settings.cache,
            progress=lambda _: say(f"singular directions, {next(done)} of {len(names)} weights"),
        ),
        description=settings.description,
        tell=tell,
        watch=watch,
    )


def training_of(settings: ExpertTrainConfig) -> TrainSettings:
    """Give the training's own settings out of the command's."""
    from umaf.experts.settings import TrainSettings

    asked = settings.model_dump(include=set(TrainSettings.model_fields))
    return TrainSettings(**asked)


@contextmanager
def shown(
    steps: int, console: Console
) -> Iterator[tuple[Watch, Callable[[str], None], Callable[[str], None]]]:
    """Show a bar with the last numbers or what is being done, on a terminal only; sentences are always shown."""

    def tell(sentence: str) -> None:
        console.print(escape(sentence), highlight=False)

    if not console.is_terminal:
        yield lambda step, numbers: None, tell, lambda doing: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task("train", total=steps)

        def watch(step: int, numbers: Mapping[str, float]) -> None:
            parts = [
                f"{name} {numbers[name]:.2f}" for name in ("right", "divergence", "loss") if name in numbers
            ]
            bar.update(row, completed=step, description=f"step {step} of {steps}, {', '.join(parts)}")

        yield watch, tell, lambda doing: bar.update(row, description=doing)


def draw(expert: Expert, folder: Path) -> Path | None:
    """Draw the training's curves beside the expert; None where matplotlib is not installed."""
    try:
        from umaf.reports.curves import training_curves
        from umaf.reports.save import save_figure
    except ImportError:
        return None
    found = expert.card.curves
    curves: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        label: (range(1, len(found[name]) + 1), numbers(found[name]))
        for name, label in (("right", "answers drawn, right"), ("loss", "loss, nats per token"))
        if name in found
    }
    curves["validation, right"] = (numbers(found["validation_step"]), numbers(found["validation"]))
    figure = training_curves(curves, title=f"Training of {expert.name}", axis="share of right answers")
    return save_figure(figure, folder, "curves")[1]


def numbers(values: Sequence[float | None]) -> list[float]:
    """Give a curve of a card as plain numbers; a missing one is NaN."""
    return [float("nan") if value is None else value for value in values]
