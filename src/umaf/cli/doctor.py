"""`umaf doctor`: what is installed, on which machine, and what umaf finds there."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf import __version__
from umaf.cli.options import (
    CommonConfig,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    SeedOption,
    settle,
)
from umaf.errors import UmafError

# Kept equal to pyproject.toml by a test.
CORE = (
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "scipy",
    "scikit-learn",
    "pydantic",
    "pyyaml",
    "typer",
    "rich",
)
EXTRAS = {
    "report": ("matplotlib", "plotly", "jinja2"),
    "index": ("lancedb",),
    "search": ("cmaes",),
    "ray": ("ray",),
    "eval": ("lm-eval",),
    "serve": ("fastapi", "uvicorn"),
    "data": ("datasets",),
    "monitor": ("tensorboard",),
}


# A product of two matrices of random numbers in bfloat16 is off by some 0.4 % in the mean.
SIZE, RIGHT = 64, 0.02


class DoctorConfig(CommonConfig):
    """What `umaf doctor` tries: a device, in a number type."""


def doctor(
    ctx: typer.Context,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show versions, devices, and what is installed and found; exit 1 when something umaf needs is missing.

    --device and --dtype are tried with a small product of matrices, whose numbers the seed draws.
    """
    found = examine(settle(DoctorConfig, ctx))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Console())
    if found["problems"]:
        raise typer.Exit(1)


def examine(settings: CommonConfig | None = None) -> dict:
    """Collect what `umaf doctor` prints, as JSON can hold it.

    Whatever cannot be imported becomes a sentence under "problems": a broken installation is what this is for.

    Example:
        >>> sorted(examine())[:4]
        ['core', 'cores', 'data', 'devices']
    """
    settings = settings or DoctorConfig()
    problems: list[str] = []
    core = {name: _version(name) for name in CORE}
    for name, number in core.items():
        if number is None:
            problems.append(f"{name} is needed and not installed; run `pip install {name}`.")
    return {
        "umaf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "core": core,
        "extras": {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
        "devices": _devices(problems),
        "tried": _tried(settings, problems),
        "zoo": _zoo(problems),
        "data": _data(problems),
        "problems": problems,
    }


def show(found: dict, console: Console) -> None:
    """Print what `examine` found as tables."""
    table = Table(title=f"umaf {found['umaf']}", title_justify="left", show_header=False)
    table.add_row("python", f"{found['python']} on {found['platform']}, {found['cores']} cores")
    table.add_row("devices", ", ".join(found["devices"]) or "none")
    tried = found["tried"]
    if tried:
        works = "works" if tried["works"] else "does not work"
        table.add_row("tried", escape(f"{tried['device']} in {tried['dtype']}: {works}"))
    table.add_row("core", "\n".join(_line(name, number) for name, number in found["core"].items()))
    for extra, packages in found["extras"].items():
        table.add_row(f"\\[{extra}]", "\n".join(_line(name, number) for name, number in packages.items()))
    zoo = ", ".join(found["zoo"])
    table.add_row("zoo", zoo or "empty; build it with `umaf zoo build`")
    table.add_row(
        "real data", escape(found["data"] or "") or "not found (needed by no command; see the how-to on data)"
    )
    console.print(table)
    for problem in found["problems"]:
        console.print(f"[red]{escape(problem)}[/red]")


def _line(name: str, number: str | None) -> str:
    return f"{name} {number}" if number else f"[dim]{name} not installed[/dim]"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices(problems: list[str]) -> list[str]:
    try:
        import torch
    except (ImportError, OSError) as problem:
        problems.append(f"torch cannot be imported ({problem}); reinstall it.")
        return []
    found = [f"cpu ({torch.get_num_threads()} threads)"]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({about.name}, {about.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _tried(settings: CommonConfig, problems: list[str]) -> dict | None:
    """Multiply two small matrices on the device, and compare with what they give in float64."""
    try:
        import torch
    except (ImportError, OSError):
        return None  # said by _devices
    draw = torch.Generator().manual_seed(settings.seed)
    left, right = torch.randn(2, SIZE, SIZE, generator=draw, dtype=torch.float64)
    tried = {"device": settings.device, "dtype": settings.dtype, "works": False}
    try:
        kind = getattr(torch, settings.dtype)
        found = (left.to(settings.device, kind) @ right.to(settings.device, kind)).double().cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as problem:
        reason = str(problem).splitlines()[0].rstrip(".")
        problems.append(f"The device {settings.device!r} cannot be used in {settings.dtype} ({reason}).")
        return tried
    tried["works"] = bool((found - left @ right).norm() <= RIGHT * (left @ right).norm())
    if not tried["works"]:
        problems.append(
            f"The device {settings.device!r} multiplies wrongly in {settings.dtype}; update its driver, or use another."
        )
    return tried


def _zoo(problems: list[str]) -> list[str]:
    try:
        from umaf.models.locate import zoo_names
    except (ImportError, OSError) as problem:
        problems.append(f"umaf.models cannot be imported ({problem}); reinstall umaf and what it needs.")
        return []
    return zoo_names()


def _data(problems: list[str]) -> str | None:
    try:
        from umaf.tasks.door import find_data

        folder = find_data(None)
    except ImportError as problem:
        problems.append(f"umaf.tasks cannot be imported ({problem}); reinstall umaf and what it needs.")
        return None
    except UmafError as mistake:
        problems.append(str(mistake))
        return None
    return str(folder) if folder else None
