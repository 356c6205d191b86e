"""What the commands that open models share: two more options, one door, and the lines that show progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from umaf.cli.options import CommonConfig
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.models import Model

PickleOption = Annotated[
    bool, typer.Option("--allow-pickle", help="Read .bin and .pt files too (weights only).")
]
RemoteOption = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.")]
TruncateOption = Annotated[
    bool, typer.Option("--truncate", help="Cut probes that are longer than a model's window.")
]
Value = TypeVar("Value")


class ModelConfig(CommonConfig):
    """The options of every command that opens models."""

    allow_pickle: bool = False
    trust_remote_code: bool = False


def opener(settings: ModelConfig) -> Callable[[str], Model]:
    """Give a function that opens models as a command asks, each name once.

    Raises:
        ConfigError: there is no such device here.
    """
    import torch

    from umaf.models import open_model

    device = settings.device
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as problem:
        reason = str(problem).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"The device {device!r} was asked for, but torch cannot use it here ({reason}); `umaf doctor` lists those "
            "it can."
        ) from problem
    known: dict[str, Model] = {}

    def opened(name: str) -> Model:
        if name not in known:
            known[name] = open_model(
                name,
                device=device,
                dtype=settings.dtype,
                trust_remote_code=settings.trust_remote_code,
                allow_pickle=settings.allow_pickle,
            )
        return known[name]

    return opened


def spread(option: str, values: Sequence[Value], count: int, default: Value) -> list[Value]:
    """Give every source, or model, its value of an option that is said once for all or once for each.

    Raises:
        ConfigError: another number of values.

    Example:
        >>> spread("cue", ["topic"], 2, "answer"), spread("cue", [], 2, "answer")
        (['topic', 'topic'], ['answer', 'answer'])
    """
    if len(values) not in (0, 1, count):
        raise ConfigError(
            f"--{option} was given {len(values)} times for {count}; give it once for all, or once for each in their "
            "order."
        )
    return list(values) if len(values) == count else list(values or [default]) * count


def short(name: str) -> str:
    """Name a model in a table: the last part of a path, a hub id as it is.

    Example:
        >>> short("/models/bert"), short("org/bert")
        ('bert', 'org/bert')
    """
    return Path(name).name if Path(name).is_absolute() or name.startswith((".", "~")) else name


@contextmanager
def stages(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show the stage a command is in, and how long those before it took; on a terminal only.

    Args:
        quiet: show nothing.

    Yields:
        A function to call with a few words when a stage begins.
    """
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield lambda _: None
        return
    now: list[tuple[str, float]] = []

    def done() -> None:
        for text, began in now:
            console.print(f"  {escape(text)} [dim]{time.perf_counter() - began:.1f} s[/dim]", highlight=False)
        now.clear()

    with console.status("open") as status:

        def say(text: str) -> None:
            done()
            now.append((text, time.perf_counter()))
            status.update(escape(text))

        yield say
        done()
