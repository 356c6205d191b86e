"""What people fill in, turned into the files and the config of a command, by the checks of the command itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umaf.activations import check_probes
from umaf.errors import ConfigError
from umaf.merging.recipes.read import read_stages
from umaf.merging.registry import METHODS
from umaf.web.places import Places
from umaf.web.words import words_of

Build = Callable[[Mapping[str, Any]], BaseModel]
"""Makes a command's config from plain values, and says in one sentence what is wrong with them."""


class Form(BaseModel):
    """What every form is: unknown fields are mistakes, and texts have a length."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_max_length=200_000)


class TransferForm(Form):
    """A transfer from one source; the meaning of the fields is that of the command's options."""

    source: str = ""
    target: str = ""
    probes: str = ""
    base: str = ""
    labels: str = ""
    cue: str = ""
    route: Literal["solve", "distill", "generate"] = "solve"
    rank: int = 8
    steps: int | None = None
    truncate: bool = False
    evaluate: str = ""
    seed: int = 0


class MergedModel(Form):
    """One model of a merge, and its weight where the method takes one."""

    model: str = ""
    weight: float | None = None


class MergeForm(Form):
    """A merge; options are lines "name: value"."""

    method: str = "linear"
    base: str = ""
    models: tuple[MergedModel, ...] = Field(default=(), max_length=64)
    options: str = ""
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""
    seed: int = 0


@dataclass(frozen=True)
class Order:
    """What a form asks for.

    Attributes:
        command: "transfer" or "merge".
        words: what is typed after `umaf`.
        files: name -> content of what has to lie in the job's folder first.
        out: the folder that is written.
    """

    command: str
    words: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    out: Path = Path()


def order(command: str, values: Any, folder: Path, *, places: Places, builds: Mapping[str, Build]) -> Order:
    """Turn a form into an order.

    Args:
        command: a key of `builds`.
        values: of the form.
        folder: of the job, where its files will lie; nothing is written yet.
        places: what may be read.
        builds: the commands' own configs.

    Raises:
        ConfigError: a field is wrong; the sentence is the command's own where it knows one.
        UmafError: whatever else the command says of it.
    """
    if command == "transfer" and command in builds:
        return _transfer(_filled(TransferForm, values), folder, places, builds[command])
    if command == "merge" and command in builds:
        return _merge(_filled(MergeForm, values), folder, places, builds[command])
    raise ConfigError(
        f"The command {command[:40]!r} was asked for, but this page starts {', '.join(builds)}; choose one of them."
    )


def _transfer(form: TransferForm, folder: Path, places: Places, build: Build) -> Order:
    texts = [line.strip() for line in form.probes.splitlines() if line.strip()]
    tasks = tuple(form.evaluate.replace(",", " ").split())
    for task in tasks:
        if not re.fullmatch(r"[a-z0-9_]+(/[\w-]+)+|[a-z0-9_]+", task):
            raise ConfigError(
                f"The task {task[:60]!r} is no name of a task; name one such as made/sentiment."
            )
    values: dict[str, Any] = {
        "source": (form.source.strip(),) if form.source.strip() else (),
        "probes": (folder / "probes.txt",),
        "out": folder / "adapter",
        "route": form.route,
        "rank": form.rank,
        "steps": form.steps,
        "truncate": form.truncate,
        "evaluate": tasks,
        "seed": form.seed,
        "monitor": folder / "run",
    }
    values |= {"target": form.target.strip()} if form.target.strip() else {}
    for name in ("base", "cue"):
        values |= {name: (getattr(form, name).strip(),)} if getattr(form, name).strip() else {}
    values |= {"labels": [form.labels]} if form.labels.strip() else {}
    if not values["source"]:
        raise ConfigError("A transfer needs a source, the model that has the capability; name one.")
    config = build(values)
    for name in (*values["source"], form.target.strip(), *values.get("base", ())):
        places.check_model(name)
    check_probes(texts)
    words = words_of("transfer", config)
    return Order("transfer", tuple(words), {"probes.txt": "\n".join(texts) + "\n"}, folder / "adapter")


def _merge(form: MergeForm, folder: Path, places: Places, build: Build) -> Order:
    models = [one for one in form.models if one.model.strip()]
    if not models:
        raise ConfigError("A merge needs models, and none was named; name two or more.")
    recipe: dict[str, Any] = {"umaf": 1, "method": form.method}
    recipe |= {"base": places.check_model(form.base.strip())} if form.base.strip() else {}
    recipe["models"] = [
        places.check_model(one.model.strip())
        if one.weight is None
        else {"model": places.check_model(one.model.strip()), "options": {"weight": one.weight}}
        for one in models
    ]
    options = _options(form.options)
    recipe |= {"options": options} if options else {}
    recipe |= {"dtype": form.dtype} if form.dtype else {}
    recipe |= {"seed": form.seed} if form.seed else {}
    METHODS.get(form.method)
    read_stages(recipe)
    config = build({"recipe": folder / "recipe.yml", "out": folder / "merged"})
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    words = words_of("merge", config, positional=("recipe", "out"))
    return Order("merge", tuple(words), {"recipe.yml": text}, folder / "merged")


def _options(text: str) -> dict[str, Any]:
    """Read lines of options; values are numbers, words or flags, so that none can name a file or a model."""
    if not text.strip():
        return {}
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(name, str)
        and isinstance(value, bool | int | float | str)
        and not re.search(r"[/\\~]", str(value))
        for name, value in found.items()
    ):
        raise ConfigError(
            "The options were to be lines such as `density: 0.5`, and are not; write one on each line."
        )
    return found


def _filled(kind: type[Any], values: Any) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        name = ".".join(str(part) for part in error["loc"]) or "the form"
        reason = error["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"The field {name} was {str(error['input'])[:60]!r}, but {reason[:1].lower()}{reason[1:]}."
        ) from None
