"""Where numbers can go besides the run's own file: TensorBoard and Weights & Biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from umaf.errors import ConfigError


class Sink(Protocol):
    """Takes the numbers of each step, and is closed at the end."""

    def write(self, job: str, step: int, numbers: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def open_sink(kind: str, folder: Path, *, name: str, config: Mapping[str, Any]) -> Sink:
    """Open a sink.

    Args:
        kind: "tensorboard" (its files go into the run's folder) or "wandb" (which sends numbers to a server, as its own
            environment variables say).
        folder: of the run.
        name: of the run.
        config: settings of the run.

    Raises:
        ConfigError: another kind, or its package is not installed.
    """
    makers: dict[str, Callable[[], Sink]] = {
        "tensorboard": lambda: _TensorBoard(folder),
        "wandb": lambda: _Wandb(folder, name, config),
    }
    if kind not in makers:
        raise ConfigError(
            f"Metrics were asked to go to {kind!r}, but they can go to {' and '.join(makers)}; choose one of these."
        )
    if find_spec(kind) is None:
        extra = 'pip install "umaf[monitor]"' if kind == "tensorboard" else "pip install wandb"
        raise ConfigError(f"Metrics were asked to go to {kind}, which is not installed; run: {extra}")
    return makers[kind]()


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def write(self, job: str, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{job}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        self._run: Any = import_module("wandb").init(
            project="umaf", name=name, dir=str(folder), config=dict(config)
        )

    def write(self, job: str, step: int, numbers: Mapping[str, float]) -> None:
        # A step of its own for each job: W&B wants one count that never goes back.
        self._run.log({f"{job}/step": step, **{f"{job}/{name}": value for name, value in numbers.items()}})

    def close(self) -> None:
        self._run.finish()
