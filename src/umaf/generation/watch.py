"""See what modules of a network are given and what they make of it, by hooks that always leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from torch import Tensor

from umaf.models import Model, bare

Seen = dict[str, tuple[Tensor | None, Tensor]]


@contextmanager
def watched(model: Model, modules: Sequence[str], *, graph: bool = False) -> Iterator[Seen]:
    """See the first input and the first output of modules while the block runs.

    Args:
        model: an opened model; an adapter around it stays active.
        modules: full names on the network without its adapter.
        graph: let every output start a graph, so that gradients with respect to it exist although the
            parameters are frozen.

    Yields:
        Module name -> (input, None where it came by name; output), of the latest pass, in the order in
        which the modules ran.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> import torch
        >>> from umaf.models import FAMILIES
        >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> model = Model(BertModel(config).eval(), None, "tiny", FAMILIES["bert"], "base")
        >>> with watched(model, ["encoder.layer.0.output.dense"]) as seen, torch.no_grad():
        ...     _ = model.net(torch.ones(1, 3, dtype=torch.long))
        >>> [list(each.shape) for each in seen["encoder.layer.0.output.dense"]]
        [[1, 3, 3072], [1, 3, 8]]
    """
    seen: Seen = {}
    handles = []

    def watcher(name: str):
        def look(_module: object, inputs: tuple, output: object) -> object:
            first = cast(Tensor, output[0] if isinstance(output, tuple) else output)
            if graph and not first.requires_grad:
                first = output = first.detach().requires_grad_()
            seen.pop(name, None)
            seen[name] = (inputs[0].detach() if inputs else None, first)
            return output

        return look

    net = bare(model.net)
    try:
        for name in modules:
            handles.append(net.get_submodule(name).register_forward_hook(watcher(name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()
