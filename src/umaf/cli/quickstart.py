"""`umaf quickstart`: see a capability move between architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.opening import stages
from umaf.cli.options import (
    CommonConfig,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    SeedOption,
    settle,
)

if TYPE_CHECKING:
    from umaf.quickstart.found import Outcome


class QuickstartConfig(CommonConfig):
    """What `umaf quickstart` does; sizes can be changed in a config file."""

    out: Path = Path("out/quickstart")
    labelled: int = Field(default=1000, ge=64)
    probes: int = Field(default=256, ge=64)
    tests: int = Field(default=400, ge=1)
    expert_steps: int = Field(default=150, ge=1)
    oracle_steps: int = Field(default=200, ge=1)
    distill_steps: int = Field(default=240, ge=1)
    iterations: int = Field(default=12, ge=1)
    rank: int = Field(default=8, ge=1)


def quickstart(
    ctx: typer.Context,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where everything goes; an earlier quickstart there is replaced."),
    ] = Path("out/quickstart"),
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Move two capabilities from two architectures into a third, measure it, and write a report."""
    settings = settle(QuickstartConfig, ctx)
    from umaf.quickstart.plan import Plan
    from umaf.quickstart.run import quickstart as run

    plan = Plan(**settings.model_dump(exclude={"out"}))
    with stages(quiet=as_json) as say:
        outcome = run(plan, settings.out, say=say)
    if as_json:
        print(json.dumps({"out": str(settings.out), **outcome.record.numbers}, indent=2))
    else:
        show(outcome, Console())


def show(outcome: Outcome, console: Console) -> None:
    """Print the similarities, the scores, and where everything is."""
    compared = outcome.compared
    alike = Table(title="How alike the fingerprints are (cosine)", title_justify="left")
    alike.add_column("")
    for number in range(1, len(compared.names) + 1):
        alike.add_column(str(number), justify="right")
    for number, (name, row) in enumerate(zip(compared.names, compared.table.tolist(), strict=True), start=1):
        alike.add_row(f"{number} {escape(name)}", *(f"{value:.2f}" for value in row))
    console.print(alike)

    routes = ("solve", "distill", "generate")
    names = ("source", "bare", *routes, "oracle")
    table = Table("held-out texts", title="Share answered rightly", title_justify="left")
    gains = Table("recovery, with 95 % intervals", title_justify="left")
    for heading in names:
        table.add_column(heading, justify="right")
    for heading in routes:
        gains.add_column(heading, justify="right")
    for cell in outcome.cells:
        row = f"{cell.capability}, {cell.level}"
        table.add_row(row, *(f"{cell.scores[name].value:.2f}" for name in names))
        found = (cell.recovery[route] for route in routes)
        gains.add_row(
            row, *("–" if one is None else f"{one.value:.2f} ({one.low:.2f}–{one.high:.2f})" for one in found)
        )
    console.print(table)
    console.print(gains)
    place = escape(str(outcome.out))
    console.print(
        "Recovery: 0 is the bare target, 1 an oracle, a LoRA trained on labels.\n"
        f"The adapter kept is that of {outcome.route}: {place}/adapter\n"
        f"Report {place}/report.html, numbers {place}/record.json, {outcome.seconds:.0f} s.",
        highlight=False,
        soft_wrap=True,
    )
