"""The worked example runs on the shipped models, and its adapters are plain PEFT folders."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from umaf.models.locate import locate, zoo_names

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.skipif(not {"bert-1m", "llama-1m"} <= set(zoo_names()), reason="the zoo is not built here")
def test_the_example_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    import sentiment_generation

    words = ["--writer", "zoo:llama-1m", "--steps", "20", "--draws", "4", "--out", str(tmp_path / "out")]
    sentiment_generation.main(words)
    shown = capsys.readouterr().out
    assert "judged" in shown
    assert all(f"\n{name}, " in shown for name in ("bare", "praise", "blame"))
    for name in ("praise", "blame"):
        folder = tmp_path / "out" / name
        assert json.loads((folder / "umaf.json").read_text())["provenance"]["towards"] == name
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            net = PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(locate("zoo:llama-1m")), str(folder)
            )
            report = net.load_adapter(str(folder), adapter_name="default")
        assert not [key for key in report.missing_keys if "lora_" in key] and not report.unexpected_keys
