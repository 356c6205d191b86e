"""How a checkpoint's names are laid out: which of them belong to which layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NUMBERED = re.compile(r"^((?:[^.]+\.)*?)(\d+)\.(.+)$")
_STACKS = {
    "layers",
    "layer",
    "h",
    "block",
    "blocks",
    "transformer_layers",
    "encoder_layers",
    "decoder_layers",
}
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclass(frozen=True)
class Outline:
    """The layers of a checkpoint.

    Attributes:
        prefix: of the names in its main stack of layers, "model.layers."; "" without layers.
        layers: for each layer of the main stack: what follows the number -> the whole name.
        rest: names outside the main stack, in the order of the file.
        stacks: every stack by its prefix: how many layers it has.
    """

    prefix: str = ""
    layers: tuple[Mapping[str, str], ...] = ()
    rest: tuple[str, ...] = ()
    stacks: Mapping[str, int] = field(default_factory=dict)

    def depth(self, name: str) -> float:
        """Give the depth of a tensor outside the main stack: 0, or where its layer lies in its own stack.

        Example:
            >>> names = [f"{part}.block.{layer}.w" for part in ("encoder", "decoder") for layer in range(3)]
            >>> outline(names).depth("decoder.block.1.w")
            0.5
        """
        place = layer_of(name)
        if place is None or place[0] not in self.stacks:
            return 0.0
        return depth_of(place[1], self.stacks[place[0]])


def depth_of(layer: int, layers: int) -> float:
    """Give the depth of a layer among others, from 0 to 1; a single one lies at 1, as in mergekit.

    Example:
        >>> depth_of(0, 5), depth_of(4, 5), depth_of(0, 1)
        (0.0, 1.0, 1.0)
    """
    return layer / (layers - 1) if layers > 1 else 1.0


def layer_of(name: str) -> tuple[str, int, str] | None:
    """Split a name at the number of its layer.

    Example:
        >>> layer_of("model.layers.11.mlp.experts.3.w1.weight")
        ('model.layers.', 11, 'mlp.experts.3.w1.weight')
        >>> layer_of("lm_head.weight")
    """
    found = _NUMBERED.match(name)
    return (found.group(1), int(found.group(2)), found.group(3)) if found else None


def outline(names: Iterable[str], config: Mapping[str, Any] | None = None) -> Outline:
    """Find the layers of a checkpoint.

    The main stack is the one with as many layers as the config says, or else the one with most tensors.

    Args:
        names: of the tensors.
        config: config.json; None for bare files.

    Example:
        >>> found = outline(["embed.weight", "layers.0.w", "layers.1.w", "norm.weight"])
        >>> found.prefix, len(found.layers), found.rest
        ('layers.', 2, ('embed.weight', 'norm.weight'))
    """
    names = list(names)
    stacks: dict[str, dict[int, dict[str, str]]] = {}
    for name in names:
        if (place := layer_of(name)) is not None:
            stacks.setdefault(place[0], {}).setdefault(place[1], {})[place[2]] = name
    whole = {
        prefix: layers
        for prefix, layers in stacks.items()
        if max(layers) == len(layers) - 1 and prefix.rstrip(".").rpartition(".")[2] in _STACKS
    }
    if not whole:
        return Outline(rest=tuple(names))
    said = layer_count(config or {})
    agreeing = [prefix for prefix, layers in whole.items() if len(layers) == said]
    prefix = max(agreeing or whole, key=lambda one: sum(map(len, whole[one].values())))
    main = whole[prefix]
    inside = {name for layer in main.values() for name in layer.values()}
    return Outline(
        prefix,
        tuple(main[number] for number in range(len(main))),
        tuple(name for name in names if name not in inside),
        {one: len(layers) for one, layers in whole.items()},
    )


def layer_count(config: Mapping[str, Any]) -> int | None:
    """Give the number of layers a config tells; None where it does not.

    Example:
        >>> layer_count({"num_hidden_layers": 12}), layer_count({"text_config": {"n_layer": 2}}), layer_count({})
        (12, 2, None)
    """
    for one in (config, config.get("text_config") or {}):
        for key in _COUNTS:
            if isinstance(one.get(key), int):
                return one[key]
    return None


def with_layers(
    config: Mapping[str, Any], origins: Sequence[tuple[Mapping[str, Any], int]]
) -> dict[str, Any]:
    """Change a config for layers that come from elsewhere.

    Lists with an entry for each layer (`layer_types`) are put together from the configs of the origins.

    Args:
        config: of the donor.
        origins: for each layer of the result: the config of the model it comes from, and its number there.

    Returns:
        The keys that change.

    Example:
        >>> config = {"num_hidden_layers": 2, "layer_types": ["full", "sliding"], "n": 3}
        >>> with_layers(config, [(config, 0), (config, 1), (config, 1)])
        {'num_hidden_layers': 3, 'layer_types': ['full', 'sliding', 'sliding']}
    """
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and layer_count({**config, "text_config": None}) is None:
        below = [(one.get("text_config") or {}, layer) for one, layer in origins]
        return {"text_config": {**inner, **with_layers(inner, below)}}
    count = layer_count(config)
    changed: dict[str, Any] = {key: len(origins) for key in _COUNTS if isinstance(config.get(key), int)}
    for key, value in config.items():
        if key != "architectures" and isinstance(value, list) and count and len(value) == count:
            lists = [(one.get(key), layer) for one, layer in origins]
            if all(isinstance(one, list) and layer < len(one) for one, layer in lists):
                changed[key] = [one[layer] for one, layer in lists if one is not None]
    return changed
