"""Numbers of a running job, told to whoever listens; where nobody does, it costs nothing.

A training loop says `tell("distill", step, loss=...)` and needs no argument for it; `umaf.monitor` listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, Mapping[str, float]], object]

_LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("umaf_listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear every number that is told inside the block; blocks can lie in each other.

    Args:
        listener: called with the job's name, its step, and the numbers by name.

    Example:
        >>> heard = []
        >>> with listening(lambda job, step, numbers: heard.append((job, step, dict(numbers)))):
        ...     tell("distill", 3, loss=0.5)
        >>> heard
        [('distill', 3, {'loss': 0.5})]
    """
    token = _LISTENERS.set((*_LISTENERS.get(), listener))
    try:
        yield
    finally:
        _LISTENERS.reset(token)


def heard() -> bool:
    """Say whether anybody listens, for numbers that cost something to make.

    Example:
        >>> heard()
        False
    """
    return bool(_LISTENERS.get())


def tell(job: str, step: int, **numbers: float) -> None:
    """Tell the numbers of a step; nothing happens where nobody listens.

    Example:
        >>> tell("distill", 0, loss=1.0)
    """
    for listener in _LISTENERS.get():
        listener(job, step, numbers)
