"""`umaf extract-lora` for every shipped architecture: PEFT loads the folder whole, and gets the expert back."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from umaf.checkpoints import open_checkpoint
from umaf.cli import main
from umaf.deltas import lora
from umaf.deltas.places import places_of
from umaf.models import open_model
from umaf.models.quiet import quiet

ZOO = ("bert", "gpt2", "llama", "mixtral", "t5")
RANK = 3


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Give each shipped model with a change of rank 3 in every matrix that a LoRA can change."""
    made = {}

    def expert(kind):
        if kind not in made:
            base = open_checkpoint(f"zoo:{kind}-1m")
            folder = tmp_path_factory.mktemp("experts") / kind
            shutil.copytree(base.folder, folder)
            state = load_file(folder / "model.safetensors")
            torch.manual_seed(0)
            for place in places_of(base):
                for row in place.tensors:
                    width = state[row[0]].shape[1] if not place.transposed else state[row[0]].shape[0]
                    a = torch.randn(RANK, width)
                    for name in row:
                        out = state[name].shape[1 if place.transposed else 0]
                        change = 0.02 * torch.randn(out, RANK) @ a
                        state[name] = state[name] + (change.T if place.transposed else change)
            save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
            made[kind] = folder
        return made[kind]

    return expert


@pytest.mark.parametrize("kind", ZOO)
def test_the_folder_gives_the_expert_back(kind, experts, tmp_path, capsys):
    out = tmp_path / "lora"
    words = ["extract-lora", experts(kind), "--base", f"zoo:{kind}-1m", "-o", out, "--rank", RANK, "--json"]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    assert (end.value.code, shown.err) == (0, "")
    found = json.loads(shown.out)
    assert found["error"] < 1e-4 and {row["rank"] for row in found["modules"]} == {RANK}
    assert found["left_out"] == []

    base, expert = open_checkpoint(f"zoo:{kind}-1m"), open_checkpoint(experts(kind))
    changes = lora(out, base)
    for name in changes:
        again = changes.apply(name, base.read(name).float())
        torch.testing.assert_close(again, expert.read(name).float(), atol=1e-5, rtol=0)

    net = open_model(f"zoo:{kind}-1m").net
    with quiet():
        wrapped = PeftModel.from_pretrained(net, str(out))
        told = wrapped.load_adapter(str(out), "again")
    assert [key for key in told.missing_keys if "lora_" in key and ".default." not in key] == []
    assert told.unexpected_keys == []
    with quiet():
        merged = wrapped.merge_and_unload(adapter_names=["default"]).state_dict()
    wanted = open_model(experts(kind)).net.state_dict()
    assert merged.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-5, rtol=0)
