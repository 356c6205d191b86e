"""A config object as the command line that makes it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def words_of(command: str, config: BaseModel, *, positional: Sequence[str] = ()) -> list[str]:
    """Write what has to be typed after `umaf` for a command to get this config; defaults are left out.

    Args:
        command: its name.
        config: any command's frozen config.
        positional: fields that are arguments, in their order.

    Example:
        >>> class Config(BaseModel):
        ...     recipe: str
        ...     seed: int = 0
        ...     resume: bool = False
        >>> words_of("merge", Config(recipe="r.yml", resume=True), positional=["recipe"])
        ['merge', 'r.yml', '--resume']
    """
    kept = {
        name: value
        for name in type(config).model_fields
        if not _is_default(config, name) and (value := getattr(config, name)) is not None
    }
    words = [command, *(str(kept.pop(name)) for name in positional if name in kept)]
    for name, value in kept.items():
        words += _option("--" + name.replace("_", "-"), value)
    return words


def _is_default(config: BaseModel, name: str) -> bool:
    default = type(config).model_fields[name].get_default(call_default_factory=True)
    return default is not PydanticUndefined and getattr(config, name) == default


def _option(flag: str, value: Any) -> Iterator[str]:
    if value is True:
        yield flag
        return
    values = value if isinstance(value, tuple) else (value,)
    if values and all(isinstance(one, float) for one in values):
        values = (",".join(f"{one:g}" for one in values),)
    for one in values:
        text = ",".join(one) if isinstance(one, tuple) else str(one)
        # A value that begins with a dash would be read as an option.
        yield from (f"{flag}={text}",) if text.startswith("-") else (flag, text)


def line_of(words: Sequence[str]) -> str:
    r"""Write a command as a shell takes it, one option on a line.

    Example:
        >>> print(line_of(["merge", "my recipe.yml", "out", "--seed", "3"]))
        umaf merge 'my recipe.yml' out \
            --seed 3
    """
    lines = ["umaf"]
    for word in words:
        if word.startswith("--"):
            lines.append("    " + shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return " \\\n".join(lines)
