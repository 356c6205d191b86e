"""What a recipe calls a model: a folder, a file, a hub id or a stage, at a revision, with LoRAs on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from umaf.errors import ConfigError

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class Ref(BaseModel):
    """A model, as a recipe names it.

    Attributes:
        path: a folder, a .safetensors file, a hub id, or the name of a stage of the same recipe.
        revision: branch, tag or commit, for hub ids.
        lora: adapters that are added to it, in this order; they have no adapters of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    revision: str | None = None
    lora: tuple[Ref, ...] = ()

    @property
    def is_lora(self) -> bool:
        """It is a LoRA by itself, without a model that it is put on: a folder, or a hub id that was fetched before."""
        if self.lora:
            return False
        folder = self.folder
        if not (folder / "adapter_config.json").is_file():
            return False
        return not any((folder / name).is_file() for name in _WEIGHTS)

    @property
    def folder(self) -> Path:
        """Where its files are: the path, or the folder that a hub id was fetched into; nobody is asked for it."""
        place = Path(self.path).expanduser()
        if place.exists() or self.path.count("/") != 1 or self.path.startswith((".", "~", "/")):
            return place
        return _fetched(self.path, self.revision) or place

    def __str__(self) -> str:
        """Give it as a recipe writes it: "org/model@main+org/adapter"."""
        own = self.path if self.revision is None else f"{self.path}@{self.revision}"
        return "+".join([own, *map(str, self.lora)])


def _fetched(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "adapter_config.json", revision=revision)
    except HFValidationError:  # a path that cannot be a hub id
        return None
    return Path(found).parent if isinstance(found, str) else None


def parse_ref(value: Any, *, where: str = "model") -> Ref:
    """Read a model from "path[@revision][+lora[@revision]]…" or from {model:, revision:, lora:}.

    A path that exists as it is written wins: a folder called "b+c" or "run@3" is that folder.

    Args:
        value: the text or mapping of the recipe, or a `Ref`, which is given back.
        where: the key it stands under, for messages.

    Raises:
        ConfigError: a part is empty, or the mapping has other keys.

    Example:
        >>> parse_ref("org/model@main+org/adapter")
        Ref(path='org/model', revision='main', lora=(Ref(path='org/adapter', revision=None, lora=()),))
        >>> str(parse_ref({"model": "org/model", "lora": "org/adapter"}))
        'org/model+org/adapter'
    """
    if isinstance(value, Ref):
        return value
    if isinstance(value, Path):
        return Ref(path=str(value))
    if isinstance(value, Mapping):
        return _from_mapping(value, where)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where} must be a path or a hub id, got {value!r}.")
    pieces = _split(value)
    if not all(pieces):
        raise ConfigError(f"{where}: {value!r} has an empty part; write model, model@revision or model+lora.")
    model, *adapters = map(_at_revision, pieces)
    return model.model_copy(update={"lora": tuple(adapters)})


def _exists(text: str) -> bool:
    return bool(text) and Path(text).expanduser().exists()


def _split(text: str) -> list[str]:
    """Split at plus signs, but never inside a path that exists."""
    if _exists(text) or "+" not in text:
        return [text]
    parts = text.split("+")
    for size in range(len(parts), 0, -1):
        first = "+".join(parts[:size])
        if _exists(first) or _exists(first.rpartition("@")[0]):
            rest = "+".join(parts[size:])
            return [first, *(_split(rest) if size < len(parts) else [])]
    return [parts[0], *_split("+".join(parts[1:]))]


def _at_revision(text: str) -> Ref:
    path, mark, revision = text.rpartition("@")
    if not mark or _exists(text):
        return Ref(path=text)
    if not path or not revision:
        raise ConfigError(f"{text!r} has an empty part beside its @; write model@revision.")
    return Ref(path=path, revision=revision)


def _from_mapping(value: Mapping[str, Any], where: str) -> Ref:
    own = dict(value)
    if isinstance(path := own.get("path"), str) and set(own) <= {"path", "revision"}:
        # mergekit's explicit form of a model or a LoRA: the path is taken as it is, whatever signs are in it.
        revision = own.get("revision")
        return Ref(path=path, revision=None if revision is None else str(revision))
    inner = own.pop("model", None)
    if inner is None:
        raise ConfigError(
            f"{where} must be a path, or a mapping with the keys model, revision and lora, got {dict(value)!r}."
        )
    model = parse_ref(inner, where=where)
    if (revision := own.pop("revision", None)) is not None:
        model = model.model_copy(update={"revision": str(revision)})
    adapters = own.pop("lora", None)
    if own.pop("override_architecture", None) is not None:
        raise ConfigError(
            f"{where}: override_architecture is not known here: names come from the files; leave it out."
        )
    if own:
        raise ConfigError(
            f"{where} has no key {next(iter(own))!r}; a model has the keys model, revision and lora."
        )
    if adapters is None:
        return model
    listed = adapters if isinstance(adapters, (list, tuple)) else [adapters]
    found = tuple(parse_ref(one, where=f"{where}: lora") for one in listed)
    return model.model_copy(update={"lora": model.lora + found})
