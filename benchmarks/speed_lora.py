"""Merging LoRAs: factor space against PEFT's combination by a dense decomposition."""

from __future__ import annotations

import time

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from umaf import seeds
from umaf.deltas import LowRank, add, truncate
from umaf.models.quiet import quiet

WIDTH, RANK, ADAPTERS, MODULES = 2048, 16, 4, 1


class _Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(MODULES))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def lora_pairs(runs: int) -> list[dict]:
    """Average adapters of one rank into one of the same rank, by both programs.

    Returns:
        Rows of {peft, umaf}, each with its CPU seconds on one thread and its relative error to the dense average. No
        adapter of that rank can have a smaller error than the truncated decomposition, which both compute.
    """
    torch.set_num_threads(1)
    return [_pair(seed) for seed in range(runs)]


def _pair(seed: int) -> dict:
    names = [f"a{number}" for number in range(ADAPTERS)]
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=r"layers\.\d+")
    with quiet():
        model = get_peft_model(_Toy(), config, adapter_name=names[0])
        for name in names[1:]:
            model.add_adapter(name, config)
    layers = [model.base_model.model.layers[number] for number in range(MODULES)]
    for number, layer in enumerate(layers):
        for name in names:
            draw = seeds.generator(seed, "lora", number, name)
            layer.lora_A[name].weight.data.normal_(std=0.02, generator=draw)
            layer.lora_B[name].weight.data.normal_(std=0.02, generator=draw)
    weights = [1 / ADAPTERS] * ADAPTERS
    exact = [
        sum(layer.get_delta_weight(name).detach().double() for name in names) / ADAPTERS for layer in layers
    ]
    began = time.process_time()
    model.add_weighted_adapter(names, weights, "merged", combination_type="svd", svd_rank=RANK)
    theirs = time.process_time() - began
    peft_deltas = [layer.get_delta_weight("merged").detach().double() for layer in layers]
    began = time.process_time()
    merged = []
    for layer in layers:
        parts = [LowRank(layer.lora_A[name].weight.data, layer.lora_B[name].weight.data) for name in names]
        merged.append(truncate(add(parts, weights), RANK)[0])
    ours = time.process_time() - began
    row = {
        "peft": {"cpu": theirs, "error": _error(peft_deltas, exact)},
        "umaf": {"cpu": ours, "error": _error([one.dense().double() for one in merged], exact)},
    }
    print("lora", row, flush=True)
    return row


@torch.no_grad()
def _error(found: list[Tensor], exact: list[Tensor]) -> float:
    wrong = sum(float((one - other).square().sum()) for one, other in zip(found, exact, strict=True))
    return (wrong / sum(float(one.square().sum()) for one in exact)) ** 0.5
