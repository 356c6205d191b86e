"""Pretrain one model of the zoo: a checkpoint every hundred steps, progress shown."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from umaf import seeds
from zoo.batches import Batch, Encoded, objective
from zoo.configs import Row, fresh

CHECKPOINT_EVERY = 100
WARMUP = 100


def rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate: linear warm-up, then cosine down to a twentieth."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    share = (step - WARMUP) / max(1, steps - WARMUP)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def pretrain(
    row: Row,
    data: Encoded,
    tokenizer: PreTrainedTokenizerFast,
    cache: Path,
    seed: int,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> PreTrainedModel:
    """Train a row of the zoo from its seed, resuming from the cache where an earlier run was stopped.

    Args:
        row: the model.
        data: the corpus as tokens.
        tokenizer: that made them.
        cache: where checkpoints lie.
        seed: of weights and batches.
        device: where to train.
        dtype: of the arithmetic.

    Returns:
        The trained model in evaluation mode, float32, on the CPU.
    """
    torch.manual_seed(seeds.derive(seed, "initial", row.name) % 2**31)
    net = fresh(row).to(device)
    optimiser = torch.optim.AdamW(_groups(net), lr=row.rate, betas=(0.9, 0.97), eps=1e-9, fused=True)
    state, log = cache / f"{row.name}.pt", cache / f"{row.name}.jsonl"
    start = 0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
    make, _ = objective(row.config.model_type)
    net.train()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(row.name, total=row.steps, completed=start)
        for step in range(start, row.steps):
            draw = np.random.default_rng(seeds.derive(seed, "batch", row.name, step))
            batch = make(data, tokenizer, draw, step / row.steps)
            loss = _step(net, optimiser, batch, rate_at(step, row.steps, row.rate), dtype)
            progress.update(bar, advance=1, description=f"{row.name} loss {loss:.3f}")
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == row.steps:
                _save(state, net, optimiser, step + 1)
                with log.open("a") as lines:
                    lines.write(json.dumps({"step": step + 1, "loss": loss}) + "\n")
    return net.cpu().eval()


def _groups(net: PreTrainedModel) -> list[dict]:
    matrices = [p for p in net.parameters() if p.ndim >= 2]
    vectors = [p for p in net.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]


def _step(
    net: PreTrainedModel, optimiser: torch.optim.Optimizer, batch: Batch, rate: float, dtype: torch.dtype
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    extra = {"output_router_logits": True} if net.config.model_type == "mixtral" else {}
    here = {name: tensor.to(net.device) for name, tensor in batch.items()}
    with torch.autocast(net.device.type, dtype, enabled=dtype != torch.float32):
        loss = net(**here, **extra).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(loss.detach())


def _save(path: Path, net: PreTrainedModel, optimiser: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, partial)
    partial.replace(path)
