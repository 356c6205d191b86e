"""tokenizer.json as data: which token has which number, and a file with the tokens of several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umaf.errors import CheckpointError

FILE = "tokenizer.json"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one model.

    Attributes:
        where: the file, for messages.
        ids: number of each token.
        added: tokens that are matched before anything else, with their settings.
        data: the whole file.
    """

    where: str
    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]

    @property
    def size(self) -> int:
        """One more than the largest number."""
        return max(self.ids.values(), default=-1) + 1


def read_vocabulary(folder: str | Path) -> Vocabulary:
    """Read the tokens of a model's folder.

    Raises:
        CheckpointError: there is no tokenizer.json, or it cannot be read.
    """
    path = Path(folder) / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return vocabulary_of(data, where=str(path))
    except OSError as problem:
        raise CheckpointError(
            f"Tokens are to be brought together, but {path} cannot be read ({problem.strerror}); save that model's "
            "fast tokenizer beside its weights."
        ) from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(
            f"{path} is no tokenizer file ({problem!r}); save the tokenizer again."
        ) from problem


def vocabulary_of(data: Mapping[str, Any], *, where: str = FILE) -> Vocabulary:
    """Take the tokens out of the content of a tokenizer.json: of BPE, WordPiece, WordLevel or Unigram.

    Example:
        >>> made = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": [{"id": 2, "content": "<x>"}]}
        >>> dict(vocabulary_of(made).ids)
        {'a': 0, 'b': 1, '<x>': 2}
    """
    vocab = data["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, Mapping) else {token: i for i, (token, _) in enumerate(vocab)}
    added = {str(one["content"]): one for one in data.get("added_tokens") or ()}
    ids.update({token: int(one["id"]) for token, one in added.items()})
    return Vocabulary(where, ids, added, data)


def unite(vocabularies: Sequence[Vocabulary], *, extra: Sequence[str] = ()) -> Vocabulary:
    """Make the vocabulary that has the tokens of all.

    The tokens of the first keep their numbers; what others add follows, model by model, by number. Ordinary tokens of
    byte-pair vocabularies come with the merges that lead to them, so that they are found in text.

    Args:
        vocabularies: of the models, the one that leads first.
        extra: tokens that none of them need have.

    Example:
        >>> one, two = ({"model": {"type": "WordPiece", "vocab": vocab}} for vocab in ({"a": 0}, {"b": 0, "a": 1}))
        >>> dict(unite([vocabulary_of(one), vocabulary_of(two)]).ids)
        {'a': 0, 'b': 1}
    """
    first = vocabularies[0]
    data = json.loads(json.dumps(first.data))
    ids, added = dict(first.ids), list(data.get("added_tokens") or [])
    free = first.size
    for other in vocabularies[1:]:
        new = [token for token in sorted(other.ids, key=other.ids.__getitem__) if token not in ids]
        for token in new:
            ids[token] = free
            free += 1
        _enter(data["model"], other, new, ids, added)
    for token in extra:
        if token not in ids:
            ids[token] = free
            free += 1
            added.append(_settings(token, ids[token]))
    data["added_tokens"] = sorted(added, key=lambda one: one["id"])
    return Vocabulary(first.where, ids, {str(one["content"]): one for one in added}, data)


def _enter(
    model: dict[str, Any],
    other: Vocabulary,
    new: Sequence[str],
    ids: Mapping[str, int],
    added: list[dict[str, Any]],
) -> None:
    """Write the new tokens of one vocabulary into the file of the union."""
    kind = model.get("type")
    alike = other.data["model"].get("type") == kind and isinstance(model["vocab"], dict)
    for token in new:
        if token in other.added:
            added.append({**other.added[token], "id": ids[token]})
        elif alike:
            model["vocab"][token] = ids[token]
        else:
            # In a Unigram file the place is the number, and places behind the list may be taken: match it as it is.
            added.append(_settings(token, ids[token]))
    if alike and "merges" in model and new:
        known = {_pair(merge) for merge in model["merges"]}
        made, text = set(new), bool(model["merges"]) and isinstance(model["merges"][0], str)
        for merge in other.data["model"].get("merges") or ():
            left, right = _pair(merge)
            if left + right in made and (left, right) not in known and left in ids and right in ids:
                model["merges"].append(f"{left} {right}" if text else [left, right])


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _settings(token: str, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
