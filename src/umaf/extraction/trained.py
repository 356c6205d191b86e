"""The trained extractor: Transformer Encoder and Projection Head, with a folder to keep them in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from umaf.activations import ANCHORS, ANCHORS_HASH, DEPTHS
from umaf.errors import FingerprintError
from umaf.extraction.encoder import TransformerEncoder
from umaf.extraction.head import ProjectionHead
from umaf.extraction.inputs import Inputs, tokens
from umaf.extraction.store import read_tensors, write_tensors
from umaf.files import whole_folder, write_json
from umaf.seeds import derive


@dataclass(frozen=True)
class Trained:
    """An extractor with the interface of `PCA`.

    Attributes:
        encoder: the Transformer Encoder.
        head: the Projection Head.
        depths: the depths it reads.
        normalisation: the normalisation it was trained with.
        behaviour: whether it reads the behavioural token, where a model has one.
    """

    encoder: TransformerEncoder
    head: ProjectionHead
    depths: tuple[float, ...]
    normalisation: str
    behaviour: bool = False

    @property
    def version(self) -> str:
        """Name and hash of every weight."""
        digest = hashlib.sha256(json.dumps([self.depths, self.normalisation]).encode())
        for name, weight in sorted(_weights(self).items()):
            digest.update(name.encode())
            digest.update(weight.contiguous().numpy().tobytes())
        return f"trained-{digest.hexdigest()[:12]}"

    def __call__(self, inputs: Inputs) -> Tensor:
        """Map inputs to `[1, 512]`.

        Raises:
            FingerprintError: inputs read at other depths or with another normalisation.
        """
        inputs.check(self.depths, self.normalisation)
        rows, depth = tokens(inputs if self.behaviour else replace(inputs, behaviour=None))
        with torch.no_grad():
            return self.head(self.encoder(rows[None], depth))


def untrained(
    *,
    seed: int = 0,
    depths: tuple[float, ...] = DEPTHS,
    normalisation: str = "centred",
    behaviour: bool = False,
) -> Trained:
    """Make an extractor with weights drawn from a seed, to start a training from.

    Args:
        seed: the run's seed; equal seeds give equal weights, whatever was drawn before.
        depths: the depths it will read.
        normalisation: the normalisation it will read.
        behaviour: whether it will read the behavioural token.

    Returns:
        The extractor, in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "extractor", "trained"))
        encoder = TransformerEncoder(anchors=len(ANCHORS), depths=len(depths), behaviour=behaviour)
        head = ProjectionHead()
    return Trained(encoder.eval(), head.eval(), tuple(depths), normalisation, behaviour)


def save_trained(extractor: Trained, folder: str | Path) -> Path:
    """Write an extractor to a folder that does not exist.

    Args:
        extractor: what to write.
        folder: where.

    Returns:
        The folder.

    Raises:
        OutputError: the folder exists already, or cannot be written.
    """
    with whole_folder(folder) as draft:
        write_tensors(draft / "model.safetensors", _weights(extractor), {"umaf": "extractor"})
        about = {
            "depths": extractor.depths,
            "normalisation": extractor.normalisation,
            "anchors": ANCHORS_HASH,
            "behaviour": extractor.behaviour,
        }
        write_json(draft / "config.json", about)
    return Path(folder)


def load_trained(folder: str | Path) -> Trained:
    """Read an extractor that `save_trained` wrote.

    Args:
        folder: where it is.

    Returns:
        The extractor, in evaluation mode.

    Raises:
        FingerprintError: no extractor there, or one trained with other anchor texts.
    """
    place = Path(folder)
    try:
        about = json.loads((place / "config.json").read_text(encoding="utf-8"))
        depths, anchors = tuple(about["depths"]), about["anchors"]
        extractor = untrained(
            depths=depths,
            normalisation=about["normalisation"],
            behaviour=bool(about.get("behaviour", False)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise FingerprintError(
            f"{place} holds no trained extractor; give a folder that save_trained wrote."
        ) from None
    if anchors != ANCHORS_HASH:
        raise FingerprintError(
            f"the extractor in {place} was trained with other anchor texts ({anchors[:12]}) than this version of umaf "
            f"has ({ANCHORS_HASH[:12]}); train it again, or use the version it was trained with."
        )
    stored, _ = read_tensors(place / "model.safetensors")
    if {name: w.shape for name, w in stored.items()} != {
        name: w.shape for name, w in _weights(extractor).items()
    }:
        raise FingerprintError(
            f"the weights in {place} are not those of umaf's extractor; train or copy it again."
        )
    for name, module in _parts(extractor).items():
        module.load_state_dict(
            {key.partition(".")[2]: w for key, w in stored.items() if key.startswith(f"{name}.")}
        )
    return extractor


def _parts(extractor: Trained) -> dict[str, torch.nn.Module]:
    return {"encoder": extractor.encoder, "head": extractor.head}


def _weights(extractor: Trained) -> dict[str, Tensor]:
    parts = _parts(extractor).items()
    return {
        f"{name}.{key}": value.detach() for name, part in parts for key, value in part.state_dict().items()
    }
