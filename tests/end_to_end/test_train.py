"""From training material to an adapter in one forward pass, all through the command line and PEFT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.end_to_end.test_transfer import by_plain_peft
from tests.unit.training.test_extractor import _entry
from tests.unit.training.test_generator import TEXTS, _task
from umaf.cli import main
from umaf.extraction import Bound, fit_universal, open_extractor
from umaf.models import open_model
from umaf.readout import label_scores
from umaf.seeds import generator
from umaf.training.material import gather

FAST = (
    "--set",
    "texts=8",
    "--set",
    "looked=24",
    "--set",
    "probes=60",
    "--set",
    "rank=2",
    "--set",
    "look_every=2",
)


def _umaf(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def bank(pico, tmp_path: Path) -> Path:
    space = fit_universal(TEXTS[:60], reader=pico("bert"), width=8)
    space.save(tmp_path / "bank" / "universal.safetensors")
    tasks = [
        ("train", _task("one", ("music", "good"), "music")),
        ("train", _task("two", ("rain", "film"), "rain")),
        ("validation", _task("three", ("letter", "class"), "letter")),
    ]
    gather(tasks, Bound(space)).save(tmp_path / "bank" / "material.safetensors")
    return tmp_path / "bank"


def test_a_generator_is_trained_and_makes_an_adapter(bank, pico, tmp_path, capsys) -> None:
    out, target = tmp_path / "generator", pico("llama")
    words: Sequence[object] = (
        "train",
        "generator",
        "--target",
        target,
        "--bank",
        bank,
        "--out",
        out,
        "--steps",
        4,
    )
    code, said, _ = _umaf(capsys, *words, *FAST, "--json")
    facts = json.loads(said)
    assert code == 0 and facts["version"].startswith("generator-")
    assert (out / "curve.json").is_file() and not (tmp_path / "generator.unfinished").exists()
    code, _, err = _umaf(capsys, *words)
    assert code == 1 and "already exists" in err

    probes = tmp_path / "probes.txt"
    probes.write_text("\n".join(TEXTS[:40]))
    give = (
        "transfer",
        "--source",
        pico("gpt2"),
        "--target",
        target,
        "--probes",
        probes,
        "--labels",
        "good,bad",
    )
    made = tmp_path / "adapter"
    code, said, err = _umaf(
        capsys,
        *give,
        "--route",
        "generate",
        "--generator",
        out,
        "--extractor",
        f"bound:{bank}",
        "--out",
        made,
        "--json",
    )
    assert code == 0, err
    base = open_model(target)
    adapted = by_plain_peft(base, made)
    before, after = (label_scores(model, TEXTS[:8], ("good", "bad"), "answer") for model in (base, adapted))
    assert not torch.allclose(before, after)
    about = json.loads((made / "umaf.json").read_text())["provenance"]
    assert about["route"] == "generate" and about["history"][-1]["generator"] == facts["version"]

    code, _, err = _umaf(capsys, *give, "--route", "generate", "--out", tmp_path / "no")
    assert code == 1 and "umaf train generator" in err and not (tmp_path / "no").exists()
    code, _, err = _umaf(
        capsys,
        *give,
        "--route",
        "generate",
        "--generator",
        out,
        "--extractor",
        "pca",
        "--out",
        tmp_path / "no",
    )
    assert code == 1 and "reads fingerprints of bound-" in err
    code, _, err = _umaf(
        capsys, "train", "generator", "--target", target, "--bank", tmp_path, "--out", tmp_path / "x"
    )
    assert code == 1 and "zoo.material" in err
    code, _, err = _umaf(capsys, *words[:-3], tmp_path / "x", "--set", "speed=3")
    assert code == 1 and "speed" in err


def test_a_generated_adapter_is_a_start(bank, pico, tmp_path, capsys) -> None:
    out, target, probes = tmp_path / "generator", pico("llama"), tmp_path / "probes.txt"
    probes.write_text("\n".join(TEXTS[:40]))
    _umaf(capsys, "train", "generator", "--target", target, "--bank", bank, "--out", out, "--steps", 2, *FAST)
    code, _, err = _umaf(
        capsys, "transfer", "--source", pico("gpt2"), "--target", target, "--probes", probes, "--labels", "good,bad",
        "--route", "generate", "--generator", out, "--extractor", f"bound:{bank}", "--refine", 3,
        "--out", tmp_path / "adapter",
    )  # fmt: skip
    assert code == 0, err
    history = json.loads((tmp_path / "adapter" / "umaf.json").read_text())["provenance"]["history"]
    assert [row["stage"] for row in history if "stage" in row] == ["generate", "distill"]
    assert history[-1]["steps"] == 3 and history[-1]["divergence"] > 0


def test_interpolators_and_gates_are_trained_on_entries(tmp_path, capsys) -> None:
    entries = tmp_path / "bank" / "entries"
    sizes = {"llama": 128, "gpt2": 256}
    for what in range(6):
        for base, width in sizes.items():
            entry = _entry(what, base, "train" if what < 4 else "validation")
            card = entry.card.__class__(**{**vars(entry.card), "width": width})
            entry.__class__(entry.inputs, card).save(entries / f"{what}-{base}.safetensors")
    for stage in ("interpolator", "gate"):
        out = tmp_path / f"{stage}.safetensors"
        code, said, err = _umaf(
            capsys,
            "train",
            stage,
            "--bank",
            tmp_path / "bank",
            "--out",
            out,
            "--steps",
            3,
            "--set",
            "look_every=1",
        )
        assert code == 0 and out.is_file() and "validation" in said, err
        assert (tmp_path / f"{stage}.safetensors.curve.json").is_file()


def test_an_extractor_is_fitted_on_entries_and_opened_by_its_folder(tmp_path, capsys) -> None:
    places = torch.randn(5, 63, generator=generator(0, "places"))
    for what in range(6):
        for base in ("llama", "gpt2", "bert"):
            entry = _entry(what, base, "train" if what < 4 else "validation")
            named = replace(entry, inputs=replace(entry.inputs, places=places))
            named.save(tmp_path / "bank" / "entries" / f"{what}-{base}.safetensors")
    out, bank = tmp_path / "extractor", tmp_path / "bank"
    code, said, err = _umaf(capsys, "train", "extractor", "--bank", bank, "--out", out)
    assert code == 0 and "fitted on 12 experts" in said, err
    assert open_extractor(f"trained:{out}").version in said
    code, _, err = _umaf(capsys, "train", "extractor", "--bank", bank, "--out", tmp_path / "no", "--steps", 3)
    assert code == 1 and "--design encoder" in err and not (tmp_path / "no").exists()


def test_the_shipped_generator_needs_no_name(tmp_path, capsys) -> None:
    probes = tmp_path / "probes.txt"
    probes.write_text("\n".join(TEXTS[:40]))
    give = (
        "transfer",
        "--source",
        "zoo:gpt2-1m",
        "--probes",
        probes,
        "--labels",
        "good,bad",
        "--route",
        "generate",
    )
    code, _, err = _umaf(capsys, *give, "--target", "zoo:llama-1m", "--out", tmp_path / "adapter", "--json")
    assert code == 0, err
    about = json.loads((tmp_path / "adapter" / "umaf.json").read_text())["provenance"]
    assert about["extractor"] == "bound" and about["history"][-1]["generator"].startswith("generator-")
    code, _, err = _umaf(capsys, *give, "--target", "zoo:bert-1m", "--out", tmp_path / "no")
    assert (
        code == 1
        and "no generator" in err
        and "umaf train generator" in err
        and not (tmp_path / "no").exists()
    )
