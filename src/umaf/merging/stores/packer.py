"""What a way of packing is: deltas of several experts into few bytes, and one expert's delta back.

`pack` sees one tensor of all experts at a time, `[expert, *shape]` float32, and gives named parts; `unpack` gives the
delta of a mixture of experts back from the parts, for weights that say how much of each. What belongs to the experts
as wholes (a scale per expert, a threshold) is the `totals`: what `measure` found over all tensors before packing,
and what `total` makes of every tensor's parts after it. A way that keeps numbers takes `dtype`, the format to keep
them in: that of the base, so that nothing is lost that the base's format could hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from umaf.errors import ConfigError
from umaf.merging.contract import Option, options_of
from umaf.registry import Registry

Parts = Mapping[str, Tensor]
"""Named pieces of one packed tensor."""


@dataclass(frozen=True)
class Packer:
    """A way of packing experts.

    Attributes:
        pack: `pack(deltas [expert, *shape], totals=…, dtype=…, **options) -> parts`; the first two where it has them.
        unpack: `unpack(parts, weights [expert], shape, totals) -> delta [*shape]`.
        source: the paper whose rule it is.
        measure: `measure(passes, models=…, **options it names) -> totals`, before packing; None when not needed.
        total: `total([parts, …]) -> totals`, after packing; None when not needed.
        per_tensor: names of parts that `total` reads and that need not be kept.
    """

    pack: Callable[..., dict[str, Tensor]]
    unpack: Callable[[Parts, Tensor, Sequence[int], Parts], Tensor]
    source: str
    measure: Callable[..., dict[str, Tensor]] | None = None
    total: Callable[[Sequence[Parts]], dict[str, Tensor]] | None = None
    per_tensor: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As asked for on the command line."""
        return self.pack.__name__

    @property
    def keeps_numbers(self) -> bool:
        """Tell whether `pack` wants to know in which format to keep numbers."""
        return "dtype" in inspect.signature(self.pack).parameters

    @property
    def options(self) -> dict[str, Option]:
        """The keywords of `pack`."""
        return options_of(self.pack)


PACKERS = Registry(
    "way of packing experts",
    "umaf.stores",
    {name: f"umaf.merging.stores.{name}:PACKER" for name in ("compeft", "emr", "rmm", "tall_masks", "twin")},
)


def packer_of(name: str) -> Packer:
    """Look a way of packing up by name.

    Raises:
        RegistryError: no such way.
        ConfigError: what is registered is none.

    Example:
        >>> packer_of("emr").name
        'emr'
    """
    found = PACKERS.get(name)
    if not isinstance(found, Packer):
        raise ConfigError(
            f"The way of packing {name!r} is registered as a {type(found).__name__}; register a Packer."
        )
    return found
