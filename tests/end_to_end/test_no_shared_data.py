"""Every stage, alone and in a row, where no folder of real data lies beside the checkout.

Each command reads what the one before it wrote.
"""

from __future__ import annotations

import json

import pytest

from tests.texts import CUE, LABELS, PROBES
from umaf.cli import main
from umaf.tasks import bank, door
from umaf.tasks.generated import GENERATED


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UMAF_DATA", raising=False)
    monkeypatch.setattr(door, "CHECKOUT", tmp_path / "alone" / "umaf")
    (tmp_path / "probes.txt").write_text("\n".join(PROBES) + "\n")

    def run(*words, code=0):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        assert end.value.code == code, shown.err
        return shown.out if code == 0 else shown.err

    return run


def test_the_commands_in_a_row(shell, pico, tmp_path):
    assert door.find_data() is None
    source, target = pico("bert"), pico("llama")
    for name, model in (("one", source), ("two", pico("gpt2"))):
        card = json.loads(
            shell("fingerprint", model, "--probes", "probes.txt", "--out", f"{name}.safetensors", "--json")
        )
        assert card["file"] == f"{name}.safetensors" and len(card["vector"]) == 512
    table = json.loads(shell("compare", "one.safetensors", "two.safetensors", "--json"))
    assert table["similarities"][0][0] == pytest.approx(1, abs=1e-5)
    (tmp_path / "transfer.yaml").write_text(
        f"source: [{source}]\ntarget: {target}\nprobes: [probes.txt]\nlabels: [[{', '.join(LABELS)}]]\n"
        f"cue: [{CUE}]\nrank: 2\nseed: 3\n"
    )
    made = json.loads(shell("transfer", "--config", "transfer.yaml", "--out", "adapter", "--json"))
    assert (made["seed"], made["rank"], made["folder"]) == (3, 2, "adapter")
    scores = json.loads(
        shell("evaluate", target, "--adapter", "adapter", "--task", "made/sentiment", "--limit", 8, "--json")
    )
    assert scores["scores"][0]["n"] == 8
    listed = json.loads(shell("evaluate", "--list", "--json"))
    assert set(GENERATED) <= set(listed) and not [name for name in listed if name in bank.names()]
    found = json.loads(shell("doctor", "--json"))
    assert found["data"] is None and not found["problems"]


def test_what_needs_real_data_says_so(shell, pico):
    said = shell("evaluate", pico("llama"), "--task", "snips7", code=1)
    assert "no folder of real data was found" in said and said.count("\n") == 1
