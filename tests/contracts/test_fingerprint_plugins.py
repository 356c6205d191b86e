"""What every registered similarity, normalisation, fusion and scaling promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from tests.made_fingerprints import made
from umaf.activations import relative
from umaf.activations.normalise import NORMALISATIONS
from umaf.extraction import DISTANCES, SIMILARITIES, Fingerprint, similarity
from umaf.fusion import FUSIONS, fuse
from umaf.scaling import SCALINGS, fit_ridge, scale
from umaf.seeds import generator

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 2**20)
WEIGHTS = st.lists(st.floats(0.1, 5.0), min_size=1, max_size=5)


@pytest.mark.parametrize("metric", SIMILARITIES.names())
@given(one=SEEDS, two=SEEDS, factor=st.floats(0.1, 10))
@QUICK
def test_similarities(metric: str, one: int, two: int, factor: float) -> None:
    left, right = made(one), made(two)
    kept = left.vector.clone()
    value = similarity(left, right, metric)
    assert isinstance(value, float) and value == value
    assert value == similarity(left, right, metric), "the same bits twice"
    assert value == pytest.approx(similarity(right, left, metric), abs=1e-9), "symmetric"
    assert torch.equal(left.vector, kept), "inputs untouched"
    itself = similarity(left, left, metric)
    if metric in DISTANCES:
        assert itself == pytest.approx(0.0, abs=1e-9) and value >= -1e-9
    else:
        assert itself == pytest.approx(1.0, abs=1e-6) and value <= 1 + 1e-6
        longer = replace(left, vector=factor * left.vector)
        assert similarity(longer, right, metric) == pytest.approx(value, abs=1e-5), "length does not matter"


@pytest.mark.parametrize("metric", SIMILARITIES.names())
def test_similarities_of_no_change_are_finite(metric: str) -> None:
    nothing = replace(made(1), vector=torch.zeros(1, 512), coordinates=torch.zeros(2, 16, 8))
    for other in (nothing, made(2)):
        assert abs(similarity(nothing, other, metric)) < 10


@pytest.mark.parametrize("name", NORMALISATIONS.names())
@given(seed=SEEDS, texts=st.integers(1, 6), width=st.integers(4, 24), offset=st.floats(-50, 50))
@QUICK
def test_normalisations(name: str, seed: int, texts: int, width: int, offset: float) -> None:
    draw = generator(seed, "activations")
    anchors = torch.randn(2, 9, width, generator=draw) + offset
    rows = torch.randn(2, texts, width, generator=draw) + offset
    kept = rows.clone()
    found = relative(rows, anchors, normalisation=name)
    assert found.shape == (2, texts, 9) and found.dtype == torch.float32 and torch.isfinite(found).all()
    assert torch.equal(rows, kept), "inputs untouched"
    order = torch.randperm(width, generator=draw)
    turned = relative(rows[..., order], anchors[..., order], normalisation=name)
    assert torch.allclose(turned, found, rtol=1e-5, atol=1e-5), "unit order does not matter"
    each = torch.cat([relative(rows[:, [at]], anchors, normalisation=name) for at in range(texts)], 1)
    assert torch.allclose(each, found, rtol=1e-5, atol=1e-5), (
        "a text's coordinates do not depend on other texts"
    )
    if name != "none":
        assert found.abs().max() <= 1 + 1e-5
        assert torch.allclose(relative(3 * rows, 3 * anchors, normalisation=name), found, atol=1e-5)


@pytest.mark.parametrize("name", ["centred", "whitened", "l2"])
@given(seed=SEEDS, width=st.integers(4, 24))
@QUICK
def test_these_normalisations_do_not_see_a_rotation(name: str, seed: int, width: int) -> None:
    draw = generator(seed, "activations")
    anchors, rows = torch.randn(1, 9, width, generator=draw), torch.randn(1, 4, width, generator=draw)
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw)).Q
    turned = relative(rows @ turn, anchors @ turn, normalisation=name)
    assert torch.allclose(turned, relative(rows, anchors, normalisation=name), atol=1e-5)


@pytest.mark.parametrize("method", FUSIONS.names())
@given(seed=SEEDS, weights=WEIGHTS)
@QUICK
def test_fusions(method: str, seed: int, weights: list[float]) -> None:
    sources = [made(seed + at) for at in range(len(weights))]
    kept = [source.vector.clone() for source in sources]
    found = fuse(sources, weights, method=method)
    assert found.vector.shape == (1, 512) and found.vector.dtype == torch.float32
    assert torch.equal(fuse(sources, weights, method=method).vector, found.vector), "the same bits twice"
    assert all(torch.equal(s.vector, k) for s, k in zip(sources, kept, strict=True)), "inputs untouched"
    back = fuse(sources[::-1], weights[::-1], method=method)
    assert torch.allclose(back.vector, found.vector, atol=1e-5), "order does not matter"
    doubled = fuse(sources, [2 * weight for weight in weights], method=method)
    assert torch.allclose(doubled.vector, found.vector, atol=1e-6), "only proportions matter"
    left_out = fuse([*sources, made(seed + 99)], [*weights, 0.0], method=method)
    assert torch.allclose(left_out.vector, found.vector, atol=1e-6), "weight 0 leaves a source out"
    alone = fuse(sources[:1], weights[:1], method=method)
    assert torch.allclose(alone.vector, sources[0].vector, atol=1e-6), "one source is itself"
    equal = fuse([sources[0]] * len(weights), weights, method=method)
    assert torch.allclose(equal.vector, sources[0].vector, atol=1e-6), "equal sources are themselves"
    assert found.vector.norm() <= 1 + 1e-5


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``fitted(name)`` gives a method that works, with the file it needs."""

    def method(name: str) -> str:
        if name != "ridge":
            return name
        file: Path = tmp_path_factory.mktemp("ridge") / "map.safetensors"
        pairs = [(made(n), made(n + 50, width=64, layers=4)) for n in range(4)]
        return f"ridge:{fit_ridge(pairs).save(file)}"

    return method


@pytest.mark.parametrize("name", SCALINGS.names())
def test_scalings(name: str, fitted: Callable[[str], str]) -> None:
    method, target = fitted(name), made(50, width=64, layers=4)
    for source in (made(1), made(7), made(1).with_vector(torch.zeros(1, 512))):
        kept = source.vector.clone()
        found: Fingerprint = scale(source, target, method=method)
        assert found.vector.shape == (1, 512) and found.vector.dtype == torch.float32
        assert torch.equal(scale(source, target, method=method).vector, found.vector), "the same bits twice"
        assert torch.equal(source.vector, kept), "inputs untouched"
        assert found.vector.any() == source.vector.any(), "no change stays no change"
        assert found.card.scaled_to and found.card.extractor == source.card.extractor
