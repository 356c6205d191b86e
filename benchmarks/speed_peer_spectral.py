"""Time FusionBench's spectral methods; run by the speed benchmark inside an environment that has fusion-bench.

    python speed_peer_spectral.py STACKS.safetensors

For every stack of deltas and every method it prints one JSON line with the CPU seconds on one thread.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from fusion_bench.method.isotropic_merging.iso_utils import iso_c, iso_cts
from fusion_bench.method.task_singular_vector.utils import TSVM_utils
from fusion_bench.method.wudi.wudi import wudi_merging
from safetensors.torch import load_file

METHODS = {
    "tsv_m": lambda vectors: TSVM_utils.compute_and_sum_svd_mem_reduction(vectors, accelerator="cpu"),
    "iso_c": lambda vectors: iso_c(vectors, accelerator="cpu"),
    "iso_cts": lambda vectors: iso_cts(vectors, 0.8, accelerator="cpu"),
    "wudi": lambda vectors: wudi_merging(vectors, accelerator="cpu", iter_num=300),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, stack in load_file(sys.argv[1]).items():
        for method, run in METHODS.items():
            began = time.process_time()
            run([{"w": one.clone()} for one in stack])
            print(
                json.dumps({"stack": name, "method": method, "cpu": time.process_time() - began}), flush=True
            )
