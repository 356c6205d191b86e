"""`--monitor DIR`: what the commands with long work share to have it watched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

MonitorOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write the run's numbers there, for umaf monitor and TensorBoard."),
]


@contextmanager
def monitored(folder: Path | None, name: str) -> Iterator[None]:
    """Write the numbers told inside the block into a run's folder; nothing where no folder was named.

    TensorBoard gets them too where it is installed, and Weights & Biases where its own environment names a project.
    """
    if folder is None:
        yield
        return
    import os
    from importlib.util import find_spec

    from umaf.monitor import Monitor

    to = [kind for kind in ("tensorboard",) if find_spec(kind) is not None]
    # It sends numbers to a server, so that being installed is not enough.
    if os.environ.get("WANDB_PROJECT") and find_spec("wandb") is not None:
        to.append("wandb")
    with Monitor(folder, name=name, to=to):
        yield
