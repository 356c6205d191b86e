"""What every command shares: its common options, and how a config file and the command line make one object.

    class CompareConfig(CommonConfig):
        models: tuple[str, ...]
        metric: str = "cosine"

    def compare(
        ctx: typer.Context,
        models: Annotated[list[str] | None, typer.Argument(help="Models.")] = None,
        metric: Annotated[str, typer.Option(help="Metric.")] = "cosine",
        seed: SeedOption = 0,
        device: DeviceOption = "cpu",
        dtype: DtypeOption = "float32",
        as_json: JsonOption = False,
        config: ConfigOption = None,
    ) -> None:
        settings = settle(CompareConfig, ctx)

What is typed wins over the file, the file over the config's own defaults. What a config requires is `= None` in the
command, so that a file can give it. `settle` refuses a command whose shown default is not the config's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from umaf.errors import ConfigError, did_you_mean

Dtype = Literal["float32", "bfloat16", "float16"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
DeviceOption = Annotated[str, typer.Option(help="Where models run: cpu, cuda, cuda:1, mps.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Number type models are loaded in.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML or JSON with this command's options.")
]


class CommonConfig(BaseModel):
    """The options every command has. A command's config adds its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    seed: int = 0
    device: str = "cpu"
    dtype: Dtype = "float32"


Kind = TypeVar("Kind", bound=BaseModel)


def settle(kind: type[Kind], ctx: typer.Context) -> Kind:
    """Make a command's config from what was typed and from its --config file.

    Args:
        kind: the config's class.
        ctx: the running command; its options are matched to fields by name.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, missing or of the wrong type.
    """
    name = ctx.info_name or "umaf"
    fields = kind.model_fields
    typed = {key: value for key, value in ctx.params.items() if key in fields and _was_typed(ctx, key)}
    for key in fields.keys() & ctx.params.keys() - typed.keys():
        shown = ctx.params[key]
        if shown not in (None, [], ()) and shown != fields[key].default:
            raise TypeError(
                f"umaf {name} shows {shown!r} as the default of {key}, its config has {fields[key].default!r}."
            )
    file = ctx.params.get("config")
    values = {**(read_config(file) if file else {}), **typed}
    return build(kind, values, name=name, file=file, typed_as=_typed_as(ctx))


def build(
    kind: type[Kind],
    values: Mapping[str, Any],
    *,
    name: str,
    file: Path | None = None,
    typed_as: Mapping[str, str] | None = None,
) -> Kind:
    """Make a config from plain values, with one sentence about the first thing that is wrong.

    Args:
        kind: the config's class.
        values: field names to values.
        name: the command, for the message.
        file: where the values were read from, for the message.
        typed_as: fields to how they are typed, such as "--rank", for the message; "--" and the name where not given.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong type.

    Example:
        >>> build(CommonConfig, {"seed": 3}, name="compare").seed
        3
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as problem:
        where = f"umaf {name}" + (f" with {file}" if file else "")
        raise ConfigError(f"{where}: {_sentence(kind, problem, typed_as or {})}") from None


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds a mapping of options.

    Raises:
        ConfigError: the file is not there, is neither YAML nor JSON, or holds something else than a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as problem:
        raise ConfigError(
            f"The config file {path} cannot be read ({problem.strerror}); name one that can."
        ) from problem
    except (ValueError, yaml.YAMLError) as problem:
        reason = " ".join(str(problem).split())
        raise ConfigError(
            f"The config file {path} is neither YAML nor JSON ({reason}); put that right."
        ) from problem
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"The config file {path} holds no mapping of options; write lines such as `seed: 1`."
        )
    return found


def _was_typed(ctx: typer.Context, key: str) -> bool:
    source = ctx.get_parameter_source(key)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT", "PROMPT")


def _typed_as(ctx: typer.Context) -> dict[str, str]:
    """Tell how each value of a command is typed: an argument by its name in capitals, an option with its dashes."""
    shown = {}
    for one in ctx.command.params:
        if one.name:
            shown[one.name] = one.name.upper() if one.param_type_name == "argument" else one.opts[0]
    return shown


def _sentence(kind: type[BaseModel], problem: ValidationError, typed_as: Mapping[str, str]) -> str:
    error = problem.errors(include_url=False)[0]
    key = ".".join(str(part) for part in error["loc"])
    flag = typed_as.get(key, "--" + key.replace("_", "-"))
    if error["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return f"there is no option {key!r}; there are {known}.{did_you_mean(key, kind.model_fields)}"
    if error["type"] == "missing":
        return f"{key!r} is needed and was not given; type it, as {flag}, or put it in a --config file."
    if error["type"] == "too_short":
        count = error.get("ctx", {})
        asked = f"at least {count.get('min_length')} and got {count.get('actual_length')}"
        return f"{key!r} needs {asked}; type more, as {flag}, or put them in a --config file."
    reason = error["msg"].removeprefix("Value error, ")
    return f"{key or 'the config'} was {error['input']!r}, but {reason[:1].lower()}{reason[1:].rstrip('.')}."
