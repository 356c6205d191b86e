"""The Size Interpolator as a network: fingerprints at one size to fingerprints at another, told both sizes.

A two-layer perceptron adds a change to the fingerprint; the logarithms of parameters, depth and width of both ends
scale and shift its hidden units. Its last layer begins at 0, so an untrained one is the identity, and between equal
sizes it stays so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from umaf.errors import FingerprintError
from umaf.extraction import Fingerprint
from umaf.extraction.store import read_tensors, weights_version, write_tensors
from umaf.scaling.size import Size, size_of

WIDTH, HIDDEN, SIZES = 512, 256, 6
SHIPPED = (
    Path(__file__).resolve().parents[3] / "zoo" / "interpolator" / "film.safetensors",  # a checkout
    Path(__file__).resolve().parents[1] / "zoo_interpolator" / "film.safetensors",  # an installed wheel
)


class Film(nn.Module):
    """The network.

    Args:
        extractor: version of the extractor whose fingerprints it scales.

    Source: Perez et al., FiLM: visual reasoning with a general conditioning layer, AAAI 2018, equation 1.

    Example:
        >>> x = functional.normalize(torch.ones(1, 512), dim=1)
        >>> one, other = Size("llama", 10**6, 4, 128), Size("llama", 5 * 10**6, 5, 256)
        >>> bool(torch.allclose(Film("pca")(x, ends(one, other)[None]), x))
        True
    """

    def __init__(self, extractor: str) -> None:
        super().__init__()
        self.extractor = extractor
        self.enter = nn.Linear(WIDTH, HIDDEN)
        self.sizes = nn.Sequential(nn.Linear(SIZES, 64), nn.GELU(), nn.Linear(64, 2 * HIDDEN))
        self.leave = nn.Linear(HIDDEN, WIDTH)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, vectors: Float[Tensor, "row 512"], ends: Float[Tensor, "row 6"]) -> Tensor:
        """Scale fingerprints `[row, 512]` between the ends of each row, keeping their lengths."""
        scale, shift = self.sizes(ends).chunk(2, dim=-1)
        hidden = functional.gelu((1 + scale) * self.enter(vectors) + shift)
        # The further apart the sizes, the more may change; equal ones leave everything as it is.
        apart = (ends[:, :3] - ends[:, 3:]).abs().sum(-1, keepdim=True)
        moved = vectors + apart.tanh() * self.leave(hidden)
        lengths = vectors.norm(dim=-1, keepdim=True)
        return moved / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12) * lengths

    @property
    def version(self) -> str:
        """Name and hash of every weight."""
        return weights_version("film", self, extractor=self.extractor)

    def save(self, path: str | Path) -> Path:
        """Write one file that does not exist; read it with `load_film`."""
        about = {"umaf": "film", "card": json.dumps({"extractor": self.extractor})}
        return write_tensors(path, {name: w.detach().cpu() for name, w in self.state_dict().items()}, about)


def ends(source: Size, target: Size) -> Float[Tensor, " 6"]:
    """Describe two sizes: logarithms of parameters, layers and width of each, about in [-3, 3].

    Example:
        >>> ends(Size("a", 10**6, 4, 128), Size("b", 10**6, 4, 128)).tolist()
        [-1.5, -0.5, -0.5, -1.5, -0.5, -0.5]
    """
    return torch.tensor([number for size in (source, target) for number in _numbers(size)])


def load_film(path: str | Path | None = None) -> Film:
    """Read a network that `Film.save` wrote, in evaluation mode; what ships with umaf when None.

    Raises:
        FingerprintError: no such file, or not an interpolator.

    Example:
        >>> load_film().extractor.startswith("pca-")
        True
    """
    path = next((one for one in SHIPPED if one.is_file()), SHIPPED[0]) if path is None else path
    tensors, about = read_tensors(path)
    network = Film(json.loads(about.get("card", '{"extractor": ""}'))["extractor"])
    shapes = {name: w.shape for name, w in network.state_dict().items()}
    if about.get("umaf") != "film" or {name: w.shape for name, w in tensors.items()} != shapes:
        raise FingerprintError(
            f"{path} is no interpolator of umaf; train one with `umaf train interpolator`."
        )
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def film(fingerprint: Fingerprint, to: Size, file: Path | None) -> Tensor:
    """Scale by the network in a file, or by the one that ships when none is named; the vector `[1, 512]`.

    Raises:
        FingerprintError: not an interpolator, or one of another extractor.
    """
    network = load_film(file)
    if network.extractor != fingerprint.card.extractor:
        raise FingerprintError(
            f"this interpolator was trained on fingerprints of {network.extractor}, got one of "
            f"{fingerprint.card.extractor}; extract with the same extractor, or train it again."
        )
    with torch.no_grad():
        return network(fingerprint.vector, ends(size_of(fingerprint), to)[None])


def _numbers(size: Size) -> tuple[float, float, float]:
    # Centred at about 30 million parameters, six layers and 180 units.
    return (
        math.log10(max(size.parameters, 1)) - 7.5,
        math.log2(max(size.layers, 1)) - 2.5,
        math.log2(max(size.width, 1)) - 7.5,
    )
