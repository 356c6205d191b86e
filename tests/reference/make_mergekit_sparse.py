"""Make `mergekit_sparse.safetensors`: results of mergekit 0.1.5 on fixed random tensors.

Run with a Python that has mergekit: `python tests/reference/make_mergekit_sparse.py`. The file holds the inputs
(`base`, `expert.0` …) and, for each line of `CASES`, the merged tensor under the case's name.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPE = (24, 30)
WEIGHTS = [0.5, 1.0, 0.25]
CASES = {
    "ties": ("ties", {"weight": WEIGHTS, "density": [0.2, 0.5, 0.7], "normalize": True, "lambda": 1.0}),
    "ties.sum": ("ties", {"weight": WEIGHTS, "density": 0.3, "normalize": False, "lambda": 0.7}),
    "ties.negative": ("ties", {"weight": [1.0, -0.5, 1.0], "density": 0.4, "normalize": True, "lambda": 1.0}),
    "breadcrumbs": ("breadcrumbs", {"weight": WEIGHTS, "density": 0.6, "gamma": 0.02, "normalize": False}),
    "breadcrumbs.mean": ("breadcrumbs", {"weight": WEIGHTS, "density": 0.9, "gamma": 0.2, "normalize": True}),
    "breadcrumbs.none": (
        "breadcrumbs",
        {"weight": WEIGHTS, "density": 0.6, "gamma": 0.0, "normalize": False},
    ),
    "breadcrumbs_ties": (
        "breadcrumbs_ties",
        {"weight": WEIGHTS, "density": 0.6, "gamma": 0.02, "normalize": False},
    ),
    "breadcrumbs_ties.mean": (
        "breadcrumbs_ties",
        {"weight": WEIGHTS, "density": 0.5, "gamma": 0.1, "normalize": True},
    ),
    "sce": ("sce", {"select_topk": 1.0}),
    "sce.some": ("sce", {"select_topk": 0.3}),
    "dare_linear.all": ("dare_linear", {"weight": WEIGHTS, "density": 1.0, "normalize": True}),
    "dare_ties.all": ("dare_ties", {"weight": WEIGHTS, "density": 1.0, "normalize": False}),
    "della.all": ("della", {"weight": WEIGHTS, "density": 1.0, "normalize": True}),
    "della_linear.all": ("della_linear", {"weight": WEIGHTS, "density": 1.0, "normalize": False}),
}


def make() -> dict[str, torch.Tensor]:
    """Merge the fixed inputs by every case."""
    from mergekit.merge_methods.api import merge_tensors

    generator = torch.Generator().manual_seed(20240)
    base = torch.randn(SHAPE, generator=generator)
    experts = [base + 0.3 * torch.randn(SHAPE, generator=generator) for _ in range(3)]
    made = {"base": base, **{f"expert.{index}": expert for index, expert in enumerate(experts)}}
    for name, (method, options) in CASES.items():
        made[name] = merge_tensors([base, *experts], method, parameters=options, base_index=0)
    return made


if __name__ == "__main__":
    target = Path(__file__).with_name("mergekit_sparse.safetensors")
    save_file(make(), target, metadata={"made_by": "mergekit 0.1.5", "cases": json.dumps(CASES)})
