"""`umaf scale` and `umaf fuse`: the stages between a fingerprint and an adapter, each from files to a file."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from tests.made_fingerprints import made
from umaf.cli import main
from umaf.extraction import Fingerprint
from umaf.fusion import Gate, weights_from_similarity
from umaf.fusion import fuse as fused
from umaf.scaling import fit_ridge


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    """A folder with three fingerprints, and a shell in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for number in range(3):
        made(number).save(tmp_path / f"{number}.safetensors")

    def run(*words, code=0):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        assert end.value.code == code, shown.err
        if code:
            assert shown.out == "" and shown.err.count("\n") == 1
            return shown.err
        return json.loads(shown.out) if "--json" in words else shown.out

    return run


def test_fuse_by_weights(place):
    told = place(
        "fuse", "0.safetensors", "1.safetensors", "--weights", "3,-1", "--out", "f.safetensors", "--json"
    )
    found = Fingerprint.load("f.safetensors")
    assert torch.equal(found.vector, fused([made(0), made(1)], [3, -1]).vector)
    assert told["card"]["weights"] == [0.75, -0.25] and told["file"] == "f.safetensors"
    out = place("fuse", "0.safetensors", "1.safetensors", "--method", "spherical", "--out", "g.safetensors")
    assert "+0.500" in out and "written to g.safetensors" in out
    assert Fingerprint.load("g.safetensors").card.model.startswith("spherical(")


def test_fuse_by_likeness_and_by_a_gate(place):
    every = [made(number) for number in range(3)]
    words = ("fuse", "0.safetensors", "1.safetensors", "2.safetensors", "--like", "1.safetensors", "--json")
    told = place(*words, "--temperature", "0.5", "--out", "f.safetensors")
    assert told["card"]["weights"] == pytest.approx(weights_from_similarity(every, every[1], temperature=0.5))
    Gate(every[0].card.extractor).save("gate.safetensors")
    told = place(*words, "--gate", "gate.safetensors", "--out", "g.safetensors")
    assert max(told["card"]["weights"]) == told["card"]["weights"][1]


def test_scale(place, pico):
    told = place("scale", "0.safetensors", "--to", pico("gpt2"), "--out", "f.safetensors", "--json")
    assert told["card"]["scaled_to"] == "gpt2 with 2 layers of width 32"
    assert torch.equal(Fingerprint.load("f.safetensors").vector, made(0).vector)
    pairs = [(made(number), made(number + 50, width=64, layers=4)) for number in range(4)]
    fit_ridge(pairs).save("ridge.safetensors")
    made(60, width=64, layers=4).save("large.safetensors")
    words = ("--to", "large.safetensors", "--method", "ridge:ridge.safetensors", "--out", "g.safetensors")
    assert "width 64" in place("scale", "0.safetensors", *words)
    assert not torch.equal(Fingerprint.load("g.safetensors").vector, made(0).vector)


def test_a_file_says_the_same(place, tmp_path):
    (tmp_path / "fuse.yaml").write_text(
        "fingerprints: [0.safetensors, 1.safetensors]\nweights: [3, -1]\nout: f.safetensors\n"
    )
    assert place("fuse", "--config", "fuse.yaml", "--json")["card"]["weights"] == [0.75, -0.25]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fuse", "0.safetensors", "--out", "0.safetensors"), "already exists"),
        (("fuse", "--out", "f.safetensors"), "'fingerprints' is needed"),
        (("fuse", "0.safetensors"), "--out"),
        (("fuse", "none.safetensors", "--out", "f.safetensors"), "no fingerprint at"),
        (("fuse", "0.safetensors", "--weights", "1,2", "--out", "f.safetensors"), "with 2 weights"),
        (("fuse", "0.safetensors", "--weights", "0", "--out", "f.safetensors"), "all weights are 0"),
        (("fuse", "0.safetensors", "--gate", "g", "--out", "f.safetensors"), "--like"),
        (
            ("fuse", "0.safetensors", "--weights", "1", "--like", "1.safetensors", "--out", "f.safetensors"),
            "give one of them",
        ),
        (("scale", "0.safetensors", "--to", "./nowhere", "--out", "f.safetensors"), "no such folder"),
        (("scale", "0.safetensors", "--to", "1.safetensors", "--method", "rigde", "--out", "f"), "ridge"),
    ],
)
def test_mistakes(place, tmp_path, words, says):
    before = sorted(path.name for path in tmp_path.iterdir())
    assert says in place(*words, code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
