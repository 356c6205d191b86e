"""The singular directions of a base's weights: found once per base, kept on disk, read back where they lie."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from umaf.adapters import lora_modules, weight_of
from umaf.checkpoints import open_checkpoint
from umaf.errors import CheckpointError, ExpertError, NumericalError, OutputError
from umaf.experts.products import laid_out
from umaf.models import Model, bare

_SAMPLE = 4096
_PARTS = ("u", "s", "vh")


@dataclass(frozen=True)
class Factored:
    """A weight W [out, in] as u diag(s) vh, float32; experts of a mixture are stacked in front.

    Attributes:
        u: left singular vectors, ``[.., out, rank]``.
        s: singular values, falling, ``[.., rank]``.
        vh: right singular vectors, ``[.., rank, in]``.
    """

    u: Tensor
    s: Tensor
    vh: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Factored:
        """Move the vectors to a device and, where one is given, a type; the values stay float32."""
        parts = self.u.to(device, dtype), self.s.to(device), self.vh.to(device, dtype)
        if all(new is old for new, old in zip(parts, (self.u, self.s, self.vh), strict=True)):
            return self
        return Factored(*parts)

    @cached_property
    def laid(self) -> tuple[Tensor | None, Tensor | None]:
        """Copies of u and vh for faster products, made when first asked for; see `laid_out`."""
        return laid_out(self.u), laid_out(self.vh)


def svf_modules(model: Model, wanted: Sequence[str] | None = None) -> list[str]:
    """List the weights whose singular values an expert may scale.

    Args:
        model: an opened model; an adapter around it is looked through.
        wanted: parts of names: "mlp" or "attention" for all of that kind, or whole dotted parts such as
            "q_proj", "self_attn.o_proj" or "layers.3"; all linear modules of attention and MLP when not given.

    Returns:
        Names of linear modules and of stacked 3-D parameters, in the model's order.

    Raises:
        ExpertError: nothing in the model has one of these names.

    Example:
        >>> from umaf.models import open_model
        >>> svf_modules(open_model("zoo:gpt2-1m"), ["mlp"])[0]
        'transformer.h.0.mlp.c_fc'
    """
    names = lora_modules(model, experts=True)
    if wanted is None:
        return names
    chosen: set[str] = set()
    for part in wanted:
        found = [name for name in names if _means(part, name)]
        if not found:
            known = dict.fromkeys([*model.family.linear, *model.family.experts])
            raise ExpertError(
                f'Modules "{part}" were asked for, but "{model.name}" ({model.config.model_type}) has none; use '
                f"attention, mlp, or one of {', '.join(known)}."
            )
        chosen.update(found)
    return [name for name in names if name in chosen]


def base_identity(model: Model) -> str:
    """Hash which weights a model has: names, shapes and up to 4096 numbers of every tensor, its ends among them.

    The numbers are rounded to bfloat16 first, so that a base opened in another type is still the same base. A model
    of which a layer was trained has another hash; a change of single numbers between the samples goes unseen, and
    the prefix says so. An adapter around the model does not count.

    Returns:
        "sampled-sha256:" and 64 hex digits.

    Example:
        >>> from umaf.models import open_model
        >>> wide, narrow = open_model("zoo:llama-1m"), open_model("zoo:llama-1m", dtype="bfloat16")
        >>> base_identity(wide) == base_identity(narrow)
        True
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(bare(model.net).named_parameters()):
        if "lora_" in name:
            continue
        digest.update(f"{name.replace('.base_layer', '')} {tuple(parameter.shape)}".encode())
        flat = parameter.detach().reshape(-1)
        if flat.numel() > _SAMPLE:
            flat = flat[
                torch.linspace(0, flat.numel() - 1, _SAMPLE, dtype=torch.float64).long().to(flat.device)
            ]
        digest.update(flat.to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().data)
    return f"sampled-sha256:{digest.hexdigest()}"


def decompose(
    model: Model,
    names: Sequence[str],
    *,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Factored]:
    """Find the singular directions of weights, one weight at a time.

    With a cache, each weight's factors become one file under the base's identity as soon as they are found: an
    interrupted run goes on where it was, and a later run maps the files into memory without reading them.

    Args:
        model: the base.
        names: what `svf_modules` gave, or part of it.
        cache: a folder for decompositions of any number of bases.
        progress: called with every name that is ready.

    Returns:
        Factors by name, float32, on the CPU; those from a cache must not be written to.

    Raises:
        NumericalError: a weight holds NaN or infinity.
        OutputError: the cache cannot be written to.

    Example:
        >>> from umaf.models import open_model
        >>> base = open_model("zoo:llama-1m")
        >>> found = decompose(base, ["model.layers.0.mlp.up_proj"])["model.layers.0.mlp.up_proj"]
        >>> rebuilt = found.u @ found.s.diag() @ found.vh
        >>> torch.allclose(rebuilt, base.net.model.layers[0].mlp.up_proj.weight, atol=1e-5)
        True
    """
    folder = None if cache is None else Path(cache) / base_identity(model).partition(":")[2]
    factors: dict[str, Factored] = {}
    for name in names:
        found = _kept(folder, name)
        if found is None:
            found = _factored(model, name)
            if folder is not None:
                _keep(folder, name, found)
                found = _kept(folder, name) or found
        factors[name] = found
        if progress is not None:
            progress(name)
    return factors


def _means(part: str, name: str) -> bool:
    # The words attention and mlp mean the kind of module in every family, whatever its modules are called.
    attention = "att" in name.lower()
    if part in ("attention", "mlp"):
        return attention == (part == "attention")
    return f".{part}." in f".{name}."


def _factored(model: Model, name: str) -> Factored:
    weight = weight_of(model, name).detach().float()
    if not torch.isfinite(weight).all():
        raise NumericalError(
            f'"{name}" of "{model.name}" holds NaN or infinity, so it has no singular values.'
        )
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    return Factored(*(part.to("cpu").contiguous() for part in (u, s, vh)))


def _kept(folder: Path | None, name: str) -> Factored | None:
    """Map a weight's factors from the cache; a file that is not whole counts as missing."""
    path = None if folder is None else folder / f"{name}.safetensors"
    if path is None or not path.is_file():
        return None
    try:
        file = open_checkpoint(str(path))
        return Factored(*(file.read(part) for part in _PARTS))
    except CheckpointError:
        return None


def _keep(folder: Path, name: str, factored: Factored) -> None:
    draft = folder / f".{name}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({part: getattr(factored, part) for part in _PARTS}, draft)
        os.replace(draft, folder / f"{name}.safetensors")
    except OSError as problem:
        raise OutputError(
            f"The decomposition cache {folder} cannot be written ({problem.strerror or problem}); name another folder."
        ) from problem
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
