"""`umaf expert add`: one expert made of several, or of one: added, scaled, negated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from umaf.cli.options import JsonOption
from umaf.errors import ConfigError


def add(
    out: Annotated[Path, typer.Argument(help="The new expert's folder; must not exist.")],
    parts: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR[=WEIGHT]...", help="Experts of one base; DIR=-1 negates, DIR=0.5 halves."
        ),
    ],
    description: Annotated[str, typer.Option(help="One line for people and dispatchers.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make one expert of several: their changes of the base, weighted, are added."""
    from umaf.experts import add as added
    from umaf.experts import load_expert, save_expert
    from umaf.experts.expert import Expert
    from umaf.files import refuse_existing

    refuse_existing(out)
    weighed = [part_of(text) for text in parts]
    experts = [load_expert(folder) for folder, _ in weighed]
    made = added(out.name, experts, [weight for _, weight in weighed])
    made = Expert(made.name, made.z, made.card.model_copy(update={"description": description}))
    save_expert(made, out)
    used = [(expert.name, weight) for expert, (_, weight) in zip(experts, weighed, strict=True)]
    if as_json:
        print(json.dumps({"out": str(out), "parts": dict(used)}, indent=2))
        return
    print(f"{out}: {' '.join(f'{weight:+g} {name}' for name, weight in used)}")


def part_of(text: str) -> tuple[Path, float]:
    """Read DIR, or DIR=WEIGHT.

    Example:
        >>> part_of("shelf/sums=-1")[1], part_of("shelf/sums")[1]
        (-1.0, 1.0)
    """
    if (Path(text) / "expert.json").is_file():  # a folder may have the sign in its name
        return Path(text), 1.0
    folder, sign, weight = text.rpartition("=")
    if not sign:
        return Path(text), 1.0
    try:
        return Path(folder), float(weight)
    except ValueError as problem:
        raise ConfigError(
            f"umaf expert add was given {text!r}; write DIR or DIR=WEIGHT, such as shelf/sums=0.5."
        ) from problem
