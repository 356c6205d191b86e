"""The pieces that both forms of a recipe are read with: models, layers, dtypes, tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umaf.errors import ConfigError, did_you_mean
from umaf.merging.recipes.recipe import DTYPES, Dtype, Token, Tokenizer
from umaf.merging.recipes.reference import Ref, parse_ref
from umaf.merging.recipes.yaml_file import Document, Place


@dataclass
class Reading:
    """What is gathered while a document is read.

    Attributes:
        document: that is read.
        lines: line of each place of the recipe that is made.
        notes: what there is to say about it.
        seed: a seed found on the way.
    """

    document: Document
    lines: dict[Place, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seed: Any = 0

    def line(self, goes: Place, place: Place) -> None:
        """Remember that what stands at `place` of the document goes to `goes` of the recipe."""
        if (line := self.document.lines.get(place)) is not None:
            self.lines[goes] = line

    def note(self, sentence: str) -> None:
        """Say something about the recipe, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


def read_list(read: Reading, raw: Any, place: Place, *, needed: bool = False) -> Sequence[Any]:
    """Read a list; None is an empty one.

    Raises:
        ConfigError: it is no list, or empty though it is there.
    """
    if raw is None and not needed:
        return ()
    if not isinstance(raw, (list, tuple)) or not raw:
        raise read.document.error(place, f"{place[-1]} must be a list with at least one entry, got {raw!r}.")
    return raw


def read_model(read: Reading, raw: Any, place: Place, goes: Place, *, needed: bool = False) -> Any:
    """Read a model, and remember the line it stands in; None where there is none.

    Raises:
        ConfigError: it is no model, or there is none though it is needed.
    """
    read.line(goes, place)
    if raw is None and not needed:
        return None
    try:
        return parse_ref(raw, where=str(place[-1]))
    except ConfigError as problem:
        raise read.document.error(place, str(problem)) from problem


def read_layers(read: Reading, raw: Any, place: Place, goes: Place) -> tuple[int, int]:
    """Read a run of layers: [first, one after the last].

    Raises:
        ConfigError: it is not two whole numbers that go up from 0.
    """
    read.line(goes, place)
    pair = tuple(raw) if isinstance(raw, (list, tuple)) else ()
    if len(pair) != 2 or not all(isinstance(one, int) and not isinstance(one, bool) for one in pair):
        raise read.document.error(place, f"{place[-1]} must be [first, one after the last], got {raw!r}.")
    if not 0 <= pair[0] < pair[1]:
        raise read.document.error(place, f"{place[-1]} must go up from 0 or more, got {list(pair)}.")
    return pair[0], pair[1]


def read_dtype(read: Reading, raw: Any, place: Place) -> Dtype | None:
    """Read the name of a dtype, long or short.

    Raises:
        ConfigError: it is no floating-point dtype that can be stored.
    """
    if raw is None:
        return None
    name = str(raw).removeprefix("torch.").lower()
    if name not in DTYPES:
        hint = did_you_mean(name, DTYPES) or " It can be float32, bfloat16, float16 or float64."
        raise read.document.error(place, f"{place[-1]}: there is no dtype {raw!r}.{hint}")
    return DTYPES[name]


def read_text(read: Reading, raw: Any, place: Place) -> str | None:
    """Read a word or a text; None where there is none.

    Raises:
        ConfigError: it is something else.
    """
    if raw is None or (isinstance(raw, str) and raw):
        return raw
    raise read.document.error(place, f"{place[-1]} must be a text, got {raw!r}.")


def read_words(read: Reading, raw: Any, place: Place) -> tuple[str, ...]:
    """Read a list of words; None is an empty one.

    Raises:
        ConfigError: it is something else.
    """
    words = tuple(read_list(read, raw, place))
    if not all(isinstance(one, str) for one in words):
        raise read.document.error(place, f"{place[-1]} is a list of words, got {list(words)!r}.")
    return words


def read_seed(read: Reading, raw: Any, place: Place) -> int:
    """Read a seed.

    Raises:
        ConfigError: it is no whole number from 0.
    """
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        raise read.document.error(place, f"{place[-1]} must be a whole number from 0, got {raw!r}.")
    return raw


def read_tokenizer(read: Reading, raw: Any, place: Place) -> Tokenizer | None:
    """Read how vocabularies are brought together.

    Args:
        read: the reading.
        raw: {source:, tokens:, pad_to_multiple_of:}, or the source alone.
        place: where it stands.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    read.line(("tokenizer",), place)
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raw = {"source": raw}
    read.document.check_keys(place, raw, ("source", "tokens", "pad_to_multiple_of"), "tokenizer")
    padding = raw.get("pad_to_multiple_of")
    if padding is not None and (isinstance(padding, bool) or not isinstance(padding, int) or padding < 1):
        raise read.document.error(
            (*place, "pad_to_multiple_of"),
            f"pad_to_multiple_of must be a whole number from 1, got {padding!r}.",
        )
    tokens = raw.get("tokens") or {}
    if not isinstance(tokens, Mapping):
        raise read.document.error(
            (*place, "tokens"), f"tokens is a mapping of token to its source, got {tokens!r}."
        )
    return Tokenizer(
        source=_vocabulary(read, raw.get("source", "union"), (*place, "source")),
        tokens={str(token): _token(read, one, (*place, "tokens", token)) for token, one in tokens.items()},
        pad_to_multiple_of=padding,
    )


def _vocabulary(read: Reading, raw: Any, place: Place) -> Any:
    if raw in ("union", "base"):
        return raw
    if isinstance(raw, str) and raw.startswith("model:"):
        raw = raw.removeprefix("model:")
    return _model(read, raw, place)


def _model(read: Reading, raw: Any, place: Place) -> Ref:
    return read_model(read, raw, place, ("tokenizer", *place[1:]), needed=True)


def _token(read: Reading, raw: Any, place: Place) -> Token:
    if not isinstance(raw, Mapping):
        raise read.document.error(place, f"A token's entry is a mapping with source and force, got {raw!r}.")
    read.document.check_keys(place, raw, ("source", "force"), "A token's entry")
    force = raw.get("force", False)
    if not isinstance(force, bool):
        raise read.document.error((*place, "force"), f"force must be true or false, got {force!r}.")
    source, spot = raw.get("source"), (*place, "source")
    if not isinstance(source, Mapping) or "kind" not in source:
        return Token(source=_model(read, source, spot) if source is not None else None, force=force)
    kind = source["kind"]
    if kind == "zero":
        read.document.check_keys(spot, source, ("kind",), "A source of kind zero")
        return Token(zero=True, force=force)
    if kind != "model_token":
        raise read.document.error((*spot, "kind"), f"kind must be zero or model_token, got {kind!r}.")
    read.document.check_keys(
        spot, source, ("kind", "model", "token", "token_id"), "A source of kind model_token"
    )
    if ("token" in source) == ("token_id" in source):
        raise read.document.error(
            spot, "A source of kind model_token has either token or token_id; give one of them."
        )
    number = source.get("token_id")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
        raise read.document.error(
            (*spot, "token_id"), f"token_id must be a whole number from 0, got {number!r}."
        )
    model = _model(read, source.get("model"), (*spot, "model"))
    return Token(source=model, token=source.get("token"), token_id=number, force=force)
