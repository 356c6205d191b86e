"""What the README and the first tutorial show runs as it stands, on tiny models that lie under the names shown."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.texts import LABELS, PROBES
from umaf.cli import main
from umaf.generation.train import train_lora
from umaf.models import fresh_classifier, open_model
from umaf.models.quiet import quiet

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "tutorials" / "first-transfer.md")


def python_of(page):
    """Give the block of a page that uses umaf from Python."""
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in found if "import umaf" in block]
    return block


def commands_of(page, *names):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("umaf ")]
    # "org/a" stands for any model.
    return [line[1:] for line in lines if line[1] in names and "org/a" not in line]


@pytest.fixture
def place(pico, tmp_path, monkeypatch):
    """A folder with the models and texts that the pages name, where distill takes three steps instead of many."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "umaf.generation.distill.train_lora",
        lambda *args, schedule, **more: train_lora(*args, schedule=replace(schedule, steps=3), **more),
    )
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for name, kind in (
        ("bert-sentiment", "bert"),
        ("roberta-intents", "roberta"),
        ("roberta-topics", "roberta"),
    ):
        with quiet():
            model = fresh_classifier(open_model(pico(kind)), LABELS)
            model.net.save_pretrained(tmp_path / "org" / name)
            model.tokenizer.save_pretrained(tmp_path / "org" / name)
    shutil.copytree(pico("llama"), tmp_path / "org" / "llama-1b")
    for name in ("reviews.txt", "news.txt"):
        (tmp_path / name).write_text("\n".join(PROBES), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, place, capsys):
    block = python_of(page)
    exec(compile(block, str(page), "exec"), {})
    assert (place / "adapters" / "sentiment" / "adapter_config.json").is_file()


def test_the_readmes_example_is_ten_lines():
    assert len([line for line in python_of(PAGES[0]).splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_first_commands_of_a_page_run_in_their_order(page, place, capsys):
    for words in commands_of(page, "fingerprint", "compare", "transfer", "scale", "fuse", "evaluate"):
        # The task is one that needs no data; everything else is as it stands.
        words = ["made/sentiment" if word == "mr_polarity" else word for word in words]
        words += ["--limit", "8"] if words[0] == "evaluate" else []
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0, (words, capsys.readouterr().err)
