"""What a collection is: a folder of models, a list file, a query to the hub, or models by their names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import HfHubHTTPError

from umaf.errors import StoreError
from umaf.index.space import CUE
from umaf.index.told import Ask
from umaf.models.locate import adapter_base, locate

MARKS = ("config.json", "adapter_config.json")
LISTED = ("model", "base", "scores", "licence", "name", "about", "cue", "labels")


@dataclass(frozen=True)
class Candidate:
    """A model to be fingerprinted.

    Attributes:
        place: what `open_model` opens.
        base: the model it was fine-tuned from; None where nobody says.
        name: what it is called in the store.
        licence: as its card, or the list, says.
        about: first words of its card.
        scores: measured scores by task, from the list.
        asks: what it can be asked, and what it can say, by its card or the list.
    """

    place: str
    base: str | None
    name: str
    licence: str | None = None
    about: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    asks: tuple[Ask, ...] = ()


def collect(sources: Sequence[str], *, base: str | None = None, limit: int = 100) -> list[Candidate]:
    """Find the models that are asked for.

    Args:
        sources: each a model (folder, hub id, zoo:NAME), a folder of models, a .txt or .jsonl list, or "hub:QUERY".
        base: the base of all that name none; "none" keeps those that name one from using it.
        limit: at most so many models of a query to the hub.

    Returns:
        Candidates, each place once, in the order of the sources; those of a folder by name.

    Raises:
        StoreError: a source with no model in it, or a line of a list that cannot be read.
        ModelError: a name that leads nowhere.

    Example:
        >>> [one.name for one in collect(["zoo:llama-1m"])]
        ['llama-1m']
    """
    found: dict[str, Candidate] = {}
    for source in sources:
        for one in _of(source, base, limit):
            found.setdefault(one.place, one)
    return list(found.values())


def _of(source: str, base: str | None, limit: int) -> Iterable[Candidate]:
    if source.startswith("hub:"):
        return [_candidate(name, base) for name in _asked(source.removeprefix("hub:"), limit)]
    path = Path(source).expanduser()
    if path.is_file():
        return _listed(path, base)
    place = locate(source)
    if not Path(place).is_dir() or _is_model(Path(place)):
        return [
            _candidate(place, base, name=source.removeprefix("zoo:") if source.startswith("zoo:") else None)
        ]
    folders = _models_below(Path(place))
    if not folders:
        raise StoreError(
            f"The folder {source} was given as a collection, but no model lies in it or two folders below; a model is "
            "a folder with a config.json or an adapter_config.json."
        )
    root = Path(place)
    return [_candidate(str(one), base, name=one.relative_to(root).as_posix()) for one in folders]


def _is_model(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def _models_below(folder: Path, depth: int = 3) -> list[Path]:
    """List model folders; one inside another model, such as an adapter kept with its base, is listed too."""
    found: list[Path] = []
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            found += [child] if _is_model(child) else []
            found += _models_below(child, depth - 1) if depth > 1 else []
    return found


def _listed(path: Path, base: str | None) -> list[Candidate]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found.append(_of_line(line, f"{path}, line {number}", path.suffix == ".jsonl", base))
    if not found:
        raise StoreError(f"The list {path} names no model; write one hub id or folder per line.")
    return found


def _of_line(line: str, where: str, is_json: bool, base: str | None) -> Candidate:
    if not is_json:
        model, *rest = line.split()
        if len(rest) > 1:
            raise StoreError(
                f"{where} was read as a model and its base, but has {len(rest) + 1} words; write one or two, or use a "
                ".jsonl file."
            )
        return _candidate(locate(model), rest[0] if rest else base)
    try:
        row = json.loads(line)
        unknown = set(row) - set(LISTED)
        if not isinstance(row.get("model"), str) or unknown:
            raise ValueError(f"it has {', '.join(row) or 'nothing'}")
        scores = {str(task): float(value) for task, value in (row.get("scores") or {}).items()}
        asks = _asks([row] if "labels" in row else [])
    except (ValueError, TypeError, AttributeError) as problem:
        raise StoreError(
            f'{where} cannot be read as a model ({problem}); write {{"model": …}} with any of {", ".join(LISTED[1:])}.'
        ) from None
    made = _candidate(locate(row["model"]), row.get("base") or base, name=row.get("name"))
    return Candidate(
        made.place,
        made.base,
        made.name,
        row.get("licence") or made.licence,
        row.get("about") or made.about,
        scores,
        asks or made.asks,
    )


def _candidate(place: str, base: str | None, *, name: str | None = None) -> Candidate:
    """Complete a model by what its folder says of it."""
    folder = Path(place)
    if not folder.is_dir():
        return Candidate(place, base, name or place)
    card = read_card(folder)
    own = adapter_base(place) or base or card.base
    return Candidate(place, own, name or folder.name, card.licence, card.about, asks=card.asks)


@dataclass(frozen=True)
class Card:
    """What a folder's README.md says of a model.

    Attributes:
        licence: or None.
        about: its first words.
        base: or None.
        asks: what it can be asked, and what it can say.
    """

    licence: str | None = None
    about: str = ""
    base: str | None = None
    asks: tuple[Ask, ...] = ()


def read_card(folder: Path) -> Card:
    """Read a folder's README.md; all is empty where there is none.

    Its head may say what the model answers, under `umaf`, `asks`: a list of `cue` and `labels`. What cannot be read
    there counts as not said.
    """
    path = folder / "README.md"
    if not path.is_file():
        return Card()
    text = path.read_text(encoding="utf-8", errors="replace")
    data: object = {}
    if text.startswith("---\n"):
        head, _, text = text[4:].partition("\n---\n")
        try:
            data = yaml.safe_load(head)
        except yaml.YAMLError:
            data = {}
    told = data if isinstance(data, dict) else {}
    base, own = told.get("base_model"), told.get("umaf")
    base = base[0] if isinstance(base, list) and base else base
    about = " ".join(line for line in text.split("\n") if line.strip())[:2000]
    licence = told.get("license")
    try:
        asks = _asks(own["asks"]) if isinstance(own, dict) and "asks" in own else ()
    except (ValueError, TypeError, KeyError):
        asks = ()
    return Card(
        licence if isinstance(licence, str) else None, about, base if isinstance(base, str) else None, asks
    )


def _asks(rows: Iterable[Mapping[str, Any]]) -> tuple[Ask, ...]:
    found = []
    for row in rows:
        labels = tuple(str(label) for label in row["labels"])
        if isinstance(row["labels"], str) or len(set(labels)) < 2:
            raise ValueError("labels are two words or more")
        found.append(Ask(str(row.get("cue") or CUE), labels))
    return tuple(found)


def _asked(query: str, limit: int) -> list[str]:
    from huggingface_hub import HfApi

    try:
        found = [model.id for model in HfApi().list_models(search=query or None, limit=limit)]
    except (HfHubHTTPError, OSError) as problem:
        first = str(problem).splitlines()[0].rstrip(".")
        raise StoreError(
            f"The hub was asked for models that match {query!r}, and did not answer ({first}); check the connection."
        ) from problem
    if not found:
        raise StoreError(f"The hub has no model that matches {query!r}; use other words.")
    return found
