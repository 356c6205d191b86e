"""An expert on its base, without rewriting a weight: y = W x + u((s (z - 1)) (vh x)).

Three forms of the same sum are used, whichever multiplies less, module by module:

- the change alone, as above, on those rows and directions whose z is not 1: a row that no expert changes keeps its
  output bit for bit, and a sparse expert costs its few directions;
- the whole weight, u((s z) (vh x)), in place of W x: for a dense expert on every row this costs (out + in) rank
  products per token instead of out in + (out + in) rank. It differs from the first by rounding; unless it is asked
  for, it is used for inference in float32 only, so that training begins at the base bit for bit;
- merged, u diag(s z) vh as one matrix beside the base's, made when the block begins and dropped at its end: for one
  expert on all rows, where so many tokens are announced that making it costs less than it saves.

Modules are reached through their own ``forward``, which gets its place back when the block ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from umaf.adapters import is_stacked
from umaf.errors import ExpertError
from umaf.experts.decompose import Factored
from umaf.experts.products import product
from umaf.models import Model, bare

Form = Literal["auto", "change", "whole"]
Forward = Callable[..., Tensor]


@contextmanager
def attached(
    model: Model,
    factored: Mapping[str, Factored],
    z: Mapping[str, Tensor],
    *,
    rows: Tensor | None = None,
    form: Form = "auto",
    tokens: int = 0,
) -> Iterator[Model]:
    """Put multipliers on a base while the block runs.

    Works with `generate` and its cache: a row of a batch keeps its multipliers through every step. Where a batch is
    larger than the rows of z by a whole factor (several samples or beams per row, or tokens laid out in one axis),
    each row of z serves that many neighbours.

    Args:
        model: the base; an adapter around it stays active.
        factored: what `decompose` gave for the base; more modules than z has do no harm.
        z: by module, ``[rank]`` for one expert on all rows, or ``[row, rank]``, each row its own; for stacked
            experts of a mixture ``[expert, rank]``, the same for all rows. May require gradients, which flow into z.
        rows: which row of z serves each row of the batch, ``[row]``; row by row when not given.
        form: "change" or "whole" to force one form, where it applies; "whole" makes training about a third faster.
        tokens: how many will be read and written while the block runs, as far as that is known; with many, one
            expert for all rows is merged for that time, into memory of its own.

    Yields:
        The model.

    Raises:
        ExpertError: a module that was not decomposed, z of another size, or rows that the batch does not fit.

    Example:
        >>> from umaf.models import open_model
        >>> base, name = open_model("zoo:llama-1m"), "model.layers.0.mlp.up_proj"
        >>> from umaf.experts.decompose import decompose
        >>> ids = torch.tensor([[5, 6, 7]])
        >>> with torch.no_grad(), attached(base, decompose(base, [name]), {name: torch.full((128,), 1.5)}):
        ...     changed = base.net(ids).logits
        >>> bool((base.net(ids).logits == changed).all())
        False
    """
    net = bare(model.net)
    with ExitStack() as stack:
        for name, multipliers in z.items():
            if name not in factored:
                raise ExpertError(
                    f'Multipliers for "{name}" were given, but "{model.name}" was not decomposed there; pass its '
                    "factors too."
                )
            _check(name, factored[name], multipliers)
            if is_stacked(model, name):
                path, _, leaf = name.rpartition(".")
                stacked = _Stacked(leaf, factored[name], _one(name, multipliers, rows))
                stack.enter_context(_shadowed(_plain(net.get_submodule(path)), stacked))
                continue
            module = _plain(net.get_submodule(name))
            chosen = multipliers if rows is None or multipliers.dim() == 1 else multipliers[rows]
            forward = _forward(module, factored[name], chosen, form, tokens)
            if forward is not None:
                stack.enter_context(_replaced(module, forward))
        yield model


def _plain(module: Any) -> Any:
    """The module itself where an adapter's layer is around it."""
    while hasattr(module, "base_layer"):
        module = module.base_layer
    return module


def _check(name: str, factored: Factored, z: Tensor) -> None:
    rank, own = tuple(factored.s.shape), factored.s.dim()
    if tuple(z.shape[-own:]) != rank or z.dim() not in (own, own + 1):
        raise ExpertError(
            f'"{name}" has {list(rank)} singular values, but its multipliers are {list(z.shape)}; give one per '
            "singular value, with the rows of the batch in front where they differ."
        )


def _forward(module: Any, factored: Factored, z: Tensor, form: Form, tokens: int) -> Forward | None:
    """Choose how a linear module computes with z; None where nothing changes."""
    weight = module.weight
    factored = factored.to(weight.device, weight.dtype)
    z = z.to(weight.device)
    if z.requires_grad:
        # While training, rounding against the base is no matter, and the whole form is the cheaper one.
        if form == "whole":
            return _whole(module, factored, factored.s * z)
        return _change(module, factored, factored.s * (z - 1), None)
    scale = factored.s * (z - 1)
    moves = (scale != 0).reshape(-1, scale.shape[-1])
    directions = moves.any(0)
    if not directions.any():
        return None
    out, inner = factored.u.shape[0], factored.vh.shape[1]
    active = moves.any(1)
    # What each form multiplies per row, besides or instead of out * inner.
    change = int(directions.sum()) * (out + inner) * float(active.float().mean())
    whole = factored.s.shape[-1] * (out + inner) - out * inner
    free = weight.dtype == torch.float32 and "forward" not in vars(module)
    saved = tokens * min(change, whole)
    if form == "auto" and free and z.dim() == 1 and saved > factored.s.shape[-1] * out * inner:
        return _merged(module, factored, factored.s * z)
    if form == "whole" or (form == "auto" and free and whole < change):
        return _whole(module, factored, factored.s * z)
    if int(directions.sum()) < len(directions):
        kept = directions.nonzero().squeeze(1)
        scale = scale[..., kept]
        u, vh = factored.u[:, kept], factored.vh[kept]
        factored = Factored(u, factored.s[kept], vh)
    return _change(module, factored, scale, None if active.all() else active.nonzero().squeeze(1))


def _whole(module: Any, factored: Factored, scale: Tensor) -> Forward:
    fitted = _Fitted(scale.to(factored.u.dtype))
    # Copies pay off over many passes; a training does without, because they have no gradients.
    laid_u, laid_vh = (None, None) if scale.requires_grad else factored.laid
    right, left = product(factored.vh, laid_vh), product(factored.u, laid_u, module.bias)

    def forward(x: Tensor) -> Tensor:
        hidden = right(x)
        return left(hidden * fitted(hidden))

    return forward


def _merged(module: Any, factored: Factored, scale: Tensor) -> Forward:
    weight = (factored.u * scale) @ factored.vh

    def forward(x: Tensor) -> Tensor:
        return functional.linear(x, weight, module.bias)

    return forward


def _change(module: Any, factored: Factored, scale: Tensor, active: Tensor | None) -> Forward:
    u, vh, own = factored.u, factored.vh, module.forward
    fitted = _Fitted(scale.to(u.dtype))

    def forward(x: Tensor) -> Tensor:
        hidden = functional.linear(x, vh)
        return own(x) + functional.linear(hidden * fitted(hidden), u)

    if active is None:
        return forward
    some = _Fitted(scale[active].to(u.dtype))

    def forward_some(x: Tensor) -> Tensor:
        if x.shape[0] != len(scale):
            return forward(x)
        hidden = functional.linear(x[active], vh)
        return own(x).index_add(0, active, functional.linear(hidden * some(hidden), u))

    return forward_some


class _Fitted:
    """Multipliers ``[rank]`` or ``[row, rank]`` in the shape that a batch of hidden numbers needs."""

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale
        self.tokens = scale.unsqueeze(1) if scale.dim() == 2 else scale

    def __call__(self, hidden: Tensor) -> Tensor:
        if self.scale.dim() == 1:
            return self.scale
        rows, batch = self.scale.shape[0], hidden.shape[0]
        if batch == rows and hidden.dim() == 3:
            return self.tokens
        if batch % rows:
            raise ExpertError(
                f"Multipliers for {rows} rows met a batch of {batch}; give one row of multipliers per row."
            )
        wide = self.scale.repeat_interleave(batch // rows, 0)
        return wide.reshape(batch, *[1] * (hidden.dim() - 2), -1)


@contextmanager
def _replaced(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward while the block runs."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _one(name: str, z: Tensor, rows: Tensor | None) -> Tensor:
    """The one z of stacked experts, whose tokens have lost their rows by the time they are multiplied."""
    if z.dim() == 2:
        return z
    used = z if rows is None else z[rows]
    if not (used == used[0]).all():
        raise ExpertError(
            f'"{name}" stacks the experts of a mixture, whose tokens come without their row; run rows with different '
            "multipliers in batches of their own."
        )
    return used[0]


@dataclass(frozen=True)
class _Stacked:
    """New values of a 3-D parameter that stacks one matrix per expert."""

    leaf: str
    factored: Factored
    z: Tensor

    def weight(self, module: Any) -> Tensor:
        """W + u diag(s (z - 1)) vh, laid out as the module stores it."""
        stored = module._parameters[self.leaf]
        factored = self.factored.to(stored.device)
        scale = factored.s * (self.z.to(stored.device) - 1)
        change = (factored.u * scale.unsqueeze(-2)) @ factored.vh
        if getattr(module, "is_transposed", False):
            change = change.transpose(1, 2)
        return stored + change.to(stored.dtype)


@contextmanager
def _shadowed(module: Any, stacked: _Stacked) -> Iterator[None]:
    """Let a module read new values where its stored parameter is; the parameter itself stays untouched.

    An attribute of the object itself is found before its parameters are asked for.
    """
    own, leaf = vars(module), stacked.leaf
    if not stacked.z.requires_grad:
        if bool((stacked.z == 1).all()):
            yield
            return
        before = own.get(leaf)
        own[leaf] = stacked.weight(module)
        try:
            yield
        finally:
            own.pop(leaf)
            if before is not None:
                own[leaf] = before
        return
    inner = module.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        # A graph serves one backward pass, so every forward pass makes its own.
        own[leaf] = stacked.weight(module)
        try:
            return inner(*inputs, **named)
        finally:
            own.pop(leaf)

    with _replaced(module, forward):
        yield
