"""Make `mergekit_spherical.safetensors`: results of mergekit 0.1.5 on fixed random tensors.

Run with a Python that has mergekit: `python tests/reference/make_mergekit_spherical.py`. The file holds the inputs and,
for each line of `CASES`, the merged tensor under the case's name.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

WEIGHTS = [0.5, 1.0, 0.25]
TWO, THREE, BASED = ["a", "b"], ["a", "b", "c"], ["base", "a", "b", "c"]
CASES = {
    "linear": ("linear", THREE, {"weight": WEIGHTS}),
    "linear.sum": ("linear", THREE, {"weight": [1.0, -0.5, 0.2], "normalize": False}),
    "task_arithmetic": ("task_arithmetic", BASED, {"weight": WEIGHTS}),
    "task_arithmetic.mean": ("task_arithmetic", BASED, {"weight": WEIGHTS, "normalize": True, "lambda": 0.7}),
    "slerp": ("slerp", ["base", "a"], {"t": 0.3}),
    "slerp.wide": ("slerp", ["base", "wide"], {"t": 0.3}),
    "slerp.near": ("slerp", ["base", "near"], {"t": 0.6}),
    "slerp.opposite": ("slerp", ["base", "opposite"], {"t": 0.3}),
    "slerp.zero": ("slerp", ["base", "zero"], {"t": 0.3}),
    "nuslerp": ("nuslerp", TWO, {"weight": [0.7, 0.3]}),
    "nuslerp.base": ("nuslerp", ["base", "a", "b"], {"weight": [0.5, 1.5]}),
    "nuslerp.last": ("nuslerp", ["base", "a", "b"], {"weight": [0.5, 1.5], "nuslerp_flatten": False}),
    "nuslerp.first": (
        "nuslerp",
        ["base", "a", "b"],
        {"weight": [0.5, 1.5], "nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    "nuslerp.near": ("nuslerp", ["base", "near"], {"weight": [0.4, 0.6]}),
    "multislerp": ("multislerp", THREE, {"weight": WEIGHTS}),
    "multislerp.base": ("multislerp", BASED, {"weight": WEIGHTS}),
    "multislerp.sum": ("multislerp", BASED, {"weight": WEIGHTS, "normalize_weights": False}),
    "karcher": ("karcher", ["a", "wide", "c"], {}),
    "karcher.two": ("karcher", ["a", "wide", "c"], {"max_iter": 2}),
    "karcher.zero": ("karcher", ["a", "wide", "zero"], {}),
    "nearswap": ("nearswap", ["base", "a"], {"t": 0.1}),
    "nearswap.none": ("nearswap", ["base", "a"], {"t": 0.0}),
    "model_stock": ("model_stock", ["base", "one", "two", "three"], {}),
    "model_stock.rows": ("model_stock", ["base", "one", "two", "three"], {"filter_wise": True}),
    "model_stock.away": ("model_stock", ["base", "away.one", "away.two", "away.three"], {}),
    "passthrough": ("passthrough", ["a"], {"scale": 0.5}),
}
NEED_NO_BASE = {"linear", "karcher", "passthrough"}


def inputs() -> dict[str, torch.Tensor]:
    """Give the fixed inputs: experts of one base, and pairs at odd angles."""
    generator = torch.Generator().manual_seed(20241)

    def draw(size: float = 1.0) -> torch.Tensor:
        return size * torch.randn(24, 30, generator=generator)

    base, common = draw(), draw(0.3)
    made = {"base": base, **{name: base + draw(0.3) for name in THREE}, "wide": draw(3.0)}
    made["near"] = base + draw(0.02)
    made["opposite"] = -base + draw(0.02)
    made["zero"] = torch.zeros(24, 30)
    made |= {name: base + common + draw(0.2) for name in ("one", "two", "three")}
    away = [draw(0.3) for _ in range(3)]
    mean = sum(away) / 3
    names = ("away.one", "away.two", "away.three")
    return made | {name: base + one - 0.8 * mean for name, one in zip(names, away, strict=True)}


def make() -> dict[str, torch.Tensor]:
    """Merge the fixed inputs by every case."""
    from mergekit.merge_methods.api import merge_tensors

    made = inputs()
    results = {}
    for name, (method, models, options) in CASES.items():
        first = 0 if models[0] == "base" and method not in NEED_NO_BASE and name != "nuslerp.near" else None
        results[name] = merge_tensors(
            [made[model] for model in models], method, parameters=options, base_index=first
        )
    return {**made, **{f"out.{name}": result.contiguous().clone() for name, result in results.items()}}


if __name__ == "__main__":
    target = Path(__file__).with_name("mergekit_spherical.safetensors")
    save_file(make(), target, metadata={"made_by": "mergekit 0.1.5", "cases": json.dumps(CASES)})
