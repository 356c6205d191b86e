"""What was read from a base is kept for its next expert: the last few, known by the hash of their weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

from umaf.models import Model, weights_hash

KEPT = 4
_read: OrderedDict[Hashable, Any] = OrderedDict()
_lock = Lock()

T = TypeVar("T")


def read_once(model: Model, how: Hashable, read: Callable[[], T]) -> T:
    """Return what was read from a model of these weights in this way, or read it.

    Args:
        model: an opened model; one that was changed since is another one.
        how: all else that decides what is read.
        read: reads it; what it returns must not be changed afterwards.
    """
    key = (weights_hash(model), model.head, str(model.device), how)
    with _lock:
        if key in _read:
            _read.move_to_end(key)
            return _read[key]
    found = read()
    with _lock:
        _read[key] = found
        while len(_read) > KEPT:
            _read.popitem(last=False)
    return found
