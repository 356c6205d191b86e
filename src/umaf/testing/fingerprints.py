"""The promises of similarities, normalisations, fusions and scalings, as checks.

from umaf.testing import check_similarity

def test_mine():
    check_similarity("mine")          # registered by an entry point, or built in
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from umaf.activations import relative
from umaf.extraction import DISTANCES, Fingerprint, FingerprintCard, similarity
from umaf.fusion import fuse
from umaf.scaling import scale
from umaf.seeds import generator
from umaf.testing.promises import demand, furthest

_CARD = FingerprintCard(
    model="made",
    base="base",
    architecture="llama",
    parameters=1000,
    layers=2,
    width=32,
    tokenizer="a" * 64,
    probes="b" * 64,
    probe_count=16,
    truncated=0,
    anchors="c" * 64,
    extractor="pca-made",
    normalisation="centred",
    depths=(0.5, 1.0),
    strength=0.3,
    unchanged=False,
    umaf="0",
)


def made_fingerprint(seed: int, **changes: Any) -> Fingerprint:
    """Draw a fingerprint of no model: a vector of length 1 and coordinates `[2, 16, 8]`.

    Args:
        seed: of the draw.
        changes: fields of its card.

    Example:
        >>> made_fingerprint(1, width=64).card.width
        64
    """
    draw = generator(seed, "made")
    vector = torch.randn(1, 512, generator=draw)
    coordinates = torch.randn(2, 16, 8, generator=draw)
    card = replace(_CARD, model=f"made-{seed}", **changes)
    return Fingerprint(vector / vector.norm(), card, coordinates)


def check_similarity(metric: str, *, one: int = 1, two: int = 2, factor: float = 3.0) -> None:
    """Check what a similarity promises: symmetric, repeatable, 1 (a distance: 0) with itself, blind to length.

    Args:
        metric: a registered name.
        one: seed of a fingerprint.
        two: of the other.
        factor: what a vector's length is multiplied by.

    Raises:
        BrokenPromise: a promise is broken.

    Example:
        >>> check_similarity("cosine")
    """
    left, right = made_fingerprint(one), made_fingerprint(two)
    kept = left.vector.clone()
    value = similarity(left, right, metric)
    demand(isinstance(value, float) and value == value, metric, "number", f"the result is {value!r}")
    demand(value == similarity(left, right, metric), metric, "again", "the same call gives another number")
    back = similarity(right, left, metric)
    demand(abs(value - back) <= 1e-9, metric, "symmetric", f"{value} one way, {back} the other")
    demand(torch.equal(left.vector, kept), metric, "untouched", "a fingerprint is changed")
    itself = similarity(left, left, metric)
    if metric in DISTANCES:
        demand(abs(itself) <= 1e-9, metric, "itself", f"the distance to itself is {itself}")
        demand(value >= -1e-9, metric, "range", f"a distance is {value}")
    else:
        demand(abs(itself - 1) <= 1e-6, metric, "itself", f"the similarity to itself is {itself}")
        demand(value <= 1 + 1e-6, metric, "range", f"a similarity is {value}")
        longer = similarity(replace(left, vector=factor * left.vector), right, metric)
        demand(abs(longer - value) <= 1e-5, metric, "length", f"a longer vector gives {longer} for {value}")
    nothing = replace(left, vector=torch.zeros(1, 512), coordinates=torch.zeros(2, 16, 8))
    for other in (nothing, right):
        found = similarity(nothing, other, metric)
        demand(abs(found) < 10, metric, "nothing", f"a fingerprint of zeros gives {found}")


def check_normalisation(
    name: str, *, seed: int = 0, texts: int = 4, width: int = 16, offset: float = 5.0
) -> None:
    """Check what a normalisation promises: the order of units, other texts and sizes do not matter.

    Args:
        name: a registered name.
        seed: of activations.
        texts: how many.
        width: units of a layer.
        offset: added to all activations.

    Raises:
        BrokenPromise: a promise is broken.

    Example:
        >>> check_normalisation("centred")
    """
    draw = generator(seed, "activations")
    anchors = torch.randn(2, 9, width, generator=draw) + offset
    rows = torch.randn(2, texts, width, generator=draw) + offset
    kept = rows.clone()
    found = relative(rows, anchors, normalisation=name)
    demand(found.shape == (2, texts, 9), name, "shape", f"the result has the shape {list(found.shape)}")
    demand(found.dtype == torch.float32, name, "shape", f"the result is {found.dtype}")
    demand(bool(torch.isfinite(found).all()), name, "finite", "the result holds NaN or infinity")
    demand(torch.equal(rows, kept), name, "untouched", "activations are changed")
    order = torch.randperm(width, generator=draw)
    turned = relative(rows[..., order], anchors[..., order], normalisation=name)
    demand(torch.allclose(turned, found, rtol=1e-5, atol=1e-5), name, "units", "the order of units matters")
    each = [relative(rows[:, [at]], anchors, normalisation=name) for at in range(texts)]
    alone = torch.allclose(torch.cat(each, 1), found, rtol=1e-5, atol=1e-5)
    demand(alone, name, "texts", "a text's coordinates depend on the other texts")
    if name != "none":
        largest = float(found.abs().max())
        demand(largest <= 1 + 1e-5, name, "range", f"a coordinate is {largest}")
        tripled = relative(3 * rows, 3 * anchors, normalisation=name)
        demand(torch.allclose(tripled, found, atol=1e-5), name, "size", "the size of activations matters")


def check_fusion(method: str, *, seed: int = 0, weights: Sequence[float] = (1.0, 2.0, 0.5)) -> None:
    """Check what a fusion promises: order does not matter, only proportions of weights do, equal sources stay.

    Args:
        method: a registered name.
        seed: of the sources.
        weights: one for each source, above 0.

    Raises:
        BrokenPromise: a promise is broken.

    Example:
        >>> check_fusion("weighted")
    """
    weights = list(weights)
    sources = [made_fingerprint(seed + at) for at in range(len(weights))]
    kept = [source.vector.clone() for source in sources]
    found = fuse(sources, weights, method=method).vector
    demand(found.shape == (1, 512), method, "shape", f"the result has the shape {list(found.shape)}")
    demand(found.dtype == torch.float32, method, "shape", f"the result is {found.dtype}")
    again = fuse(sources, weights, method=method).vector
    demand(torch.equal(again, found), method, "again", "the same call gives other bits")
    same = all(torch.equal(source.vector, one) for source, one in zip(sources, kept, strict=True))
    demand(same, method, "untouched", "a source is changed")
    demand(float(found.norm()) <= 1 + 1e-5, method, "range", f"the length is {float(found.norm())}")
    first = sources[0].vector
    extra = [*sources, made_fingerprint(seed + 99)]
    twice = [2 * weight for weight in weights]
    for promise, others, shares, expected in (
        ("order", sources[::-1], weights[::-1], found),
        ("proportions", sources, twice, found),
        ("weight 0", extra, [*weights, 0.0], found),
        ("single", sources[:1], weights[:1], first),
        ("same", [sources[0]] * len(weights), weights, first),
    ):
        gap = furthest(fuse(others, shares, method=method).vector, expected)
        demand(gap <= 1e-4, method, promise, f"the result is off by {gap:.1e} of its largest entry")


def check_scaling(method: str, *, target: Fingerprint | None = None, seeds: Sequence[int] = (1, 7)) -> None:
    """Check what a scaling promises: no change stays no change, and the result says what it was scaled to.

    Args:
        method: a registered name, with the file it needs ("ridge:map.safetensors").
        target: what fingerprints are scaled to; None draws one of 4 layers and width 64.
        seeds: of the fingerprints.

    Raises:
        BrokenPromise: a promise is broken.

    Example:
        >>> check_scaling("identity")
    """
    target = target if target is not None else made_fingerprint(50, width=64, layers=4)
    drawn = [made_fingerprint(seed) for seed in seeds]
    for source in (*drawn, drawn[0].with_vector(torch.zeros(1, 512))):
        kept = source.vector.clone()
        found = scale(source, target, method=method)
        shape, kind = found.vector.shape, found.vector.dtype
        demand(shape == (1, 512), method, "shape", f"the result has the shape {list(shape)}")
        demand(kind == torch.float32, method, "shape", f"the result is {kind}")
        again = scale(source, target, method=method).vector
        demand(torch.equal(again, found.vector), method, "again", "the same call gives other bits")
        demand(torch.equal(source.vector, kept), method, "untouched", "the source is changed")
        moved, changed = bool(found.vector.any()), bool(source.vector.any())
        demand(moved == changed, method, "nothing", "no change does not stay no change")
        demand(bool(found.card.scaled_to), method, "card", "the result does not say what it was scaled to")
        kept_name = found.card.extractor == source.card.extractor
        demand(kept_name, method, "card", "the result names another extractor than its source")
