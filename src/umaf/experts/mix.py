"""Mix experts: their changes of singular values are added, weighted.

    z' = 1 + sum_k w_k (z_k - 1)

Everything happens on the multipliers after the bound, in float64: one expert with weight 1 is that expert bit for bit,
and weights that are all zero give the base. Nothing divides by the sum of the weights, so no sum of them is special.
(The authors' release mixes the parameters before its sigmoid and divides by their sum, which makes an update many times
too large, and 0/0 of weights that are all zero.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umaf.errors import ExpertError
from umaf.experts.expert import Expert, ExpertCard

Weights = Tensor | Sequence[float] | Sequence[Sequence[float]]


def mix(experts: Sequence[Expert], weights: Weights) -> dict[str, Tensor]:
    """Give the multipliers of a mixture.

    A module that an expert does not have counts as unchanged by it.

    Args:
        experts: of one base.
        weights: any numbers, ``[expert]``, or ``[expert, module]`` with the modules as `modules_of` lists them.

    Returns:
        z by module, ``[.., rank]``; outside (0, 2) where weights add up to more than one or are negative.

    Raises:
        ExpertError: no experts, experts of several bases, or weights of another shape.

    Example:
        >>> card = ExpertCard(base="b", base_identity="i", architecture="llama", modules=("m",))
        >>> pair = [Expert(name, {"m": torch.tensor([z, 1.0])}, card) for name, z in (("a", 0.5), ("b", 1.2))]
        >>> mix(pair, [1.0, 0.5])["m"]
        tensor([0.6000, 1.0000])
        >>> mix(pair, [0.0, 0.0])["m"]
        tensor([1., 1.])
    """
    table = torch.as_tensor(weights, dtype=torch.float64)
    mixed = mix_rows(experts, table.unsqueeze(0))
    return {name: z.squeeze(0) for name, z in mixed.items()}


def mix_rows(experts: Sequence[Expert], weights: Weights) -> dict[str, Tensor]:
    """Give the multipliers of one mixture per row of a batch.

    Args:
        experts: of one base.
        weights: ``[row, expert]``, or ``[row, expert, module]``.

    Returns:
        z by module, ``[row, .., rank]``, float32.

    Raises:
        ExpertError: as `mix`.
    """
    names = modules_of(experts)
    table = torch.as_tensor(weights, dtype=torch.float64)
    if table.dim() == 2:
        table = table.unsqueeze(-1).expand(-1, -1, len(names))
    if table.dim() != 3 or table.shape[1:] != (len(experts), len(names)):
        found = list(torch.as_tensor(weights).shape[1:])
        raise ExpertError(
            f"{len(experts)} experts of {len(names)} modules were given weights of shape {found}; give one per expert, "
            "or one per expert and module."
        )
    if not torch.isfinite(table).all():
        raise ExpertError("A weight of a mixture is NaN or infinite; give finite numbers.")
    return {name: _mixed(experts, name, table[:, :, column]) for column, name in enumerate(names)}


def modules_of(experts: Sequence[Expert]) -> tuple[str, ...]:
    """List the modules that any of the experts scales, in the order of the first that has them.

    Raises:
        ExpertError: no experts, experts of several bases, or of different sizes.
    """
    if not experts:
        raise ExpertError("A mixture of no experts was asked for; give at least one.")
    first, shapes = experts[0], {}
    for expert in experts:
        if expert.card.base_identity != first.card.base_identity:
            raise ExpertError(
                f'Experts "{first.name}" ({first.card.base}) and "{expert.name}" ({expert.card.base}) are of different '
                "bases; mix experts of one."
            )
        for name, z in expert.z.items():
            if shapes.setdefault(name, z.shape) != z.shape:
                raise ExpertError(
                    f'Expert "{expert.name}" has {list(z.shape)} multipliers for "{name}", others have '
                    f"{list(shapes[name])}; mix experts of one base."
                )
    return tuple(shapes)


def add(name: str, experts: Sequence[Expert], weights: Weights | None = None) -> Expert:
    """Make one expert of several, by weights (1 for each when not given).

    Args:
        name: of the new expert.
        experts: of one base.
        weights: ``[expert]`` or ``[expert, module]``.
    """
    table = torch.ones(len(experts)) if weights is None else torch.as_tensor(weights)
    z, card = mix(experts, table), experts[0].card
    made = {"objective": "mixture", "parts": [each.name for each in experts], "weights": table.tolist()}
    return Expert(name, z, _card(card, tuple(z), made))


def scale(expert: Expert, factor: float, *, name: str | None = None) -> Expert:
    """Make an expert that changes every singular value `factor` times as much; 0 is the base.

    Example:
        >>> card = ExpertCard(base="b", base_identity="i", architecture="llama", modules=("m",))
        >>> scale(Expert("a", {"m": torch.tensor([0.5, 1.25])}, card), 2.0).z["m"]
        tensor([0.0000, 1.5000])
    """
    return add(name or f"{expert.name}*{factor:g}", [expert], [factor])


def negate(expert: Expert, *, name: str | None = None) -> Expert:
    """Make an expert that changes every singular value by as much the other way."""
    return scale(expert, -1.0, name=name or f"-{expert.name}")


def _card(card: ExpertCard, modules: tuple[str, ...], settings: dict) -> ExpertCard:
    return ExpertCard(
        base=card.base,
        base_identity=card.base_identity,
        architecture=card.architecture,
        modules=modules,
        objective="mixture",
        settings=settings,
        versions=card.versions,
    )


def _mixed(experts: Sequence[Expert], name: str, weights: Tensor) -> Tensor:
    """Mix one module for every row: weights ``[row, expert]`` to z ``[row, .., rank]``."""
    like = next(expert.z[name] for expert in experts if name in expert.z)
    stack = torch.stack([expert.z.get(name, torch.ones_like(like)) for expert in experts])
    mixed = (1 + torch.tensordot(weights, stack.double() - 1, 1)).to(stack.dtype)
    # 1 + (z - 1) can lose the last bits of a tiny z, and an expert alone has to stay as it is.
    alone = ((weights != 0).sum(1) == 1) & (weights == 1).any(1)
    mixed[alone] = stack[weights[alone].argmax(1)]
    return mixed
