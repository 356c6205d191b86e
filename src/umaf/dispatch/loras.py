"""A base with LoRAs from PEFT, mixed row by row like experts: y = W x + sum_k w_k B_k (A_k x)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from umaf.adapters import Factors, is_stacked, read_factors, weight_of
from umaf.dispatch.shelf import check_names
from umaf.errors import AdapterError, ExpertError
from umaf.models import Model, bare


@dataclass(frozen=True)
class Pool:
    """All LoRAs of one module, in one pair of matrices.

    Attributes:
        a: the A of every LoRA, one under the other, ``[all ranks, in]``.
        b: the B of every LoRA, side by side, ``[out, all ranks]``.
        owner: which LoRA each rank belongs to, ``[all ranks]``.
    """

    a: Tensor
    b: Tensor
    owner: Tensor


@dataclass(frozen=True)
class LoraShelf:
    """A base with LoRAs; made by `open_lora_shelf`.

    Attributes:
        model: the base.
        names: the LoRAs' names, in the order of their weights.
        pools: by module.
    """

    model: Model
    names: tuple[str, ...]
    pools: Mapping[str, Pool]

    @property
    def descriptions(self) -> tuple[str, ...]:
        """Nothing; PEFT's folders have no place for a line about the capability."""
        return ("",) * len(self.names)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that any LoRA changes."""
        return tuple(self.pools)

    @property
    def rows_may_differ(self) -> bool:
        """Whether one batch may hold several mixtures: always."""
        return True

    @contextmanager
    def applied(self, weights: Tensor, *, tokens: int = 0) -> Iterator[Model]:
        """Put mixtures on the base while the block runs.

        Args:
            weights: ``[row, expert]`` or ``[row, expert, module]``, one row per row of the batch; a single row serves
                every batch.
            tokens: of no matter here; LoRAs are never merged.
        """
        if not weights.any():
            yield self.model
            return

        def rule(column: int, pool: Pool) -> Callable[[Tensor], Tensor]:
            table = weights if weights.dim() == 2 else weights[:, :, column]
            scale = table[:, pool.owner.cpu()].to(pool.a.device, pool.a.dtype)

            def scaled(x: Tensor) -> Tensor:
                wide = scale
                if len(scale) not in (1, x.shape[0]):
                    if x.shape[0] % len(scale):
                        raise ExpertError(
                            f"Weights for {len(scale)} rows met a batch of {x.shape[0]}; give one per row."
                        )
                    wide = scale.repeat_interleave(x.shape[0] // len(scale), 0)
                return wide.reshape(len(wide), *[1] * (x.dim() - 2), -1)

            return scaled

        with hooked(
            self.model, {name: (pool, rule(at, pool)) for at, (name, pool) in enumerate(self.pools.items())}
        ):
            yield self.model


@contextmanager
def hooked(model: Model, rules: Mapping[str, tuple[Pool, Callable[[Tensor], Tensor]]]) -> Iterator[None]:
    """Add B (share * (A x)) to modules while the block runs; a rule gives the share of every rank from x."""
    net = bare(model.net)

    def hook_of(pool: Pool, share: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0]
            low = nn.functional.linear(x.to(pool.a.dtype), pool.a)
            return output + nn.functional.linear(low * share(x), pool.b).to(output.dtype)

        return hook

    with ExitStack() as stack:
        for name, (pool, share) in rules.items():
            module: Any = net.get_submodule(name)
            stack.callback(module.register_forward_hook(hook_of(pool, share)).remove)
        yield


def open_lora_shelf(model: Model, folders: Mapping[str, Path]) -> LoraShelf:
    """Put LoRAs on a shelf.

    Args:
        model: the base.
        folders: PEFT folders by the name each is to have.

    Raises:
        ExpertError: no LoRAs, one called "other", one that does not fit the base, or one of stacked experts.
        AdapterError: a folder that is no plain LoRA.
    """
    check_names(list(folders))
    return lora_shelf(model, {name: read_factors(folder) for name, folder in folders.items()})


def lora_shelf(model: Model, loras: Mapping[str, Factors]) -> LoraShelf:
    """Put LoRAs on a shelf from their factors, A ``[rank, in]`` and B ``[out, rank]`` by module."""
    check_names(list(loras))
    for name, factors in loras.items():
        for module, (a, b) in factors.items():
            _check(model, name, module, a, b)
    modules = dict.fromkeys(module for factors in loras.values() for module in factors)
    pools = {}
    for module in modules:
        parts = [(at, *factors[module]) for at, factors in enumerate(loras.values()) if module in factors]
        like = weight_of(model, module)
        pools[module] = Pool(
            torch.cat([a for _, a, _ in parts]).to(like.device, like.dtype),
            torch.cat([b for _, _, b in parts], 1).to(like.device, like.dtype),
            torch.cat([torch.full((len(a),), at) for at, a, _ in parts]).to(like.device),
        )
    return LoraShelf(model, tuple(loras), pools)


def _check(model: Model, name: str, module: str, a: Tensor, b: Tensor) -> None:
    if is_stacked(model, module):
        raise ExpertError(
            f'The LoRA "{name}" changes the stacked experts at "{module}", which cannot differ by request; merge it '
            "into its base."
        )
    try:
        shape = tuple(weight_of(model, module).shape)
    except AdapterError as problem:
        raise ExpertError(
            f'The LoRA "{name}" changes "{module}", which "{model.name}" does not have; use the base it was made for.'
        ) from problem
    if shape != (b.shape[0], a.shape[1]):
        raise ExpertError(
            f'The LoRA "{name}" fits a weight of {[b.shape[0], a.shape[1]]} at "{module}", but "{model.name}" has '
            f"{list(shape)} there; use the base it was made for."
        )
