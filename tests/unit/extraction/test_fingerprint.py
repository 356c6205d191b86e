"""The value and its file; which fingerprints lie in one space; tables of similarities."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.made_fingerprints import made
from umaf.errors import FingerprintError, OutputError, RegistryError
from umaf.extraction import Fingerprint, similarities, similarity
from umaf.extraction.similarity import kl
from umaf.registry import Registry


def test_a_file_brings_back_numbers_and_card(tmp_path: Path) -> None:
    fingerprint = made(1)
    again = Fingerprint.load(fingerprint.save(tmp_path / "a.safetensors"))
    assert torch.equal(again.vector, fingerprint.vector) and again.card == fingerprint.card
    assert again.coordinates is None
    whole = Fingerprint.load(fingerprint.save(tmp_path / "b.safetensors", coordinates=True))
    assert whole.coordinates is not None and fingerprint.coordinates is not None
    assert torch.allclose(whole.coordinates, fingerprint.coordinates, atol=1e-2)
    with pytest.raises(OutputError, match="already exists"):
        fingerprint.save(tmp_path / "a.safetensors")
    with pytest.raises(FingerprintError, match="carries no coordinates"):
        again.save(tmp_path / "c.safetensors", coordinates=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_what_is_no_fingerprint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FingerprintError, match="no fingerprint at"):
        Fingerprint.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(FingerprintError, match="is not a fingerprint"):
            Fingerprint.load(tmp_path / name)
    card = json.dumps({**asdict(made(1).card), "colour": "red"})
    save_file({"fingerprint": made(1).vector}, tmp_path / "card", {"umaf": "fingerprint", "card": card})
    with pytest.raises(FingerprintError, match="the card in"):
        Fingerprint.load(tmp_path / "card")
    for vector in (torch.zeros(512), torch.zeros(1, 512).double()):
        with pytest.raises(FingerprintError, match="float32"):
            Fingerprint(vector, made(1).card)
    with pytest.raises(FingerprintError, match="NaN"):
        Fingerprint(torch.full((1, 512), float("nan")), made(1).card)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"extractor": "pca-other"}, "different extractor"),
        ({"anchors": "f" * 64}, "different anchors"),
        ({"normalisation": "l2"}, "different normalisation"),
        ({"depths": (1.0,)}, "different depths"),
        ({"base": None}, "give a base to both or to none"),
    ],
)
def test_fingerprints_of_different_spaces_are_not_compared(change: dict[str, object], says: str) -> None:
    one = made(1)
    with pytest.raises(FingerprintError, match=says):
        similarity(one, replace(one, card=replace(one.card, **change)))


def test_probes_matter_to_cka_alone() -> None:
    one, other = made(1), made(2, probes="e" * 64)
    assert -1 <= similarity(one, other) <= 1
    with pytest.raises(FingerprintError, match="different probes"):
        similarity(one, other, "cka")
    with pytest.raises(FingerprintError, match="carries no coordinates"):
        similarity(one, replace(one, coordinates=None), "cka")


def test_a_table_compares_each_with_each() -> None:
    several = [made(n) for n in range(3)]
    table = similarities(several, "pearson")
    assert table.shape == (3, 3) and torch.allclose(table, table.T)
    assert table[0, 2].item() == similarity(several[0], several[2], "pearson")
    with pytest.raises(FingerprintError, match="got none"):
        similarities([])
    with pytest.raises(RegistryError, match="cosine"):
        similarity(several[0], several[1], "cosin")


def test_the_divergence_has_a_direction_where_asked() -> None:
    one, other = made(1), made(2)
    there, back = kl(one, other, symmetric=False), kl(other, one, symmetric=False)
    assert there != back and kl(one, other) == pytest.approx((there + back) / 2)


def test_no_change_is_like_nothing() -> None:
    nothing = made(1).with_vector(torch.zeros(1, 512), unchanged=True)
    for metric in ("cosine", "pearson", "spearman"):
        assert similarity(nothing, made(2), metric) == similarity(nothing, nothing, metric) == 0.0


def test_registered_names_import() -> None:
    from umaf.extraction import SIMILARITIES

    assert isinstance(SIMILARITIES, Registry)
    assert {"cosine", "kl", "pearson", "spearman", "cka"} <= set(SIMILARITIES.names())
