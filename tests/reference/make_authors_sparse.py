"""Make `authors_sparse.safetensors`: results of the authors' own programs on fixed random deltas.

Run as `python tests/reference/make_authors_sparse.py TIES PCB SCE`, three files of the authors' repositories:
`src/utils/merge_utils.py` of prateeky2806/ties-merging, `pcb-merging.py` of duguodong7/pcb-merging and
`FuseChat/mergekit/mergekit/merge_methods/sce_merging.py` of fanqiwan/FuseAI (commits 44e7891, 5897888 and 7d9a307).
Only their functions are run, as they are.
The file holds the inputs (`deltas`, `small`, `tied`) and the merged vectors.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file


class _Silent:
    def info(self, *_: object) -> None:
        """Say nothing."""


def functions(path: str) -> SimpleNamespace:
    """Run the function definitions of a file, and nothing else of it."""
    import typing

    tree = ast.parse(Path(path).read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space: dict[str, Any] = {
        **vars(typing),
        "torch": torch,
        "logger": _Silent(),
        "WeightInfo": Any,
        "ImmutableMap": dict,
    }
    space["ModelReference"] = Any
    exec(compile(tree, path, "exec"), space)
    return SimpleNamespace(**space)


def make(ties_file: str, pcb_file: str, sce_file: str) -> dict[str, torch.Tensor]:
    """Merge the fixed inputs by every program."""
    ties, pcb, sce = functions(ties_file), functions(pcb_file), functions(sce_file)
    generator = torch.Generator().manual_seed(20306)
    deltas = torch.randn(4, 2000, generator=generator) * 1e-3
    small = torch.randn(3, 50, generator=generator)
    tied = torch.randn(4, 500, generator=generator).mul(2).round()
    made = {"deltas": deltas, "small": small, "tied": tied}
    for name in ("deltas", "small", "tied"):
        stack = made[name]
        for combine in ("mean", "sum", "max"):
            merged = ties.merge_methods("topk", stack, 20, "mass", f"dis-{combine}")
            made[f"ties.{name}.{combine}"] = merged.clone()
        if name != "tied":
            for ratio in (0.05, 0.2):
                made[f"pcb.{name}.{ratio}"] = pcb.PCB_merge(stack, pcb_ratio=ratio)[0].clone()
            for share in (0.1, 1.0):
                weights = torch.tensor(sce.get_sce_weight(stack, share), dtype=stack.dtype)[:, None]
                erased = weights * sce.get_erase_mask(stack, mask_dtype=stack.dtype)
                divisor = erased.sum(0)
                divisor[divisor == 0] = 1
                made[f"sce.{name}.{share}"] = (stack * erased).sum(0) / divisor
    return made


if __name__ == "__main__":
    save_file(make(*sys.argv[1:4]), Path(__file__).with_name("authors_sparse.safetensors"))
