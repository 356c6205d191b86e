"""Small matrices inside a frozen low-rank frame, one set for all texts or one per text.

An update ``U R V^T`` with fixed ``U [out, rank]`` and ``V [in, rank]`` has only ``R [rank, rank]`` to choose
(LoRA-XS, Balazy et al., 2024). As hooks, no weight is touched, and every text of a batch can have
its own ``R``: the gradient with respect to the per-text values is then the Jacobian, text by text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from umaf.errors import AdapterError
from umaf.models import Model, bare

Basis = Mapping[str, tuple[Tensor, Tensor]]


@contextmanager
def cores(model: Model, basis: Basis, values: Tensor) -> Iterator[None]:
    """Adds ``(x V) R^T U^T`` to the output of each named module while the block runs.

    Args:
        model: the target; an adapter around it stays active.
        basis: per module ``(U [out, rank], V [in, rank])``; the order is that of the values.
        values: ``[module, rank, rank]``, or ``[text, module, rank, rank]`` for batches of exactly
            that many texts.

    Raises:
        AdapterError: the number of modules or a shape is wrong, or a module does not exist.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> import torch
        >>> from umaf.models import FAMILIES, Model
        >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> model = Model(BertModel(config).eval(), None, "tiny", FAMILIES["bert"], "base")
        >>> basis = {"encoder.layer.0.output.dense": (torch.eye(8)[:, :2], torch.ones(3072, 2))}
        >>> ids = torch.ones(1, 3, dtype=torch.long)
        >>> with cores(model, basis, torch.ones(1, 2, 2)), torch.no_grad():
        ...     changed = model.net(ids).last_hidden_state
        >>> bool((changed != model.net(ids).last_hidden_state).any())
        True
    """
    rank = next(iter(basis.values()))[0].shape[-1] if basis else 0
    if values.dim() not in (3, 4) or tuple(values.shape[-3:]) != (len(basis), rank, rank):
        raise AdapterError(
            f"Cores of shape {list(values.shape)} were given for {len(basis)} modules of rank {rank}; "
            "they must end in [module, rank, rank]."
        )
    net = bare(model.net)
    with ExitStack() as leaving:
        for i, (name, (u, v)) in enumerate(basis.items()):
            try:
                module = net.get_submodule(name)
            except AttributeError as error:
                raise AdapterError(
                    f'"{model.name}" has no module "{name}"; see umaf.adapters.lora_modules.'
                ) from error
            value = values[i] if values.dim() == 3 else values[:, i]
            leaving.callback(module.register_forward_hook(_adding(name, u, v, value)).remove)
        yield


def _adding(name: str, u: Tensor, v: Tensor, value: Tensor) -> Callable[..., Tensor]:
    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        small = x @ v.to(x.dtype)
        core = value.to(x.dtype).mT
        if value.dim() == 2:
            return output + small @ core @ u.to(x.dtype).mT
        texts = value.shape[0]
        if small.shape[0] % texts:
            raise AdapterError(
                f'"{name}" saw {small.shape[0]} rows for {texts} texts; give one core per text of the batch.'
            )
        # Some modules see [text * token, in]; the text is the slow axis of their rows.
        rows = small.reshape(texts, -1, small.shape[-1])
        return output + ((rows @ core) @ u.to(x.dtype).mT).reshape(output.shape)

    return hook
