"""The real command on the shipped models, with small sizes, and no folder of real data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from umaf.evaluation.record import read_record
from umaf.models.locate import locate

SMALL = {
    "labelled": 200,
    "probes": 64,
    "tests": 60,
    "expert_steps": 60,
    "oracle_steps": 40,
    "distill_steps": 40,
    "iterations": 3,
}
FILES = {
    "record.json",
    "report.html",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "adapter/umaf.json",
    "adapter/fingerprint.safetensors",
    *(
        f"figures/{name}.{kind}"
        for name in (
            "fingerprint-map",
            "similarity",
            "recovery-new-sentences",
            "recovery-new-words-and-patterns",
        )
        for kind in ("png", "svg")
    ),
}


# As in a checkout that stands alone, whatever lies beside this one.
ALONE = (
    "from pathlib import Path; from umaf.tasks import door; door.CHECKOUT = Path('alone/umaf').absolute(); "
    "from umaf.cli import main; main()"
)


def command(folder, *words):
    return subprocess.run(
        [sys.executable, "-c", ALONE, "quickstart", *words],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "UMAF_DATA"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "small.json").write_text(json.dumps(SMALL))
    ran = command(folder, "--config", "small.json", "--json")
    assert ran.returncode == 0, ran.stderr
    return folder, json.loads(ran.stdout)


def test_everything_is_there(done):
    place = done[0] / "out" / "quickstart"
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert found >= FILES and [path.name for path in place.parent.iterdir()] == ["quickstart"]


def test_the_numbers_are_in_range(done):
    folder, printed = done
    record = read_record(folder / "out" / "quickstart" / "record.json")
    assert record.kind == "quickstart" and record.config["labelled"] == 200
    assert record.numbers["scores"] == printed["scores"]
    for level in printed["scores"].values():
        assert set(level) == {"question", "tense"}
        for rows in level.values():
            assert set(rows) == {"source", "bare", "solve", "distill", "generate", "oracle"}
            assert all(0 <= one["low"] <= one["value"] <= one["high"] <= 1 for one in rows.values())
    table = printed["similarity"]["cosine"]
    assert len(table) == 7 and all(-1 <= value <= 1.000001 for row in table for value in row)
    assert printed["kept"] in ("solve", "distill", "generate") and printed["seconds"]["cpu"] > 0


def test_something_arrives(done):
    rows = done[1]["scores"]["new sentences"].values()
    kept = done[1]["kept"]
    assert sum(row[kept]["value"] - row["bare"]["value"] for row in rows) / 2 > 0.15


def test_the_page_asks_nothing_of_any_network(done):
    page = (done[0] / "out" / "quickstart" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)|url\((?!#|data:)|@import|<script""", page)


def test_plain_peft_loads_the_adapter(done):
    place = done[0] / "out" / "quickstart" / "adapter"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        net = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(locate("zoo:llama-1m")), str(place)
        )
        report = net.load_adapter(str(place), adapter_name="default")
    assert not [key for key in report.missing_keys if "lora_" in key] and not report.unexpected_keys


def test_somebody_elses_folder_stops_it_at_once(tmp_path):
    (tmp_path / "mine").mkdir()
    ran = command(tmp_path, "--out", "mine")
    assert ran.returncode == 1 and len(ran.stderr.strip().splitlines()) == 1
    assert "not an earlier quickstart's" in ran.stderr and not list((tmp_path / "mine").iterdir())
