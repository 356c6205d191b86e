"""What every registered similarity, normalisation, fusion and scaling promises, by the checks of `umaf.testing`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from umaf.activations import relative
from umaf.activations.normalise import NORMALISATIONS
from umaf.extraction import SIMILARITIES
from umaf.fusion import FUSIONS
from umaf.scaling import SCALINGS, fit_ridge
from umaf.scaling.film import Film
from umaf.seeds import generator
from umaf.testing import check_fusion, check_normalisation, check_scaling, check_similarity
from umaf.testing import made_fingerprint as made

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 2**20)
WEIGHTS = st.lists(st.floats(0.1, 5.0), min_size=1, max_size=5)


@pytest.mark.parametrize("metric", SIMILARITIES.names())
@given(one=SEEDS, two=SEEDS, factor=st.floats(0.1, 10))
@QUICK
def test_similarities(metric: str, one: int, two: int, factor: float) -> None:
    check_similarity(metric, one=one, two=two, factor=factor)


@pytest.mark.parametrize("name", NORMALISATIONS.names())
@given(seed=SEEDS, texts=st.integers(1, 6), width=st.integers(4, 24), offset=st.floats(-50, 50))
@QUICK
def test_normalisations(name: str, seed: int, texts: int, width: int, offset: float) -> None:
    check_normalisation(name, seed=seed, texts=texts, width=width, offset=offset)


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
    check_fusion(method, seed=seed, weights=weights)


def moving_film() -> Film:
    """Make a network that changes what it scales; a fresh one is the identity, which keeps every promise."""
    network = Film(made(0).card.extractor)
    torch.nn.init.normal_(network.leave.weight, std=0.1, generator=generator(0, "film"))
    return network


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``fitted(name)`` gives a method that works, with the file it needs."""

    def method(name: str) -> str:
        file: Path = tmp_path_factory.mktemp("scaling") / "map.safetensors"
        if name == "ridge":
            pairs = [(made(n), made(n + 50, width=64, layers=4)) for n in range(4)]
            return f"ridge:{fit_ridge(pairs).save(file)}"
        if name == "film":
            return f"film:{moving_film().save(file)}"
        return name

    return method


@pytest.mark.parametrize("name", SCALINGS.names())
def test_scalings(name: str, fitted: Callable[[str], str]) -> None:
    check_scaling(fitted(name))
