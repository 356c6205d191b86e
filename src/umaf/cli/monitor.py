"""`umaf monitor`: the numbers of a running or finished job, and how fingerprints move and gather."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from umaf.cli.options import JsonOption
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.monitor.read import Run

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 32


def monitor(
    run: Annotated[
        list[Path],
        typer.Argument(
            help="A run's folder; with --drift a folder of checkpoints, with --clusters fingerprints."
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Show it as it is, and stop.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    drift: Annotated[bool, typer.Option("--drift", help="Fingerprint the checkpoints in RUN.")] = False,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="What the run started from.")] = None,
    probes: Annotated[Path | None, typer.Option(metavar="FILE", help="Texts for --drift.")] = None,
    clusters: Annotated[
        bool,
        typer.Option(
            "--clusters", help="How the fingerprints RUN... gather: by capability, by architecture."
        ),
    ] = False,
    capability: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="For --clusters: of each file, in their order.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a job's numbers live in the terminal; or the drift of a run's checkpoints, or clusters of fingerprints."""
    if drift and clusters:
        raise ConfigError("--drift and --clusters were both asked for; ask for one of them.")
    if clusters:
        _clusters(run, capability or [], as_json=as_json)
        return
    if len(run) != 1:
        raise ConfigError(f"umaf monitor shows one run at a time, and {len(run)} were named; name one.")
    if drift:
        _drift(run[0], base, probes, as_json=as_json)
        return
    from umaf.monitor.read import read_run

    found = read_run(run[0])
    if as_json:
        print(json.dumps(facts(found), indent=2))
        return
    console = Console()
    if once or found.state != "running" or not console.is_terminal:
        console.print(screen(found))
        return
    with Live(screen(found), console=console, refresh_per_second=4) as live:
        while found.state == "running":
            time.sleep(every)
            found = read_run(run[0])
            live.update(screen(found))


def facts(run: Run) -> dict[str, Any]:
    """Put a run together for JSON: of each metric the last value, the least, the most, and how many steps."""
    metrics = {
        job: {
            name: {"step": steps[-1], "last": _number(values[-1]), **_ends(values), "steps": len(steps)}
            for name, (steps, values) in curves.items()
        }
        for job, curves in run.curves.items()
    }
    about = {key: getattr(run, key) for key in ("name", "state", "started", "ended", "error", "seconds")}
    return {**about, "metrics": metrics, "alarms": list(run.alarms)}


def screen(run: Run) -> Group:
    """Draw a run for a terminal."""
    colour = {"running": "green", "done": "blue"}.get(run.state, "red")
    head = Text.assemble(
        run.name, "  ", (run.state, f"bold {colour}"), f"  {run.seconds:.0f} s  {run.started}"
    )
    table = Table("job", "metric", title_justify="left")
    for column in ("step", "last", "least", "most"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("course", no_wrap=True)
    for job, curves in run.curves.items():
        for place, (name, (steps, values)) in enumerate(curves.items()):
            ends = _ends(values)
            shown = (_brief(values[-1]), _brief(ends["least"]), _brief(ends["most"]))
            table.add_row(
                escape(job) if not place else "", escape(name), str(steps[-1]), *shown, course(values)
            )
    alarms = [Text(f"alarm: {one}", style="bold red") for one in run.alarms[-8:]]
    error = [Text(f"failed: {run.error}", style="bold red")] if run.error else []
    return Group(head, table, *alarms, *error)


def course(values: Sequence[float], *, width: int = WIDTH) -> str:
    """Draw numbers as a line of bars, the mean of so many for each; a gap where there was no number.

    Example:
        >>> course([0.0, 1.0, 2.0, float("nan")])
        '▁▄█ '
    """
    size = max(1, -(-len(values) // width))
    parts = [
        [one for one in values[start : start + size] if math.isfinite(one)]
        for start in range(0, len(values), size)
    ]
    means = [sum(part) / len(part) if part else math.nan for part in parts]
    known = [one for one in means if math.isfinite(one)]
    if not known:
        return " " * len(means)
    low, high = min(known), max(known)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[int((one - low) * scale)] if math.isfinite(one) else " " for one in means)


def _ends(values: Sequence[float]) -> dict[str, float | None]:
    known = [value for value in values if math.isfinite(value)]
    return {"least": min(known, default=None), "most": max(known, default=None)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _brief(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _drift(folder: Path, base: str | None, probes: Path | None, *, as_json: bool) -> None:
    from umaf.activations import read_probes
    from umaf.cli.opening import stages
    from umaf.models import open_model
    from umaf.monitor.drift import checkpoints_of, drift

    if base is None or probes is None:
        raise ConfigError(
            "--drift needs what the run started from and texts to read; give --base and --probes."
        )
    checkpoints = checkpoints_of(folder)
    texts = read_probes(probes).texts
    with stages(quiet=as_json) as say:
        say(f"open {base}")
        rows = drift(open_model(base), checkpoints, texts, say=say)
    if as_json:
        plain = [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in asdict(row).items()
            }
            for row in rows
        ]
        print(json.dumps({"base": base, "checkpoints": plain}, indent=2))
        return
    table = Table("checkpoint", title="Drift of the fingerprint", title_justify="left")
    for column in ("step", "from the base", "turned since the last", "still ahead"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            escape(row.checkpoint), str(row.step), *map(_brief, (row.strength, row.turned, row.left))
        )
    console = Console()
    console.print(table)
    for row in rows:
        for sentence in row.alarms:
            console.print(f"alarm: {escape(sentence)}", style="bold red", highlight=False)


def _clusters(files: Sequence[Path], capabilities: Sequence[str], *, as_json: bool) -> None:
    from umaf.extraction import Fingerprint
    from umaf.extraction.similarity import similarities
    from umaf.monitor.clusters import capability_of, silhouettes

    paths = [path for one in files for path in (sorted(one.glob("*.safetensors")) if one.is_dir() else [one])]
    found = [Fingerprint.load(path) for path in paths]
    similarities(found)  # stops where they are of different spaces
    names = list(capabilities) or [capability_of(path.stem) for path in paths]
    if len(names) != len(paths):
        raise ConfigError(
            f"--capability was given {len(names)} times for {len(paths)} fingerprints; give it once for each."
        )
    kinds = [one.card.architecture for one in found]
    result = silhouettes([one.vector.flatten().tolist() for one in found], names, kinds)
    if as_json:
        print(json.dumps({"fingerprints": len(paths), **asdict(result)}, indent=2))
        return
    console = Console()
    for word, value in (("capability", result.capability), ("architecture", result.architecture)):
        text = "too few groups of two or more to say"
        if value is not None:
            text = f"{value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f}, {value.n} groups)"
        console.print(f"silhouette by {word}: {text}", highlight=False)
    console.print(f"spread: {result.spread:.3g} of their length", highlight=False)
    if result.alarm:
        console.print(f"alarm: {result.alarm}", style="bold red")
