"""A base with the experts that can be mixed on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from umaf.adapters import is_stacked
from umaf.dispatch.decision import OTHER, Decision
from umaf.errors import ExpertError, did_you_mean
from umaf.experts.attach import attached
from umaf.experts.decompose import Factored, base_identity, decompose
from umaf.experts.expert import Expert, check_expert
from umaf.experts.mix import mix_rows, modules_of
from umaf.models import Model

_LAYER = re.compile(r"^(.*?\.\d+)\.")


class Shelved(Protocol):
    """What dispatchers and generation need of a shelf, whatever its experts are made of."""

    @property
    def model(self) -> Model:
        """The base."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names, in the order of their weights."""
        ...

    @property
    def descriptions(self) -> tuple[str, ...]:
        """One line per expert, "" where there is none."""
        ...

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that experts change, in the order of weights per module."""
        ...

    @property
    def rows_may_differ(self) -> bool:
        """Whether one batch may hold several mixtures."""
        ...

    def applied(self, weights: Tensor, *, tokens: int = 0) -> AbstractContextManager[Model]:
        """Put mixtures ``[row, expert]`` or ``[row, expert, module]`` on the base while it reads so many tokens."""
        ...


@dataclass(frozen=True)
class Shelf:
    """A base with experts of singular-value multipliers.

    Made by `open_shelf`, which checks that they belong together.

    Attributes:
        model: the base.
        experts: with names of their own.
        factored: the singular directions of every module that an expert changes.
    """

    model: Model
    experts: tuple[Expert, ...]
    factored: Mapping[str, Factored]

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names, in the order of their weights."""
        return tuple(expert.name for expert in self.experts)

    @property
    def descriptions(self) -> tuple[str, ...]:
        """One line per expert, "" where its card has none."""
        return tuple(expert.card.description for expert in self.experts)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that experts change, in the order of weights per module."""
        return modules_of(self.experts)

    @property
    def rows_may_differ(self) -> bool:
        """Whether one batch may hold several mixtures: not where experts of a mixture model are stacked."""
        return not any(is_stacked(self.model, name) for name in self.modules)

    @contextmanager
    def applied(self, weights: Tensor, *, tokens: int = 0) -> Iterator[Model]:
        """Put mixtures on the base while the block runs; the base's weights are not touched.

        Args:
            weights: ``[row, expert]`` or ``[row, expert, module]``, one row per row of the batch.
            tokens: how many will be read and written, as far as that is known; see `attached`.

        Yields:
            The base, answering each row with its mixture.
        """
        different, rows = torch.unique(weights.double(), dim=0, return_inverse=True)
        if not different.any():
            yield self.model
            return
        z = self._alone(different) if _picks(different) else mix_rows(self.experts, different)
        if len(different) == 1:
            one = {name: each[0] for name, each in z.items()}
            with attached(self.model, self.factored, one, tokens=tokens) as model:
                yield model
            return
        with attached(self.model, self.factored, z, rows=rows) as model:
            yield model

    def _alone(self, picks: Tensor) -> dict[str, Tensor]:
        """Give the experts' own multipliers where every row is one expert or the base; spares the mixing."""
        which = torch.where(picks.any(1), picks.argmax(1), len(self.experts))
        return {name: each[which] for name, each in self._all.items()}

    @cached_property
    def _all(self) -> dict[str, Tensor]:
        """Every expert's multipliers and, last, the base's, by module ``[expert, .., rank]``."""
        return mix_rows(
            self.experts, torch.cat([torch.eye(len(self.experts)), torch.zeros(1, len(self.experts))])
        )


def _picks(weights: Tensor) -> bool:
    """Say whether every row is one expert with weight 1, or none."""
    return weights.dim() == 2 and bool(
        ((weights == 0) | (weights == 1)).all() and (weights.sum(1) <= 1).all()
    )


def open_shelf(model: Model, experts: Sequence[Expert], *, cache: Path | None = None) -> Shelf:
    """Put experts on a shelf, checked once so that no request meets a misfit.

    Args:
        model: the base.
        experts: at least one.
        cache: a folder for the singular directions of bases, which take long to find for large ones.

    Returns:
        The shelf.

    Raises:
        ExpertError: no experts, two of one name, one called "other", one of another base, or modules that the base
            does not have.
    """
    check_names([expert.name for expert in experts])
    identity = base_identity(model)
    for expert in experts:
        check_expert(expert, model, identity=identity)
    return Shelf(model, tuple(experts), decompose(model, modules_of(experts), cache=cache))


def check_names(names: Sequence[str]) -> None:
    """Refuse a shelf on which a name does not mean one expert.

    Raises:
        ExpertError: no names, a name twice, or the name of the base's own part.
    """
    if not names:
        raise ExpertError("A shelf without experts was asked for; put at least one on it.")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ExpertError(f'Two experts on the shelf are called "{twice[0]}"; rename one of them.')
    if OTHER in names or any(not name.strip() for name in names):
        raise ExpertError(
            f'An expert on the shelf is called "{OTHER}" or nothing at all, but "{OTHER}" stands for requests that no '
            "expert is for; rename it."
        )


def layer_columns(modules: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Group modules by their layer.

    Returns:
        The layers' names, and for every module which of them it is in, ``[module]``.

    Example:
        >>> layer_columns(["m.layers.0.mlp.up", "m.layers.0.mlp.down", "m.layers.1.mlp.up"])
        (('m.layers.0', 'm.layers.1'), tensor([0, 0, 1]))
    """
    found = [match.group(1) if (match := _LAYER.match(name)) else name for name in modules]
    layers = tuple(dict.fromkeys(found))
    return layers, torch.tensor([layers.index(one) for one in found])


def by_name(shelf: Shelved, wanted: Mapping[str, float], *, rows: int = 1) -> Decision:
    """Make a decision of weights that somebody chose, the same for every row.

    Args:
        shelf: has the names.
        wanted: weights by name; names left out weigh nothing, none at all is the base.
        rows: how many.

    Raises:
        ExpertError: the shelf has no such expert, or a weight is not finite.
    """
    for name, weight in wanted.items():
        if name not in shelf.names and name != OTHER:
            raise ExpertError(
                f'The expert "{name}" was asked for, but the shelf has {", ".join(shelf.names)}.'
                f"{did_you_mean(name, shelf.names)}"
            )
        if not torch.isfinite(torch.tensor(float(weight))):
            raise ExpertError(f'The weight of the expert "{name}" is {weight}; give a finite number.')
    row = torch.tensor([float(wanted.get(name, 0.0)) for name in shelf.names], dtype=torch.float64)
    return Decision(shelf.names, row.expand(rows, -1).clone(), ("asked for by name",) * rows)
