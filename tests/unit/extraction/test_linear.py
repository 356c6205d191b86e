"""The linear extractor: what models add is shrunk, what a capability is stays, and files come back bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from umaf.adapters import attach
from umaf.errors import FingerprintError, NumericalError
from umaf.extraction import Linear, extract, fit_linear, load_linear, movement, open_extractor, save_linear
from umaf.models import Model, open_model
from umaf.seeds import generator


@pytest.fixture(scope="module")
def shipped() -> Linear:
    """The extractor that ships with umaf."""
    found = open_extractor("trained")
    assert isinstance(found, Linear)
    return found


def _rows(what: range, models: int, own: float) -> tuple[Tensor, list[str]]:
    """Movements of capabilities in models that each add a multiple of their own direction."""
    draw = generator(0, "linear")
    table = torch.randn(40, 512, generator=draw)
    nuisance = torch.randn(3, 512, generator=draw)
    rows, names = [], []
    for one in what:
        for model in range(models):
            weights = torch.randn(3, generator=generator(one, model))
            rows.append(table[one] + own * weights @ nuisance)
            names.append(f"c{one}")
    return torch.stack(rows), names


def _top1(vectors: Tensor, names: list[str]) -> float:
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    alike = (unit @ unit.T).fill_diagonal_(-2.0)
    return sum(names[int(row.argmax())] == name for row, name in zip(alike, names, strict=True)) / len(names)


def test_what_models_add_is_shrunk_for_capabilities_never_met() -> None:
    known, names = _rows(range(12), 4, own=3.0)
    fresh, asked = _rows(range(20, 32), 4, own=3.0)
    extractor = fit_linear(known, names)
    assert _top1(fresh, asked) < 0.7
    assert _top1(extractor.of(fresh), asked) > 0.9


def test_what_was_learned_counts_in_proportion(shipped: Linear) -> None:
    draw = generator(1, "linear")
    places, shift = torch.randn(30, 63, generator=draw), torch.randn(4, 30, 256, generator=draw)
    one = movement(places, shift, shipped.anchors)
    assert torch.allclose(movement(places, 3 * shift, shipped.anchors), 3 * one)
    assert torch.allclose(shipped.of(3 * one[None]), 3 * shipped.of(one[None]))
    order = torch.randperm(30, generator=draw)
    assert torch.allclose(movement(places[order], shift[:, order], shipped.anchors), one)


def test_a_file_comes_back_with_the_same_bits(tmp_path: Path) -> None:
    known, names = _rows(range(4), 3, own=1.0)
    extractor = fit_linear(known, names)
    again = load_linear(save_linear(extractor, tmp_path / "own"))
    assert again.version == extractor.version and torch.equal(again.of(known), extractor.of(known))
    assert open_extractor(f"trained:{tmp_path / 'own'}").version == extractor.version
    with pytest.raises(FingerprintError, match="no trained extractor"):
        open_extractor(f"trained:{tmp_path / 'nowhere'}")


def test_too_little_to_learn_from_is_refused() -> None:
    known, names = _rows(range(4), 1, own=1.0)
    with pytest.raises(NumericalError, match="add experts of other models"):
        fit_linear(known, names)
    with pytest.raises(NumericalError, match="movement"):
        fit_linear(known[:, :100], names)


def test_the_shipped_one_reads_any_model_beside_its_base(
    shipped: Linear, llama: Model, expert_of: Callable[..., Model], probes: list[str]
) -> None:
    expert = expert_of(llama)
    found = extract(expert, probes, base=llama, extractor="trained")
    assert found.card.extractor == shipped.version and found.vector.norm().item() == pytest.approx(1.0)
    assert not extract(llama, probes, base=llama, extractor="trained").vector.any()
    with pytest.raises(FingerprintError, match="name the base"):
        extract(expert, probes, extractor="trained")


@pytest.mark.parametrize("extractor", ["pca", "trained"])
def test_factors_of_one_update_have_one_fingerprint(
    extractor: str, pico: Callable[..., Path], probes: list[str]
) -> None:
    """(A, B) and (R A, B inverse(R)) are the same change of the model."""
    base = open_model(pico("llama"))
    draw = generator(2, "linear")
    factors, turned = {}, {}
    for name, module in base.net.named_modules():
        if name.endswith(("q_proj", "down_proj")):
            rows, columns = module.weight.shape
            a, b = torch.randn(2, columns, generator=draw), 0.1 * torch.randn(rows, 2, generator=draw)
            turn = torch.randn(2, 2, generator=draw) + 2 * torch.eye(2)
            factors[name], turned[name] = (a, b), (turn @ a, b @ torch.linalg.inv(turn))
    assert factors
    one, other = (
        extract(attach(base, made), probes, base=base, extractor=extractor) for made in (factors, turned)
    )
    assert one.vector.any() and torch.allclose(one.vector, other.vector, rtol=0, atol=1e-4)
