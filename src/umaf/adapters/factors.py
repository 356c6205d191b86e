"""Low-rank updates as plain tensors: which modules can have one, their size, and how several add up.

An update of a weight ``W [out, in]`` is ``B @ A`` with ``A [rank, in]`` and ``B [out, rank]``. Stacked
experts have one pair each: ``A [expert, rank, in]`` and ``B [expert, out, rank]``. This is the convention
everywhere in umaf, also for modules that store their weight the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from umaf.errors import AdapterError
from umaf.models import Model, bare

Factors = Mapping[str, tuple[Tensor, Tensor]]


def lora_modules(model: Model, *, experts: bool = False) -> list[str]:
    """Names of the linear modules of a model that an adapter may change.

    Args:
        model: the target; an adapter around it is looked through.
        experts: also give the 3-D parameters of stacked experts.

    Returns:
        Full names, in the model's order, as they stand in the checkpoint.

    Raises:
        AdapterError: the architecture can only give capabilities, or none of its modules is known.
    """
    if model.family.source_only:
        raise AdapterError(
            f'"{model.name}" ({model.config.model_type}) can be a source but not a target; choose another target.'
        )
    ends = tuple(f".{suffix}" for suffix in model.family.linear)
    body = tuple(f"{path}." for path in model.family.layers)
    net = bare(model.net)
    prefix = next(
        (f"{name}." for name, module in net.named_modules() if module is net.base_model and name), ""
    )
    inside = tuple(prefix + path for path in body)
    names = [name for name, _ in net.named_modules() if name.startswith(inside) and name.endswith(ends)]
    if experts and model.family.experts:
        stacked = tuple(f".{suffix}" for suffix in model.family.experts)
        plain = (name.replace(".base_layer", "") for name, _ in net.named_parameters() if "lora_" not in name)
        names += [name for name in plain if name.startswith(inside) and name.endswith(stacked)]
    if not names:
        raise AdapterError(
            f'"{model.name}" ({model.config.model_type}) has no module that an adapter can change; check its family.'
        )
    return names


def weight_of(model: Model, name: str) -> Tensor:
    """The weight an update is added to, as ``[out, in]`` or ``[expert, out, in]``.

    Args:
        model: the target.
        name: one of :func:`lora_modules`.

    Returns:
        A view of the model's own parameter, so that ``weight + B @ A`` has matching shapes.

    Raises:
        AdapterError: the model has no such module.
    """
    net, (path, _, leaf) = bare(model.net), name.rpartition(".")
    module: Any
    try:
        if name.endswith(tuple(f".{suffix}" for suffix in model.family.experts)):
            module = net.get_submodule(path)
            while hasattr(module, "base_layer"):
                module = module.base_layer
            weight = getattr(module, leaf)
            return weight.transpose(1, 2) if getattr(module, "is_transposed", False) else weight
        module = net.get_submodule(name)
    except AttributeError as error:
        raise AdapterError(
            f'"{model.name}" has no module "{name}"; see umaf.adapters.lora_modules.'
        ) from error
    weight = getattr(module, "base_layer", module).weight
    return weight.T if model.family.conv1d else weight


def combine(parts: Sequence[Factors], weights: Sequence[float]) -> dict[str, tuple[Tensor, Tensor]]:
    """Adds weighted updates exactly, by putting their factors side by side.

    Args:
        parts: updates of one model; a module may be missing in some.
        weights: one number per part, of any sign; zero leaves a part out.

    Returns:
        Factors whose rank is the sum of the ranks; their product is the weighted sum of the products.

    Raises:
        AdapterError: the number of weights is wrong, or shapes differ.

    Example:
        >>> one = {"m": (torch.ones(1, 3), torch.ones(2, 1))}
        >>> a, b = combine([one, one], [2.0, -0.5])["m"]
        >>> (b @ a).unique().tolist()
        [1.5]
    """
    if len(parts) != len(weights) or not parts:
        raise AdapterError(
            f"{len(parts)} adapters came with {len(weights)} weights; give one weight per adapter."
        )
    used = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight != 0]
    # Only zeros: the update of rank one that changes nothing keeps the folder loadable.
    if not used:
        return {
            name: (a[..., :1, :].clone(), torch.zeros_like(b[..., :1]))
            for part in parts
            for name, (a, b) in part.items()
        }
    joined: dict[str, tuple[Tensor, Tensor]] = {}
    for name in dict.fromkeys(name for part, _ in used for name in part):
        pairs = [(*part[name], weight) for part, weight in used if name in part]
        sizes = {(a.shape[:-2], a.shape[-1], b.shape[-2]) for a, b, _ in pairs}
        if len(sizes) > 1:
            shapes = " and ".join(sorted(f"{[*b.shape[:-1], a.shape[-1]]}" for a, b, _ in pairs))
            raise AdapterError(f'The adapters differ in "{name}" ({shapes}); combine adapters of one target.')
        joined[name] = (
            torch.cat([a for a, _, _ in pairs], dim=-2),
            torch.cat([b * w for _, b, w in pairs], dim=-1),
        )
    return joined


def truncate(factors: Factors, rank: int) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, float]]:
    """Keeps the best update of a lower rank, per module and expert.

    By QR of both factors and an SVD of the small core, so the full update is never formed; the result
    is the nearest in the Frobenius norm (Eckart and Young, 1936).

    Args:
        factors: the update.
        rank: highest rank to keep.

    Returns:
        The factors, balanced so that A and B have equal norms, and per module the norm of what was
        dropped divided by the norm of the update.

    Raises:
        AdapterError: the rank is below one.

    Example:
        >>> small, lost = truncate({"m": (torch.eye(3), torch.diag(torch.tensor([3.0, 4.0, 0.0])))}, 1)
        >>> round(lost["m"], 3)
        0.6
    """
    if rank < 1:
        raise AdapterError(f"A rank of {rank} was asked for; it must be at least 1.")
    kept, lost = {}, {}
    for name, (a, b) in factors.items():
        left, core_left = torch.linalg.qr(b.float())
        right, core_right = torch.linalg.qr(a.float().mT)
        u, s, vh = torch.linalg.svd(core_left @ core_right.mT, full_matrices=False)
        root = s[..., :rank].sqrt()
        kept[name] = (
            (root.unsqueeze(-1) * (vh[..., :rank, :] @ right.mT)).to(a.dtype),
            (left @ (u[..., :rank] * root.unsqueeze(-2))).to(b.dtype),
        )
        total = float(s.square().sum().sqrt())
        lost[name] = float(s[..., rank:].square().sum().sqrt()) / total if total > 0 else 0.0
    return kept, lost


def norms(factors: Factors) -> dict[str, float]:
    """Frobenius norm of each module's update, without forming it.

    Args:
        factors: the update.

    Returns:
        Norm by module name; experts of one parameter are taken together.

    Example:
        >>> norms({"m": (torch.ones(1, 4), torch.ones(9, 1))})
        {'m': 6.0}
    """
    # |BA|^2 = trace((B^T B)(A A^T)), two matrices of the rank's size.
    return {
        name: float(((b.mT @ b).double() * (a @ a.mT).double()).sum().clamp_min(0).sqrt())
        for name, (a, b) in factors.items()
    }
