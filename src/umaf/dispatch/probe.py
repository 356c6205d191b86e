"""Dispatch by a linear probe on what the base computes on a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from umaf import tensors
from umaf.activations import capture
from umaf.dispatch.decision import OTHER, Decision, Dispatcher, chosen_by
from umaf.dispatch.dispatchers import Material
from umaf.dispatch.shelf import Shelved
from umaf.errors import ExpertError
from umaf.models import Model

DEPTHS = (0.5, 1.0)
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
SHARPNESS = 6.0
"""Factor on the ridge's outputs (0 for wrong, 1 for right) before they are turned into shares."""


@dataclass(frozen=True)
class Probe:
    """A linear map from activations to names.

    Attributes:
        labels: the names, in the order of the columns.
        centre: of the activations, ``[in]``.
        spread: of the activations, ``[in]``.
        weights: ``[in, label]``.
        offset: ``[label]``, the mean of what is predicted.
        strength: the penalty that was chosen.
    """

    labels: tuple[str, ...]
    centre: Tensor
    spread: Tensor
    weights: Tensor
    offset: Tensor
    strength: float


def probe(shelf: Shelved, material: Material) -> Dispatcher:
    """Make the dispatcher that reads the base's activations, averaged over the tokens of a request.

    Args:
        shelf: the experts to choose among.
        material: `examples` by name; texts under "other" teach it what belongs to none.

    Raises:
        ExpertError: an expert without examples, or examples for a name that is not on the shelf.
    """
    odd = sorted(set(material.examples) - {*shelf.names, OTHER})
    lacking = [name for name in shelf.names if len(material.examples.get(name, ())) < 2]
    if odd or lacking:
        what = f'"{odd[0]}" is not on the shelf' if odd else f'"{lacking[0]}" has fewer than two'
        raise ExpertError(
            f"A probe learns from texts for every expert of the shelf ({', '.join(shelf.names)}), but {what}; give "
            "texts by name, and texts for none of them under other."
        )
    fitted = fit_probe(shelf.model, {name: material.examples[name] for name in _order(shelf, material)})

    def decide(texts: Sequence[str]) -> Decision:
        shares = torch.zeros(len(texts), len(shelf.names) + 1)
        columns = [(*shelf.names, OTHER).index(label) for label in fitted.labels]
        shares[:, columns] = read_probe(fitted, features(shelf.model, texts))
        return chosen_by(shelf.names, shares, mixed=material.mixed, why="the probe")

    return decide


def features(model: Model, texts: Sequence[str]) -> Tensor:
    """Give what a probe reads: pooled activations of the middle and the last layer, ``[text, in]``; long texts cut."""
    layers = capture(model, texts, depths=DEPTHS, truncate=True)
    return layers.transpose(0, 1).flatten(1)


def fit_probe(model: Model, examples: Mapping[str, Sequence[str]]) -> Probe:
    """Fit a ridge regression to one-hot names, its strength chosen by leaving one text out.

    Args:
        model: the base.
        examples: at least two texts per name.
    """
    labels = tuple(examples)
    texts = [text for name in labels for text in examples[name]]
    wanted = torch.tensor([at for at, name in enumerate(labels) for _ in examples[name]])
    x = features(model, texts)
    centre, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - centre) / spread
    y = functional.one_hot(wanted, len(labels)).float()
    offset = y.mean(0)
    right = {strength: _left_out(x, y - offset, strength, wanted, offset) for strength in STRENGTHS}
    best = max(STRENGTHS, key=lambda strength: (right[strength], strength))
    return Probe(labels, centre, spread, tensors.ridge(x, y - offset, strength=best), offset, best)


def read_probe(probe: Probe, x: Tensor) -> Tensor:
    """Turn activations ``[text, in]`` into shares ``[text, label]``, each row adding up to one."""
    return (SHARPNESS * (((x - probe.centre) / probe.spread) @ probe.weights + probe.offset)).softmax(1)


def _left_out(x: Tensor, y: Tensor, strength: float, wanted: Tensor, offset: Tensor) -> float:
    """Share of texts named rightly by the fit to all others, from one fit (the hat matrix's closed form)."""
    gram = x @ x.T
    penalty = strength * float(gram.diagonal().sum()) / x.shape[1]
    eye = torch.eye(len(x), dtype=x.dtype)
    kernel = torch.linalg.solve(gram + max(penalty, 1e-9) * eye, eye)
    # What a text lacks when it is left out: (K y)_i / K_ii, with K the inverse above.
    predicted = y - (kernel @ y) / kernel.diagonal().unsqueeze(1)
    return float(((predicted + offset).argmax(1) == wanted).float().mean())


def _order(shelf: Shelved, material: Material) -> list[str]:
    return [name for name in (*shelf.names, OTHER) if material.examples.get(name)]
