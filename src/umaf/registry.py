"""A table of pluggable things, by name: what ships with umaf and what other packages add by entry point.

Nothing is imported until it is asked for, so that listing names is cheap. A package adds a similarity metric with

    [project.entry-points."umaf.similarities"]
    overlap = "my_package.metrics:overlap"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points

from umaf.errors import RegistryError, did_you_mean

GROUPS = (
    "umaf.similarities",
    "umaf.normalisations",
    "umaf.fusions",
    "umaf.scalings",
    "umaf.tasks",
    "umaf.architectures",
    "umaf.routes",
    "umaf.merge_methods",
    "umaf.stores",
    "umaf.rewards",
    "umaf.dispatchers",
)


class Registry:
    """The names of one kind of thing, each loaded on first use.

    Args:
        kind: what a name stands for, in the singular ("similarity"); used in messages.
        group: the entry point group other packages add to ("umaf.similarities").
        builtins: name to "module:name".

    Example:
        >>> shapes = Registry("counter", "umaf.counters", {"plain": "collections:Counter"})
        >>> shapes.names()
        ['plain']
        >>> shapes.get("plain")("aab")
        Counter({'a': 2, 'b': 1})
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtins = dict(builtins)

    def names(self) -> list[str]:
        """List every name, sorted, importing none.

        Raises:
            RegistryError: two packages claim one name.
        """
        return sorted(self._sources)

    def get(self, name: str) -> object:
        """Import and return what a name stands for.

        Raises:
            RegistryError: the name is unknown or claimed twice, or its module cannot be imported.
        """
        known = self._sources
        if name not in known:
            raise RegistryError(
                f"No {self.kind} is called {name!r}; there are {', '.join(self.names()) or 'none'}."
                f"{did_you_mean(name, known)}"
            )
        module, _, attribute = known[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as problem:
            raise RegistryError(
                f"The {self.kind} {name!r} is registered as {known[name]}, which cannot be imported ({problem}); "
                "reinstall the package it comes from."
            ) from problem

    @cached_property
    def _sources(self) -> dict[str, str]:
        sources = dict(self._builtins)
        for point in entry_points(group=self.group):
            claimed = sources.setdefault(point.name, point.value)
            # The same package can be seen twice, from a checkout and from an installed copy of it.
            if claimed != point.value:
                raise RegistryError(
                    f"Both {claimed} and {point.value} claim to be the {self.kind} {point.name!r}; "
                    "uninstall one of them or rename its entry point."
                )
        return sources
