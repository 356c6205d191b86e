"""Experts for the merge benchmark: one encoder per task from one base, with heads that never move.

A head is fitted to the base's own features first (ridge, closed form) and then stays as it is while the encoder is
fine-tuned, as the zero-shot heads of CLIP do in the literature's tables: so every merged encoder can be asked every
task, the base included.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.merge_plan import LETTERS, MULTITASK, TASKS, TEST, Base
from benchmarks.plan import where
from umaf import seeds
from umaf.files import whole_folder
from umaf.models import Model, bare, open_model
from umaf.tasks.door import load_task
from umaf.tasks.task import Example, Task
from umaf.tensors import ridge

HEAD_TEXTS = 1000


@dataclass(frozen=True)
class Asked:
    """A split of a task, tokenised once.

    Attributes:
        tokens: one list of token numbers per text.
        answers: `[text]`, the number of the label.
    """

    tokens: tuple[tuple[int, ...], ...]
    answers: Tensor


def ask(model: Model, task: Task, split: str, limit: int, seed: int) -> Asked:
    """Draw texts of a split and tokenise them."""
    examples: Sequence[Example] = getattr(task, split)
    order = torch.randperm(len(examples), generator=seeds.generator(seed, task.name, split))[:limit].tolist()
    texts = [examples[place].text[:LETTERS] for place in order]
    tokens = model.tokenizer(texts, truncation=True, max_length=min(model.window or 128, 128))["input_ids"]
    answers = torch.tensor([task.labels.index(examples[place].answer) for place in order])
    return Asked(tuple(tuple(row) for row in tokens), answers)


def first(asked: Asked, count: int) -> Asked:
    """Keep the first texts of a split."""
    return Asked(asked.tokens[:count], asked.answers[:count])


def features(net: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Mean of the last hidden states over each text's tokens, `[text, hidden]`, with a norm of about 1 per entry."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    weight = mask[..., None].float()
    mean = (hidden * weight).sum(1) / weight.sum(1)
    return nn.functional.layer_norm(mean, mean.shape[-1:])


@torch.inference_mode()
def all_features(net: nn.Module, asked: Asked, batch: int = 64) -> Tensor:
    """Features of every text, in order; texts of like length share a batch."""
    order = sorted(range(len(asked.tokens)), key=lambda place: len(asked.tokens[place]))
    parts = [
        features(net, [asked.tokens[p] for p in order[i : i + batch]]) for i in range(0, len(order), batch)
    ]
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back]


def fit_head(net: nn.Module, asked: Asked, labels: int) -> tuple[Tensor, Tensor]:
    """Fit a linear head by ridge regression on one-hot answers; logits are ten times its values."""
    known = all_features(net, asked)
    wanted = nn.functional.one_hot(asked.answers, labels).float()
    middle, mean = known.mean(0), wanted.mean(0)
    weight = ridge(known - middle, wanted - mean, strength=0.1)
    return 10 * weight, 10 * (mean - middle @ weight)


def accuracy(net: nn.Module, asked: Asked, head: tuple[Tensor, Tensor]) -> float:
    """Share of texts answered rightly."""
    weight, shift = head
    guessed = (all_features(net, asked) @ weight + shift).argmax(1)
    return float((guessed == asked.answers).float().mean())


def train(
    net: nn.Module, tasks: Sequence[tuple[Asked, tuple[Tensor, Tensor]]], base: Base, steps: int, seed: int
) -> nn.Module:
    """Fine-tune a copy of an encoder on one task or several, a task per step, with their heads fixed."""
    net = copy.deepcopy(net).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=base.rate, weight_decay=0.0)
    warm = max(1, steps // 10)
    draws = [_batches(len(asked.tokens), base.batch, seed, place) for place, (asked, _) in enumerate(tasks)]
    for step in range(steps):
        share = (step + 1) / warm if step < warm else (steps - step) / (steps - warm)
        for group in optimiser.param_groups:
            group["lr"] = base.rate * share
        (asked, (weight, shift)), chosen = tasks[step % len(tasks)], next(draws[step % len(tasks)])
        logits = features(net, [asked.tokens[place] for place in chosen]) @ weight + shift
        loss = nn.functional.cross_entropy(logits, asked.answers[chosen])
        if not math.isfinite(float(loss.detach())):
            raise SystemExit(
                f"the loss is {float(loss.detach())} at step {step}; lower the rate of {base.name}"
            )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    return net.eval()


def _batches(count: int, batch: int, seed: int, place: int) -> Iterator[list[int]]:
    generator = seeds.generator(seed, "merge experts", place)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        yield from (order[i : i + batch] for i in range(0, max(count - batch, 1), batch))


def open_base(base: Base) -> Model:
    """Open the base without any head."""
    return open_model(where(base.name), head="base")


def heads_of(cache: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Read the heads that `make` wrote."""
    stored = load_file(cache / "heads.safetensors")
    return {name: (stored[f"{name}.weight"], stored[f"{name}.shift"]) for name in TASKS}


def make(base: Base, seed: int, cache: Path, report=print) -> None:
    """Write the base, its heads, an expert per task and the model of all tasks into `cache`, what is missing of it."""
    model = open_base(base)
    net = bare(model.net).eval()
    tasks = {name: load_task(name) for name in TASKS}
    if not (cache / "base").exists():
        _save(net, model, cache / "base")
    if not (cache / "heads.safetensors").exists():
        stored = {}
        for name, task in tasks.items():
            weight, shift = fit_head(net, ask(model, task, "train", HEAD_TEXTS, seed), len(task.labels))
            stored |= {f"{name}.weight": weight.contiguous(), f"{name}.shift": shift.contiguous()}
        save_file(stored, cache / "heads.safetensors")
    heads = heads_of(cache)
    texts = {name: ask(model, task, "train", len(task.train), seed) for name, task in tasks.items()}
    for name in TASKS:
        if not (cache / name.replace("/", "-")).exists():
            tuned = train(net, [(texts[name], heads[name])], base, base.steps, seed)
            _save(tuned, model, cache / name.replace("/", "-"))
            report(f"{base.name} {seed} {name}")
    if not (cache / "multitask").exists():
        pairs = [(texts[name], heads[name]) for name in TASKS]
        tuned = train(net, pairs, base, base.steps * MULTITASK, seed)
        _save(tuned, model, cache / "multitask")


def _save(net: nn.Module, model: Model, folder: Path) -> None:
    with whole_folder(folder) as draft:
        net.save_pretrained(draft)  # type: ignore[operator]
        model.tokenizer.save_pretrained(draft)


def texts_of(model: Model, split: str, seed: int) -> dict[str, Asked]:
    """Draw the texts that every merged model is asked."""
    return {name: ask(model, load_task(name), split, TEST, seed) for name in TASKS}
