"""The closed-form extractor: 512 principal coordinates of the description.

Nothing is trained on the user's data. The directions are those of a file that ships beside this
module, fitted on a collection of experts, or, where none ships, fixed orthonormal ones, which keep
cosines up to about 1 / sqrt(512). Directions go through the origin, so that no change stays 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from umaf.errors import FingerprintError, NumericalError
from umaf.extraction.describe import DESCRIPTION, describe
from umaf.extraction.describe import VERSION as DESCRIBE_VERSION
from umaf.extraction.fingerprint import WIDTH
from umaf.extraction.inputs import Inputs
from umaf.extraction.store import read_tensors, write_tensors
from umaf.seeds import derive

SHIPPED = Path(__file__).with_name("pca.safetensors")


@dataclass(frozen=True)
class PCA:
    """A map of descriptions to fingerprints.

    Attributes:
        components: `[512, 4096]` float32, orthonormal rows.
        fitted: how many of the first rows are principal directions; the others are fixed ones made
            orthogonal to them, which see what the collection did not hold.
    """

    components: Tensor
    fitted: int

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers."""
        digest = hashlib.sha256(f"{DESCRIBE_VERSION} {self.fitted}".encode())
        digest.update(self.components.contiguous().numpy().tobytes())
        return f"pca-{'fitted' if self.fitted else 'fixed'}-{digest.hexdigest()[:12]}"

    def __call__(self, inputs: Inputs) -> Tensor:
        """Map inputs to `[1, 512]` float64, not yet of length 1."""
        return (self.components.double() @ describe(inputs))[None]

    def save(self, path: str | Path) -> Path:
        """Write the map to a file that does not exist; read it with `load_pca`."""
        return write_tensors(
            path, {"components": self.components}, {"umaf": "pca", "fitted": str(self.fitted)}
        )


def fit_pca(descriptions: Sequence[Tensor] | Tensor, *, keep: int = 256) -> PCA:
    """Fit principal directions to a collection of descriptions.

    Every description is brought to length 1 first, so that strong experts do not decide alone;
    those that are 0 say nothing and are left out.

    Args:
        descriptions: `[expert, 4096]`, from `describe`.
        keep: most principal directions to keep, from 1 to 512; never more than there are experts.

    Returns:
        The map.

    Raises:
        NumericalError: a wrong shape, values that are not finite, or nothing but zeros.
    """
    rows = torch.stack(list(descriptions)).double()
    if (
        rows.ndim != 2
        or rows.shape[1] != DESCRIPTION
        or not torch.isfinite(rows).all()
        or not 1 <= keep <= WIDTH
    ):
        raise NumericalError(
            f"a PCA is fitted on finite descriptions [expert, {DESCRIPTION}] and keeps 1 to {WIDTH} directions, got "
            f"{list(rows.shape)} and {keep}; make the rows with describe."
        )
    lengths = rows.norm(dim=1, keepdim=True)
    rows = (rows / lengths.clamp_min(1e-300))[lengths[:, 0] > 0]
    if not len(rows):
        raise NumericalError(
            "a PCA cannot be fitted on descriptions that are all 0; add experts that differ."
        )
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    kept = min(keep, int((values > 1e-6 * values[0]).sum()))
    principal = directions[:kept]
    # A sign per direction, or the file would depend on the LAPACK in use.
    largest = principal.abs().argmax(1, keepdim=True)
    principal = principal * principal.gather(1, largest).sign()
    others = fixed_pca().components.double()[: WIDTH - kept]
    for _ in range(2):  # twice is enough for Gram-Schmidt
        others = others - (others @ principal.T) @ principal
        others = torch.linalg.qr(others.T).Q.T
    return PCA(torch.cat([principal, others]).float(), kept)


@cache
def fixed_pca() -> PCA:
    """Return the directions used where no fitted ones ship: 8 signed entries of the description in each."""
    stream = np.random.RandomState(derive(0, "pca", "fixed") % 2**32)  # frozen, see describe
    share = DESCRIPTION // WIDTH
    places = torch.from_numpy(stream.permutation(DESCRIPTION).astype(np.int64)).reshape(WIDTH, share)
    signs = torch.from_numpy(stream.randint(0, 2, DESCRIPTION) * 2.0 - 1.0).reshape(WIDTH, share)
    components = torch.zeros(WIDTH, DESCRIPTION).scatter_(1, places, (signs / share**0.5).float())
    return PCA(components, 0)


def load_pca(path: str | Path) -> PCA:
    """Read a map that `PCA.save` wrote.

    Raises:
        FingerprintError: no such file, or not a PCA of this description.
    """
    tensors, about = read_tensors(path)
    components = tensors.get("components")
    if about.get("umaf") != "pca" or components is None or tuple(components.shape) != (WIDTH, DESCRIPTION):
        raise FingerprintError(f"{path} is not a PCA of umaf's descriptions; fit one with fit_pca.")
    return PCA(components.float(), int(about["fitted"]))


@cache
def default_pca() -> PCA:
    """Return the shipped directions, or the fixed ones where none ship."""
    return load_pca(SHIPPED) if SHIPPED.is_file() else fixed_pca()
