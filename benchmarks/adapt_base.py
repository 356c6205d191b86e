"""The base of the adaptation benchmark: the largest decoder of the zoo, shown facts and the formats of the tasks.

    python -m benchmarks.adapt_base [--steps 600] [--out out/adapt/base]

Most of what it reads are facts (sums, kinds of things, names of operations); a smaller part are questions with
answers from the lessons of every graded task, so that a model of five million parameters gets some rewards and
misses others. It is trained from a seed, goes on after an interruption, and is kept where it was written.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from umaf import seeds
from umaf.files import whole_folder
from umaf.models import Model, bare, open_model
from umaf.models.quiet import quiet
from umaf.tasks.graded import lessons_of
from umaf.tasks.graded.facts import fact
from umaf.tasks.task import Example, prompt

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "out" / "adapt" / "base"
START = "zoo:llama-5m"
STEPS = 600
BATCH = 64
PARTS = 4
RATE = 1.5e-3
FACTS = 0.35
LESSONS: dict[str, tuple[float, int | None]] = {
    "graded/stories": (0.14, None),
    "graded/lists": (0.02, 32),
    "graded/choices": (0.15, None),
    "graded/kinds": (0.02, 48),
    "graded/two_steps": (0.06, None),
    "graded/strings": (0.015, 24),
    "graded/odd_one_out": (0.10, None),
    "graded/moods": (0.015, 24),
    "graded/story_choice": (0.04, None),
    "graded/outputs": (0.07, None),
}
"""Share of the batches that each task has beside the facts, and of how many examples (None: of `ALL`).

Labels and programs are learnt from a handful of examples; with all of them no reward would be left to gain.
"""
ALL = 3000
KEEP_EVERY = 100
IGNORED = -100


def lessons(seed: int) -> list[tuple[float, str, tuple[Example, ...]]]:
    """List what is shown: share, word before the answer, examples. Nothing of any split of a task."""
    found = []
    for name, (share, most) in LESSONS.items():
        cue, examples = lessons_of(name, count=most or ALL, seed=seeds.derive(seed, "lessons"))
        found.append((share, cue, examples))
    return found


def batch(model: Model, shown: list, seed: int, step: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw the batch of a step in parts of like length: ids, mask and labels `[row, token]`.

    The wanted answers count, and of facts every token.
    """
    rng = random.Random(seeds.derive(seed, "lesson", step))
    weights = [FACTS, *(share for share, _, _ in shown)]
    rows = []
    for which in rng.choices(range(len(weights)), weights, k=BATCH):
        if which == 0:
            asked, whole = fact(rng), True
            text = asked.text
        else:
            _, cue, examples = shown[which - 1]
            asked, whole = rng.choice(examples), False
            text = prompt(cue, asked.text)
        before = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        after = model.tokenizer(f" {asked.answer}\n", add_special_tokens=False)["input_ids"]
        rows.append((before + after, (before if whole else [IGNORED] * len(before)) + after))
    rows.sort(key=lambda row: len(row[0]))
    size = BATCH // PARTS
    return [
        _padded(rows[start : start + size], model.tokenizer.pad_token_id) for start in range(0, BATCH, size)
    ]


def _padded(rows: list, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in rows])
    return ids, mask, labels


def step_loss(net, parts: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Add up the gradients of a batch's parts; gives the mean loss per counted token."""
    count = sum(int((labels[:, 1:] != IGNORED).sum()) for _, _, labels in parts)
    total = 0.0
    for ids, mask, labels in parts:
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        wanted = labels[:, 1:].flatten()
        loss = functional.cross_entropy(logits.float().flatten(0, 1), wanted, reduction="sum") / count
        loss.backward()
        total += float(loss.detach())
    return total


def train(model: Model, *, steps: int, seed: int, state: Path) -> None:
    """Train in place, from a state file where an earlier run was stopped."""
    net, shown = model.net, lessons(seed)
    net.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    begin = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        begin = saved["step"]
    with Progress() as progress:
        bar = progress.add_task("base", total=steps, completed=begin)
        for step in range(begin, steps):
            for group in optimiser.param_groups:
                group["lr"] = _rate(step, steps)
            loss = step_loss(net, batch(model, shown, seed, step))
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            progress.update(bar, advance=1, description=f"base, loss {loss:.3f}")
            if (step + 1) % KEEP_EVERY == 0:
                state.parent.mkdir(parents=True, exist_ok=True)
                kept = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
                torch.save(kept, state.with_suffix(".part"))
                state.with_suffix(".part").replace(state)
    net.requires_grad_(False).eval()


def _rate(step: int, steps: int) -> float:
    warm = min(50, steps // 10 + 1)
    if step < warm:
        return RATE * (step + 1) / warm
    return RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def base(out: Path = BASE, *, steps: int = STEPS, seed: int = 0) -> Path:
    """Give the folder of the base; train it first where it is not there."""
    if out.exists():
        return out
    model = open_model(START)
    train(model, steps=steps, seed=seed, state=out.with_name(f"{out.name}-{steps}-{seed}.state"))
    with whole_folder(out) as draft, quiet():
        bare(model.net).save_pretrained(draft)
        model.tokenizer.save_pretrained(draft)
    return out


def main() -> None:
    """Train the base where it is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=BASE)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(base(asked.out, steps=asked.steps, seed=asked.seed))


if __name__ == "__main__":
    main()
