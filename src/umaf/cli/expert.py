"""`umaf expert`: train experts, list, show, count and add them, and have them in other forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from umaf.cli.expert_add import add
from umaf.cli.expert_train import train
from umaf.cli.opening import ModelConfig, PickleOption, RemoteOption, opener
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.experts import Expert, ExpertCard, Factored
    from umaf.models import Model

expert = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train, list, show, add and export experts: singular-value multipliers.",
)

expert.command("train")(train)
expert.command("add")(add)

Form = Literal["lora", "merged", "compressed"]


class ExportConfig(ModelConfig):
    """The options of `umaf expert export`."""

    folder: Path
    out: Path
    form: Form = "lora"
    base: str | None = None
    rank: int | None = Field(default=None, ge=1)
    keep: int | None = Field(default=None, ge=1)
    bits: Literal[8] | None = None
    cache: Path | None = None


@expert.command("list")
def list_experts(
    folder: Annotated[Path, typer.Argument(help="A folder with experts in it, at any depth.")] = Path(
        "experts"
    ),
    as_json: JsonOption = False,
) -> None:
    """List the experts in a folder: name, base, objective, score, numbers, size."""
    from umaf.experts import read_card

    if not folder.is_dir():
        raise ConfigError(
            f"Experts in {folder} were asked for, but there is no such folder; name one that holds experts."
        )
    places = sorted(path.parent for path in folder.rglob("expert.json"))
    rows = [_row(place, *read_card(place)) for place in places]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print(f"There are no experts in {folder}; `umaf expert train` makes one.")
        return
    table = Table("name", "base", "objective", "scores", title=f"{len(rows)} in {escape(str(folder))}")
    table.add_column("kB", justify="right")
    table.add_column("folder")
    for row in rows:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in row["scores"].items())
        cells = (row["name"], row["base"], row["objective"], scores, f"{row['kilobytes']:.1f}", row["folder"])
        table.add_row(*(escape(cell) for cell in cells))
    Console().print(table)


@expert.command("show")
def show(
    folder: Annotated[Path, typer.Argument(help="The expert's folder.")],
    as_json: JsonOption = False,
) -> None:
    """Show an expert: its card, how far it leaves the base, and its numbers beside a LoRA of rank 16."""
    from umaf.experts import load_expert

    found = load_expert(folder)
    facts = {**_row(folder, found.name, found.card), "numbers": _numbers(found), "modules": _spread(found)}
    facts |= _beside_lora(found)
    facts |= {key: value for key, value in found.card.model_dump(mode="json").items() if key not in facts}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    console, table = Console(), Table.grid(padding=(0, 2))
    for key in (
        "name",
        "description",
        "base",
        "architecture",
        "objective",
        "reward",
        "data",
        "settings",
        "scores",
    ):
        if facts[key]:
            table.add_row(
                key, escape(str(facts[key]) if isinstance(facts[key], str) else json.dumps(facts[key]))
            )
    beside = f"; {facts['share']:.2%} of a LoRA of rank 16 ({facts['lora16']:,})" if facts["lora16"] else ""
    size = f"{facts['numbers']:,} in {len(facts['modules'])} modules, {facts['kilobytes']:.1f} kB"
    table.add_row("numbers", size + beside)
    console.print(table)
    spread = Table("module", title="multipliers of singular values (1 changes nothing)")
    for heading in ("numbers", "lowest", "highest", "mean change"):
        spread.add_column(heading, justify="right")
    for name, one in facts["modules"].items():
        numbers = (f"{one[key]:.3f}" for key in ("lowest", "highest", "mean_change"))
        spread.add_row(escape(name), str(one["numbers"]), *numbers)
    console.print(spread)


@expert.command("count")
def count_parameters(
    model: Annotated[str, typer.Argument(help="A model, or a folder or file with a config alone.")],
    modules: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="attention, mlp, or a part of names; once for each."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA it is set beside.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Count an expert's numbers beside a LoRA's, from a model's config; no weight is read."""
    from umaf.experts import count, from_config
    from umaf.models.locate import locate

    place = model if Path(model).is_file() else locate(model)
    found = count(from_config(place), modules or None, rank=rank)
    facts = {
        "model": model, "modules": found.modules, "svf": found.svf, "lora": found.lora, "rank": rank,
        "share": found.share, "weights": found.weights,
    }  # fmt: skip
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    print(
        f"{model}: an expert on {found.modules} weights has {found.svf:,} numbers, {found.share:.2%} of the "
        f"{found.lora:,} of a LoRA of rank {rank}."
    )


@expert.command("export")
def export(
    ctx: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="The expert's folder.")] = None,
    out: Annotated[Path | None, typer.Argument(help="A folder that does not exist yet.")] = None,
    form: Annotated[
        Form, typer.Option(help="lora, merged (a checkpoint), or compressed (an expert).")
    ] = "lora",
    base: Annotated[
        str | None, typer.Option(help="The base; the one the expert names when left out.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="lora: directions per weight; all when left out.")] = None,
    keep: Annotated[int | None, typer.Option(help="compressed: directions per weight to keep.")] = None,
    bits: Annotated[int | None, typer.Option(help="compressed: 8 bits per number.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decompositions of bases.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Write an expert as a LoRA for PEFT, as a merged checkpoint, or compressed; say what was lost."""
    from umaf.experts import check_expert, load_expert
    from umaf.files import refuse_existing

    settings = settle(ExportConfig, ctx)
    refuse_existing(settings.out)
    _check_options(settings)
    found = load_expert(settings.folder)
    model = opener(settings)(settings.base or found.card.base)
    check_expert(found, model)
    error = _export(found, model, _factors(found, model, settings.cache), settings)
    facts = {"out": str(settings.out), "form": settings.form, "expert": found.name, "error": error}
    print(
        json.dumps(facts, indent=2)
        if as_json
        else f"{settings.out}: {settings.form}, {error:.3%} of the change lost."
    )


def _export(found: Expert, model: Model, factored: dict[str, Factored], settings: ExportConfig) -> float:
    from umaf.experts import compress, merged, save_expert, to_lora

    if settings.form == "lora":
        return to_lora(found, model, factored, settings.out, rank=settings.rank or "whole").error
    if settings.form == "merged":
        return merged(found, model, factored, settings.out).error
    small, error = compress(found, factored, keep=settings.keep, bits=settings.bits)
    save_expert(small, settings.out)
    return error


def _check_options(settings: ExportConfig) -> None:
    belongs = {"rank": "lora", "keep": "compressed", "bits": "compressed"}
    odd = next(
        (key for key, form in belongs.items() if getattr(settings, key) and settings.form != form), None
    )
    if odd is not None:
        raise ConfigError(
            f"--{odd} belongs to --form {belongs[odd]}, and --form {settings.form} was asked for; leave one."
        )
    if settings.form == "compressed" and settings.keep is None and settings.bits is None:
        raise ConfigError("--form compressed needs --keep N, --bits 8, or both; say how much is to stay.")


def _factors(found: Expert, model: Model, cache: Path | None) -> dict[str, Factored]:
    from umaf.experts import decompose

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("decompose", total=len(found.z))
        return decompose(model, list(found.z), cache=cache, progress=lambda _: progress.advance(bar))


def _beside_lora(found: Expert) -> dict[str, Any]:
    """Count a LoRA of rank 16 on the same weights, from the base's config; None where the base is not at hand."""
    from umaf.errors import UmafError
    from umaf.experts import count, from_config
    from umaf.models.locate import locate

    try:
        place = Path(locate(found.card.base))
        known = count(from_config(place), found.card.modules) if place.exists() else None
    except UmafError:
        known = None
    return {"lora16": known.lora if known else None, "share": _numbers(found) / known.lora if known else None}


def _row(folder: Path, name: str, card: ExpertCard) -> dict[str, Any]:
    from umaf.experts.expert import CARD, WEIGHTS

    size = sum((folder / part).stat().st_size for part in (CARD, WEIGHTS) if (folder / part).is_file())
    return {
        "name": name,
        "folder": str(folder),
        "base": card.base,
        "architecture": card.architecture,
        "objective": card.objective,
        "reward": card.reward,
        "description": card.description,
        "scores": card.scores,
        "kilobytes": round(size / 1000, 1),
    }


def _numbers(found: Expert) -> int:
    return sum(z.numel() for z in found.z.values())


def _spread(found: Expert) -> dict[str, dict[str, float]]:
    return {
        name: {
            "numbers": z.numel(),
            "lowest": round(float(z.min()), 6),
            "highest": round(float(z.max()), 6),
            "mean_change": round(float((z - 1).abs().mean()), 6),
        }
        for name, z in found.z.items()
    }
