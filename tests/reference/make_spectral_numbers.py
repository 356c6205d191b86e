"""Make `spectral_numbers.safetensors`: results of FusionBench and of the authors' programs on fixed random deltas.

Run in an environment that has fusion-bench 0.2.33 and torch as `python make_spectral_numbers.py MLLM`, MLLM being
`fusion_bench/fusion_bench/method/yongxianwei_merging/functional.py` of WalkerWorldPeace/MLLMerging (commit 5f8a458).
OPCM and DOGE cannot be imported there with transformers 5; single functions of their files are run instead.
Everything is run in float64, so that the numbers are those of the programs and not of their rounding.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

_FUTURE = "from __future__ import annotations"
SHAPES = {"tall": (3, 21, 12), "wide": (4, 12, 20), "square": (3, 15, 15)}


def inputs() -> dict[str, torch.Tensor]:
    """Make deltas of float32 values, with falling spectra."""
    generator = torch.Generator().manual_seed(1301)
    made = {}
    for name, (models, out, width) in SHAPES.items():
        noise = torch.randn(models, out, width, generator=generator)
        falling = 0.85 ** torch.arange(width, dtype=torch.float32)
        made[name] = (0.02 * noise * falling).float()
    return made


def functions(path: str | Path, **extra: Any) -> SimpleNamespace:
    """Run the definitions of a file, classes included but without their bases, and nothing else of it."""
    import typing

    tree = ast.parse("from __future__ import annotations\n" + Path(path).read_text().replace(_FUTURE, ""))
    tree.body = tree.body[:1] + [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.bases, node.decorator_list = [], []
            node.body = [one for one in node.body if isinstance(one, ast.FunctionDef)] or [ast.Pass()]
            for one in node.body:
                if isinstance(one, ast.FunctionDef):
                    one.decorator_list = []
    ast.fix_missing_locations(tree)
    space: dict[str, Any] = {**vars(typing), "torch": torch, "Tensor": torch.Tensor, "nn": torch.nn, **extra}
    exec(compile(tree, str(path), "exec"), space)
    return SimpleNamespace(**space)


def fusion_bench(stack: torch.Tensor) -> dict[str, torch.Tensor]:
    """Merge by what fusion-bench lets one import."""
    from fusion_bench.method.isotropic_merging.iso_utils import iso_c, iso_cts
    from fusion_bench.method.task_singular_vector.utils import TSVM_utils as tsv
    from fusion_bench.method.wudi.wudi import wudi_merging

    vectors = [{"w": one} for one in stack.double()]
    return {
        "tsv_m": tsv.compute_and_sum_svd_mem_reduction(vectors, accelerator="cpu")["w"],
        "iso_c": iso_c(vectors, accelerator="cpu")["w"],
        "iso_cts": iso_cts(vectors, 0.8, accelerator="cpu")["w"],
        "iso_cts.half": iso_cts(vectors, 0.5, accelerator="cpu")["w"],
        "wudi.adam": wudi_merging(vectors, accelerator="cpu", iter_num=50)["w"].detach(),
    }


def mllm(path: str, stack: torch.Tensor) -> dict[str, torch.Tensor]:
    """Merge by the filters of SWUDI and ASWUDI, and by OptMerge."""
    import logging
    import math

    class Vector:
        def __init__(
            self, pretrained_model=None, finetuned_model=None, exclude_param_names_regex=None, **given
        ):
            self.task_vector_param_dict = given.get("task_vector_param_dict", finetuned_model)

        def combine_with_pretrained_model(self, pretrained_model, scaling_coefficient):
            return self.task_vector_param_dict

    program = functions(
        path, math=math, re=re, logger=logging, logging=logging, TaskVector=Vector, tqdm=lambda one, **_: one
    )
    # The program rounds to float32 on the way; the numbers are kept in what it gives.
    vectors = [{"w": one} for one in stack]

    def run(method, **options):
        return method({}, vectors, None, progress=False, **options)["w"]

    return {
        "wudi.exp": run(program.iwudi_merge),
        "wudi.swudi": run(program.swudi_merge, exp_time=1300.0, truncate_rank_ratio=0.65, alignment_rho=0.0),
        "wudi.aswudi": run(program.aswudi_merge),
        "optmerge.adam": run(program.wudi_merge_v2, iter_num=50),
    }


def single(stack: torch.Tensor) -> dict[str, torch.Tensor]:
    """Merge by OPCM's and DOGE's own functions."""
    import fusion_bench

    root = Path(fusion_bench.__file__).parent / "method"
    svd = functions(root / "opcm" / "utils.py").svd
    rule = functions(root / "opcm" / "opcm.py", svd=svd).OPCMForCLIP
    rows = stack.double()
    zero, merged, factor, norms = torch.zeros_like(rows[0]), rows[0].clone(), 1.0, [rows[0].norm()]
    for row in rows[1:]:
        state = SimpleNamespace(previous_lambda_t=factor, lambda_t=1.0)
        merged = rule.merge_linear_weights(state, merged, zero, row, "w", 0.5)
        norms.append(row.norm())
        mean = torch.stack(norms).mean()
        factor = float(merged.norm() / mean)
        merged = merged * mean / merged.norm()
    doge = functions(
        root / "doge_ta" / "doge_ta.py", L=SimpleNamespace(), StateDictType=Any
    ).DOGE_TA_Algorithm
    loss = doge.taskvector_loss(None, rows, 0.01 * rows[0], 0.07 / torch.linalg.matrix_norm(rows))
    return {"opcm": merged, "doge.loss": loss.reshape(1)}


if __name__ == "__main__":
    made = {}
    for name, stack in inputs().items():
        made[name] = stack
        for found in (fusion_bench(stack), mllm(sys.argv[1], stack), single(stack)):
            made |= {f"{name}.{key}": value.detach().clone().contiguous() for key, value in found.items()}
    save_file(made, Path(__file__).with_name("spectral_numbers.safetensors"))
