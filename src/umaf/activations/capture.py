"""Run texts through a model and read its layers by hooks that always leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from umaf.activations.tokens import pad, token_ids
from umaf.errors import ConfigError, NumericalError
from umaf.models import Model, bare, layer_list
from umaf.pulse import heard, tell

DEPTHS: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)


def capture(
    model: Model,
    texts: Sequence[str],
    *,
    depths: Sequence[float] = DEPTHS,
    batch_size: int = 32,
    truncate: bool = False,
) -> Tensor:
    """Read what a model computes on texts, one vector per text and depth.

    The output of each layer is averaged over the tokens of the text, special tokens included and
    padding left out. An encoder-decoder is read in its encoder.

    Args:
        model: an opened model.
        texts: at least one text.
        depths: layers as shares of the stack, in (0, 1], so that models of different depth meet.
        batch_size: texts per pass, at least 1; it changes memory, not results.
        truncate: cut texts longer than the window instead of refusing them.

    Returns:
        `[layer, text, hidden]` float32 on the CPU, one layer per depth.

    Raises:
        ProbeError: no texts, a text without tokens, or one longer than the window.
        NumericalError: NaN or infinity in a layer.
        ConfigError: a depth outside (0, 1] or a batch size below 1.

    Example:
        >>> from umaf.models import open_model  # doctest: +SKIP
        >>> capture(open_model("some/model"), ["one text", "another"]).shape  # doctest: +SKIP
        torch.Size([4, 2, 384])
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, got {batch_size}; 32 suits most machines.")
    stack = layer_list(model)
    chosen = depth_layers(len(stack), depths)
    rows = token_ids(model, texts, truncate=truncate)
    # Texts of like length share a batch, so little is spent on padding.
    order = sorted(range(len(rows)), key=lambda position: len(rows[position]))
    result = torch.empty(len(set(chosen)), len(rows), model.width)
    place = {layer: at for at, layer in enumerate(sorted(set(chosen)))}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for layer, pooled in _pass(
            model, [rows[position] for position in batch], stack, tuple(place)
        ).items():
            result[place[layer], batch] = pooled
        if heard():
            last = result[-1, batch]
            variance = float((last - last.mean(0)).square().sum(1).mean() / last.square().sum(1).mean())
            done = {"texts": start + len(batch), **({"spread": variance} if len(batch) > 1 else {})}
            tell(f"read {model.name}", start // batch_size + 1, **done)
    _check_finite(model, result, tuple(place))
    return result[[place[layer] for layer in chosen]]


def depth_layers(layers: int, depths: Sequence[float]) -> list[int]:
    """Turn depths as shares of the stack into layer numbers.

    Args:
        layers: length of the stack.
        depths: shares in (0, 1]; 1 is the last layer.

    Returns:
        Layer numbers from 0; two depths may meet in one layer of a shallow model.

    Raises:
        ConfigError: no depth, or one outside (0, 1].

    Example:
        >>> depth_layers(6, (0.25, 0.5, 0.75, 1.0)), depth_layers(2, (0.25, 0.5, 0.75, 1.0))
        ([1, 2, 4, 5], [0, 0, 1, 1])
    """
    if not depths or not all(0 < depth <= 1 for depth in depths):
        raise ConfigError(
            f"depths are shares of a model's layers in (0, 1], got {tuple(depths)}; for example 0.5 for the middle."
        )
    # The small amount keeps 0.1 * 30 = 3.0000000000000004 in layer 3.
    return [math.ceil(depth * layers - 1e-9) - 1 for depth in depths]


@contextmanager
def reading(modules: Mapping[int, nn.Module], read: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call `read(key, output)` whenever one of the modules has run, until the block is left.

    The hooks are removed however the block ends.

    Args:
        modules: modules by a key of your choice.
        read: gets the key and the module's output tensor (the first, where it gives several).
    """
    handles = []

    def hook_of(key: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            read(key, cast(Tensor, first))

        return hook

    try:
        for key, module in modules.items():
            handles.append(module.register_forward_hook(hook_of(key)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pass(
    model: Model, rows: list[list[int]], stack: nn.ModuleList, layers: tuple[int, ...]
) -> dict[int, Tensor]:
    """Run one batch; return the pooled output `[text, hidden]` of each layer."""
    fill = model.tokenizer.pad_token_id
    ids, mask = pad(rows, 0 if fill is None else fill, model.device)
    weights = (mask / mask.sum(1, keepdim=True)).float()[:, :, None]
    found: dict[int, Tensor] = {}

    def pool(layer: int, hidden: Tensor) -> None:
        # A padded position may hold anything, even NaN; 0 * NaN would spread it.
        kept = hidden.float().masked_fill(mask[:, :, None] == 0, 0.0)
        found[layer] = (kept * weights).sum(1).cpu()

    net = bare(model.net)
    body = net.get_encoder() if model.kind == "encoder-decoder" else net.base_model
    with reading({layer: stack[layer] for layer in layers}, pool), torch.no_grad():
        body(input_ids=ids, attention_mask=mask)
    return found


def _check_finite(model: Model, activations: Tensor, layers: tuple[int, ...]) -> None:
    for layer, values in zip(layers, activations, strict=True):
        bad = int((~torch.isfinite(values).all(-1)).sum())
        if bad:
            raise NumericalError(
                f"layer {layer} of {model.name} gave NaN or infinity on {bad} of {len(values)} texts; open the "
                f"model in float32, and check its weights."
            )
