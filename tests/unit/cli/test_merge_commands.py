"""`umaf merge`, `umaf methods` and `umaf card`, as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from tests.unit.merging import made_checkpoints as made
from umaf.cli import _run
from umaf.cli.merge import size_of
from umaf.errors import ConfigError
from umaf.merging.registry import METHODS
from umaf.merging.writing.card import card_of, read_manifest


@pytest.fixture
def recipe(tmp_path):
    folders = made.family(tmp_path / "family")
    path = tmp_path / "recipe.yml"
    models = [{"model": str(one), "parameters": {"weight": 1.0, "density": 0.5}} for one in folders[1:]]
    path.write_text(yaml.safe_dump({"merge_method": "ties", "base_model": str(folders[0]), "models": models}))
    return path


def test_the_plan_is_printed_and_nothing_made(recipe, tmp_path, capsys):
    assert _run(["merge", str(recipe), str(tmp_path / "out"), "--dry-run", "--json"], False) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "ties" and found["tensors"] == 18 and found["rules"] == {"ties": 18}
    assert found["bytes_written"] > 0 and found["peak_memory"] > 0 and not (tmp_path / "out").exists()
    assert _run(["merge", str(recipe), "--dry-run"], False) == 0
    assert "18" in capsys.readouterr().out


def test_merge_and_its_card(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        _run(
            [
                "merge",
                str(recipe),
                str(out),
                "--workers",
                "2",
                "--shard-size",
                "1kB",
                "--seed",
                "7",
                "--json",
            ],
            False,
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["out"] == str(out)
    assert read_manifest(out)["seed"] == 7 and (out / "model.safetensors.index.json").is_file()
    assert _run(["card", str(out)], False) == 0
    text = capsys.readouterr().out
    assert text == card_of(read_manifest(out)) == (out / "README.md").read_text()
    (out / "README.md").write_text("other")
    assert _run(["card", str(out), "--write"], False) == 0 and (out / "README.md").read_text() == text


def test_flipped_bytes_are_found(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    assert _run(["merge", str(recipe), str(out)], False) == 0
    assert _run(["card", str(out), "--verify"], False) == 0 and "1 file as made" in capsys.readouterr().out
    file = out / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert _run(["card", str(out), "--verify"], False) == 1
    assert "model.safetensors has changed" in capsys.readouterr().err


def test_mistakes_are_one_line(recipe, tmp_path, capsys):
    text = recipe.read_text()
    for wrong, said in (
        (text.replace("density", "densty"), "density"),
        (text.replace(": ties", ": tiess"), '"ties"'),
    ):
        recipe.write_text(wrong)
        assert _run(["merge", str(recipe), str(tmp_path / "out")], False) == 1
        shown = capsys.readouterr().err
        assert said in shown and shown.count("\n") == 1
    recipe.write_text(text)
    assert _run(["merge", str(recipe)], False) == 1 and "--dry-run" in capsys.readouterr().err
    assert _run(["card", str(tmp_path)], False) == 1 and "umaf merge" in capsys.readouterr().err
    for words in (["no.yml", "out"], ["no.yml", "--dry-run"], [str(tmp_path), "out"]):
        assert _run(["merge", *words], False) == 1
        shown = capsys.readouterr().err
        assert "check the path" in shown and shown.count("\n") == 1


def test_sizes_are_read():
    assert size_of("1.5GB") == 1_500_000_000 and size_of("64k") == 64_000
    for wrong in ("", "big", "-1", "0"):
        with pytest.raises(ConfigError, match="--shard-size"):
            size_of(wrong)


def test_methods_are_listed(capsys):
    assert _run(["methods", "--json"], False) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert sorted(found) == METHODS.names()
    assert all(one["source"] and one["summary"] for one in found.values())
    assert found["ties"]["options"]["density"]["range"] == "(0, 1]"
    assert _run(["methods"], False) == 0 and "breadcrumbs" in capsys.readouterr().out
    assert _run(["methods", "ties"], False) == 0 and "density" in capsys.readouterr().out
    assert _run(["methods", "tie"], False) == 1 and '"ties"' in capsys.readouterr().err


def test_a_merge_imports_neither_transformers_nor_peft(recipe, tmp_path):
    words = ["merge", str(recipe), str(tmp_path / "out")]
    code = (
        "import sys; from umaf.cli import _run; code = _run(sys.argv[1:], False); "
        "no = {'transformers', 'peft', 'scipy', 'sklearn', 'ray', 'tokenizers', 'huggingface_hub'} & set(sys.modules); "
        "sys.exit(f'{code} {no}' if code or no else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
