"""The trained linear extractor: where texts moved, without what that owes to the model and not to the capability.

A fine-tuning moves texts towards some anchor texts and away from others. Places in the universal space, which one
reader gives for all texts, tell it: by how much what lies along direction p moved towards what lies along q. The shifts
are regressed on the probes' places on one side and on the anchors' on the other: 32 by 16 numbers, linear in what was
learned, and comparable for any probes, architecture and size.

Experts of one capability in several models differ all the same. The directions in which they do are what models add of
their own: they are shrunk, all others stay as they are, so that a capability never met keeps what is its own. What
fine-tuning does to every model, whatever it learns, is taken off. This is fitted in closed form, in seconds.

Source: within-class covariance normalisation, Hatch, Kajarekar, Stolcke, Interspeech 2006, section 2, shrunk towards
the identity. What else was tried is told in `docs/concepts/universal-space.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.activations import ANCHORS, ANCHORS_HASH, DEPTHS
from umaf.errors import FingerprintError, NumericalError
from umaf.extraction.fingerprint import WIDTH
from umaf.extraction.inputs import Inputs
from umaf.extraction.store import read_tensors, write_tensors
from umaf.extraction.universal import Universal, load_universal
from umaf.files import whole_folder, write_json

DESIGN = "linear"
# Directions of the space that probes and anchors are told by; together they make a fingerprint.
PROBE, ANCHOR = 32, 16
RIDGE = 1.0


@dataclass(frozen=True)
class Linear:
    """An extractor with the interface of `PCA`.

    Attributes:
        space: the universal space that probes are read in.
        anchors: `[16, anchor]`, from shifts along anchors to directions of the space.
        components: `[512, 512]`, what shrinks the models' own directions.
        common: `[512]`, what every fine-tuning shows, as a fingerprint of a movement of length 1.
        depths: the depths it reads.
        normalisation: the normalisation it was fitted with.
    """

    space: Universal
    anchors: Tensor
    components: Tensor
    common: Tensor
    depths: tuple[float, ...] = DEPTHS
    normalisation: str = "centred"

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers."""
        told = json.dumps([self.space.version, RIDGE, self.depths, self.normalisation])
        digest = hashlib.sha256(told.encode())
        for part in (self.anchors, self.components, self.common):
            digest.update(part.contiguous().numpy().tobytes())
        return f"trained-linear-{digest.hexdigest()[:12]}"

    def __call__(self, inputs: Inputs) -> Tensor:
        """Map inputs to `[1, 512]` float64, not yet of length 1.

        Raises:
            FingerprintError: inputs without base or places, at other depths or with another normalisation.
        """
        inputs.check(self.depths, self.normalisation)
        if not inputs.difference or inputs.places is None:
            raise FingerprintError(
                "this trained extractor tells what a model learned since its base, from probes with places, and was "
                'given no base or no places; name the base, or use the extractor "pca".'
            )
        return self.of(movement(inputs.places, inputs.shift(), self.anchors)[None])

    def of(self, movements: Float[Tensor, "row 512"]) -> Float[Tensor, "row 512"]:
        """Map movements to fingerprints, float64, not yet of length 1; twice as long ones to twice as long ones."""
        rows = movements.double()
        lengths = rows.norm(dim=1, keepdim=True)
        return rows @ self.components.double().T - lengths * self.common.double()


def movement(
    places: Float[Tensor, "probe place"],
    shift: Float[Tensor, "depth probe anchor"],
    anchors: Float[Tensor, "16 anchor"],
) -> Float[Tensor, " 512"]:
    """Say how texts along each direction of the space moved along each other, summed over depths; float64.

    Example:
        >>> movement(torch.randn(40, 63), torch.randn(4, 40, 256), torch.eye(16, 256)).shape
        torch.Size([512])
    """
    told = _regression(places)[:PROBE] @ shift.double().sum(0) @ anchors.double().T
    return told.flatten()


def anchor_map(space: Universal) -> Float[Tensor, "16 anchor"]:
    """Give the map from shifts along the anchors to directions of the space, float16 numbers in float32."""
    return _regression(space.places(ANCHORS))[:ANCHOR].half().float()


def fit_linear(
    movements: Sequence[Tensor] | Tensor,
    capabilities: Sequence[str],
    *,
    space: Universal | None = None,
    anchors: Tensor | None = None,
    strength: float = 50.0,
    depths: tuple[float, ...] = DEPTHS,
    normalisation: str = "centred",
) -> Linear:
    """Fit the extractor to experts of several models.

    Args:
        movements: `[expert, 512]`, from `movement`, of experts beside their bases.
        capabilities: what each learned; two or more capabilities need experts of two models.
        space: the space of the places; what ships with umaf when None.
        anchors: as the movements were made with; those of the space when None.
        strength: by how much the strongest of the models' own directions is shrunk: to 1 / sqrt(1 + strength).
        depths: the depths that were read.
        normalisation: the normalisation they were read with.

    Returns:
        The extractor, its numbers rounded to 16 bit.

    Raises:
        NumericalError: a wrong shape, numbers that are not finite, or fewer than two capabilities of two experts.

    Example:
        >>> rows = torch.eye(4, 512).repeat(2, 1) + 0.1 * torch.eye(8, 512).roll(9, 1)
        >>> fit_linear(rows, [*"abcd"] * 2).components.shape
        torch.Size([512, 512])
    """
    rows = torch.stack(list(movements)).double()
    if rows.shape != (len(capabilities), WIDTH) or not torch.isfinite(rows).all():
        raise NumericalError(
            f"an extractor is fitted on finite movements [expert, {WIDTH}] and a capability for each, got "
            f"{list(rows.shape)} and {len(capabilities)}; make the rows with movement."
        )
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    groups: dict[str, list[int]] = {}
    for at, name in enumerate(capabilities):
        groups.setdefault(name, []).append(at)
    shared = [group for group in groups.values() if len(group) > 1]
    if len(shared) < 2:
        raise NumericalError(
            f"an extractor learns from capabilities that several models have, and {len(shared)} of {len(groups)} are "
            "of more than one; add experts of other models."
        )
    apart = torch.cat([rows[group] - rows[group].mean(0) for group in shared])
    _, values, directions = torch.linalg.svd(apart, full_matrices=False)
    lost = 1 - (1 + strength * (values / values[0].clamp_min(1e-300)).square()).rsqrt()
    components = (torch.eye(WIDTH, dtype=rows.dtype) - (directions.T * lost) @ directions).half().float()
    common = (components.double() @ rows.mean(0)).half().float()
    space = space or load_universal()
    anchors = anchor_map(space) if anchors is None else anchors
    return Linear(space, anchors, components, common, tuple(depths), normalisation)


def save_linear(extractor: Linear, folder: str | Path) -> Path:
    """Write an extractor to a folder that does not exist, in 16 bit, which it was rounded to when it was fitted.

    Raises:
        OutputError: the folder exists already, or cannot be written.
    """
    parts = {name: getattr(extractor, name).half() for name in ("anchors", "components", "common")}
    with whole_folder(folder) as draft:
        write_tensors(draft / "model.safetensors", parts, {"umaf": "extractor"})
        about = {
            "design": DESIGN,
            "depths": extractor.depths,
            "normalisation": extractor.normalisation,
            "anchors": ANCHORS_HASH,
            "space": extractor.space.version,
        }
        write_json(draft / "config.json", about)
    return Path(folder)


def load_linear(folder: str | Path, *, space: str | Path | None = None) -> Linear:
    """Read an extractor that `save_linear` wrote.

    Args:
        folder: where it is.
        space: folder of the universal space it was made in; what ships with umaf when None.

    Raises:
        FingerprintError: none there, or one made with other anchor texts or in another space.
    """
    place, own = Path(folder), load_universal(space)
    tensors, _ = read_tensors(place / "model.safetensors")
    try:
        about = json.loads((place / "config.json").read_text(encoding="utf-8"))
        made = (about["anchors"], about["space"])
        parts = {name: tensors[name].float() for name in ("anchors", "components", "common")}
        found = Linear(own, **parts, depths=tuple(about["depths"]), normalisation=about["normalisation"])
    except (OSError, ValueError, KeyError, TypeError):
        raise FingerprintError(
            f"{place} holds no linear extractor; give a folder that save_linear wrote."
        ) from None
    if made != (ANCHORS_HASH, own.version) or found.components.shape != (WIDTH, WIDTH):
        raise FingerprintError(
            f"the extractor in {place} was made with other anchor texts or in another universal space than this "
            "version of umaf has; train it again, or use the version it was made with."
        )
    return found


def _regression(places: Float[Tensor, "text place"]) -> Float[Tensor, "place text"]:
    """Give the map from numbers per text to numbers per direction of the space: a ridge regression, float64."""
    rows = places.double() - places.double().mean(0)
    gram = rows.T @ rows
    ridge = RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, rows.T)
