"""The memory that a plan states is what the merge then takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

# In a process of its own: the peak of this one is that of all tests before.
PROGRAM = """
import json, sys, torch
from pathlib import Path
from umaf.merging.registry import method_of
from umaf.merging.stages import merge, plan_merge

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

recipe = json.loads(sys.argv[1])
torch.set_num_threads(1)
torch.linalg.svd(torch.randn(8, 8, dtype=torch.float64))
torch.linalg.eigh(torch.eye(8, dtype=torch.float64))
plan, _ = plan_merge(recipe)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
merge(recipe, sys.argv[2], workers=1)
print(json.dumps([plan.peak_memory, status("VmHWM") - before]))
"""


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks can be reset on Linux only"
)
@pytest.mark.parametrize("method", ["pcb", "tsv_m", "iso_cts"])
def test_a_worker_takes_what_the_plan_states(method, tmp_path):
    base = torch.randn(768, 768)
    shelf = {str(number): base + 0.01 * torch.randn(768, 768) * (number > 0) for number in range(4)}
    for name, weights in shelf.items():
        save_file({"layers.0.up.weight": weights}, tmp_path / f"{name}.safetensors")
    paths = [str(tmp_path / f"{name}.safetensors") for name in shelf]
    recipe = {"umaf": 1, "method": method, "base": paths[0], "models": paths[1:]}
    words = [sys.executable, "-c", PROGRAM, json.dumps(recipe), str(tmp_path / "out")]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    stated, measured = json.loads(done.stdout)
    assert measured <= stated <= 4 * measured and Path(tmp_path / "out").is_dir()
