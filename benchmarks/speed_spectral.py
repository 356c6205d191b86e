"""Spectral methods against FusionBench's, and against one thin decomposition, on the same matrices."""

from __future__ import annotations

import json
import os
import subprocess
import time
import venv
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.speed_run import ONE_THREAD, ROOT
from umaf import seeds
from umaf.merging.registry import method_of

PEER = "0.2.33"
SHAPES = {"384x1536, 4 experts": (4, 384, 1536), "512x512, 4 experts": (4, 512, 512)}
METHODS = ("tsv_m", "iso_c", "iso_cts", "wudi")
WORK = ROOT / "out" / "speed"


def spectral_pairs(runs: int) -> dict[str, list[dict]]:
    """Time every method by both programs, and one thin SVD of one matrix.

    Returns:
        For every method, rows of {stack, umaf, plain, svd}, in CPU seconds on one thread.
    """
    file = WORK / "spectral.safetensors"
    stacks = {name: _deltas(name, shape) for name, shape in SHAPES.items()}
    save_file(stacks, file)
    torch.set_num_threads(1)
    found: dict[str, list[dict]] = {method: [] for method in METHODS}
    for _ in range(runs):
        theirs = _peer(file)
        for name, stack in stacks.items():
            svd = _timed(lambda stack=stack: torch.linalg.svd(stack[0], full_matrices=False))
            for method in METHODS:
                ours = _timed(lambda method=method, stack=stack: method_of(method).function(stack))
                row = {"stack": name, "umaf": ours, "plain": theirs[name, method], "svd": svd}
                found[method].append(row)
                print(
                    method,
                    {key: value if key == "stack" else round(value, 3) for key, value in row.items()},
                    flush=True,
                )
    return found


def _deltas(name: str, shape: tuple[int, int, int]) -> Tensor:
    # The spectrum of a fine-tuning: a few strong directions over noise.
    models, rows, columns = shape
    draw = seeds.generator(0, "spectral", name)
    strong = torch.randn(models, rows, 8, generator=draw) @ torch.randn(models, 8, columns, generator=draw)
    return 1e-3 * torch.randn(shape, generator=draw) + 2e-3 * strong


def _timed(run) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _peer(file: Path) -> dict[tuple[str, str], float]:
    program = Path(__file__).with_name("speed_peer_spectral.py")
    ended = subprocess.run(
        [_environment(), program, file],
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"FusionBench's methods did not run:\n{ended.stderr[-3000:]}")
    rows = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"stack"')]
    return {(row["stack"], row["method"]): row["cpu"] for row in rows}


def _environment() -> Path:
    """Give the Python of an environment with fusion-bench, made on first use; UMAF_FUSION_BENCH names one."""
    home = Path(os.environ.get("UMAF_FUSION_BENCH") or ROOT / "out" / "peers" / f"fusion-bench-{PEER}")
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        pip = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, f"fusion-bench=={PEER}"], check=True)
    return python
