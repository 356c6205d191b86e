"""YAML with a memory: where each key stood, and an error where a key is given twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from umaf.errors import ConfigError, did_you_mean

Place: TypeAlias = tuple[str | int, ...]
"""Where something stands: ("models", 1, "parameters", "density")."""

_EXPONENT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)[eE][+-]?\d+")


@dataclass(frozen=True)
class Document:
    """One YAML document, or a mapping made in Python.

    Attributes:
        data: what it says.
        lines: of each key and list entry; empty for a mapping made in Python.
        source: its file, for messages.
    """

    data: Any
    lines: Mapping[Place, int] = field(default_factory=dict)
    source: str = "the recipe"

    def error(self, place: Place, message: str) -> ConfigError:
        """Make the error for a place, with file and line where they are known.

        Example:
            >>> Document({}, {("models",): 3}, "a.yml").error(("models", 1), "It is empty.")
            ConfigError('a.yml, line 3: It is empty.')
        """
        return ConfigError(located(self.lines, self.source, place) + message)

    def check_keys(
        self,
        place: Place,
        given: Mapping[Any, Any],
        known: Iterable[str],
        what: str,
        *,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse keys that are not known.

        Args:
            place: of the mapping.
            given: the mapping.
            known: its keys.
            what: it is, for messages.
            elsewhere: keys that belong in another place, and what to do with them.

        Raises:
            ConfigError: the first that is not, with the nearest that is.
        """
        known = list(known)
        for key in given:
            if key in known:
                continue
            if (there := (elsewhere or {}).get(key)) is not None:
                raise self.error((*place, key), f"{what} has no key {key!r}; {there}.")
            hint = did_you_mean(str(key), known) or f" Its keys are {', '.join(known)}."
            raise self.error((*place, key), f"{what} has no key {key!r}.{hint}")


def located(lines: Mapping[Place, int], source: str, place: Place) -> str:
    """Give "file, line 3: " for a place, or for the nearest one above it whose line is known; "" without a file.

    Example:
        >>> located({("models",): 3}, "a.yml", ("models", 1, "model"))
        'a.yml, line 3: '
    """
    for length in range(len(place), 0, -1):
        if (line := lines.get(place[:length])) is not None:
            return f"{source}, line {line}: "
    return f"{source}: " if lines else ""


def read_documents(text: str, source: str = "the recipe") -> list[Document]:
    """Read every document of a YAML text.

    Numbers such as 1e-5, which YAML 1.1 takes for words, are numbers here.

    Raises:
        ConfigError: it is no YAML, a key comes twice, or there is nothing in it.

    Example:
        >>> documents = read_documents("a: 1e-5\\nb: [x]")
        >>> documents[0].data, documents[0].lines["b",]
        ({'a': 1e-05, 'b': ['x']}, 2)
    """
    loader = yaml.SafeLoader(text)
    documents = []
    try:
        while loader.check_node():
            lines: dict[Place, int] = {}
            node = loader.get_node()
            if node is not None:
                documents.append(Document(_value(loader, node, (), lines, source), lines, source))
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        what = getattr(problem, "problem", None) or str(problem).split("\n")[0]
        raise ConfigError(f"{source}{where}: this is not YAML ({what}); mend it.") from problem
    finally:
        loader.dispose()
    documents = [one for one in documents if one.data is not None]
    if not documents:
        raise ConfigError(f"{source} holds no recipe: it is empty.")
    return documents


def read_file(path: str | Path) -> list[Document]:
    """Read every document of a YAML file; see `read_documents`.

    Raises:
        ConfigError: it cannot be read, or holds no YAML.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise ConfigError(f"The recipe {path} cannot be read ({reason}); check the path.") from problem
    except UnicodeDecodeError as problem:
        raise ConfigError(f"The recipe {path} is not UTF-8 text; save it as such.") from problem
    return read_documents(text, str(path))


def _value(
    loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: dict[Place, int], source: str
) -> Any:
    if len(place) > 60 or len(lines) > 200_000:
        raise ConfigError(
            f"{source}, line {node.start_mark.line + 1}: the recipe is nested too deeply, or too long."
        )
    if isinstance(node, yaml.SequenceNode):
        entries = []
        for number, one in enumerate(node.value):
            lines[(*place, number)] = one.start_mark.line + 1
            entries.append(_value(loader, one, (*place, number), lines, source))
        return entries
    if not isinstance(node, yaml.MappingNode):
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if plain and node.tag == "tag:yaml.org,2002:str" and _EXPONENT.fullmatch(node.value):
            return float(node.value)
        return loader.construct_object(node, deep=True)
    _refuse_repeats(node, source)
    loader.flatten_mapping(node)
    mapping = {}
    for key_node, one in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            raise ConfigError(
                f"{source}, line {key_node.start_mark.line + 1}: a key must be a word, got {key!r}."
            )
        lines[(*place, key)] = key_node.start_mark.line + 1
        mapping[key] = _value(loader, one, (*place, key), lines, source)
    return mapping


def _refuse_repeats(node: yaml.MappingNode, source: str) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.value in seen and isinstance(key, yaml.ScalarNode):
            raise ConfigError(
                f"{source}, line {line}: the key {key.value!r} is given twice, first in line {seen[key.value]}; "
                "keep one of them."
            )
        if isinstance(key, yaml.ScalarNode):
            seen[key.value] = line
