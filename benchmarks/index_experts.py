"""The collection that the index is measured on: experts of the zoo, and what each says about itself.

    python -m benchmarks.index_experts [--minutes 60]

An expert is trained briefly by `zoo/experts.py` on one of the generated capabilities and measured once: the description
that fingerprints are made from, what it answers to the probes, its activations on a few labelled texts of every task,
and its score on its own. Probes, queries and scored texts are apart, and none of them was trained on. Everything is
kept, so a run that was stopped goes on with the next expert.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from umaf.activations import capture
from umaf.evaluation.evaluate import evaluate
from umaf.extraction.describe import describe
from umaf.extraction.inputs import Inputs, read_inputs
from umaf.files import hash_texts, write_json
from umaf.generation.train import Schedule
from umaf.models import Model, open_model
from umaf.readout.encode import encode
from umaf.readout.scores import answer_position
from umaf.tasks.door import load_task
from umaf.tasks.generated import FUNCTIONS, KINDS
from umaf.tasks.task import Example, Task
from zoo.experts import expert

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "index"
SOURCES = (
    "benchmarks/index_experts.py",
    "src/umaf/tasks/generated/*.py",
    "zoo/experts.py",
    "constraints.txt",
)
SMALL = ("llama-1m", "bert-1m", "gpt2-1m", "t5-1m", "mixtral-1m")
LARGE = ("llama-5m", "gpt2-5m", "bert-5m")
TASKS = tuple(f"made/{name}" for name in KINDS)
WRITTEN = tuple(f"made/{name}" for name in FUNCTIONS)
# Of the 200 validation texts of a task: probes, then queries, then texts that only score.
PROBES, QUERIES, SCORED = 8, 32, 96
CUE = "answer"


@dataclass(frozen=True)
class Member:
    """One expert of the collection."""

    model: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        """A file name."""
        return f"{self.model}--{self.task.replace('/', '-')}--{self.seed}"

    @property
    def architecture(self) -> str:
        """The family, whatever the size."""
        return self.model.partition("-")[0]


def members() -> list[Member]:
    """List the collection in the order it is built: every stop leaves it as even as it can be."""
    found = [Member(model, task, 0) for task in TASKS for model in SMALL]
    found += [Member(model, task, 0) for task in TASKS for model in LARGE]
    found += [Member(model, task, seed) for seed in (1, 2) for task in TASKS for model in SMALL]
    writers = [model for model in (*SMALL, *LARGE) if not model.startswith("bert")]
    return found + [Member(model, task, 0) for task in WRITTEN for model in writers]


def home() -> Path:
    """Give the folder of experts and measurements of the code as it is now."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return WORK / hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]


def schedule(model: str) -> Schedule:
    """Give a training short enough for hundreds of experts on one core."""
    if model in LARGE:
        return Schedule(steps=60, rate=1e-3, batch_size=16)
    return Schedule(steps=100, rate=2e-3 if model.startswith("bert") else 3e-3, batch_size=16)


@functools.cache
def task_of(name: str) -> Task:
    """Load a capability once."""
    return load_task(name)


@functools.cache
def probes() -> tuple[str, ...]:
    """Give the probes of the collection: a few validation texts of every capability."""
    texts = [e.text for name in TASKS for e in task_of(name).validation[:PROBES]]
    texts += [e.text for name in WRITTEN for e in task_of(name).validation[: PROBES // 2]]
    return tuple(dict.fromkeys(texts))


def queries(task: str) -> tuple[Example, ...]:
    """Give the labelled texts that a task is searched by."""
    return task_of(task).validation[PROBES : PROBES + QUERIES]


def scored(task: str) -> tuple[Example, ...]:
    """Give the texts that a found model is judged by."""
    return task_of(task).validation[PROBES + QUERIES : PROBES + QUERIES + SCORED]


@functools.lru_cache(maxsize=8)
def base_of(name: str) -> tuple[Model, Inputs, Tensor]:
    """Open a base and read it once: model, inputs, answers."""
    model = open_model(f"zoo:{name}")
    return model, read_inputs(model, probes(), base=None), answers(model)


def answers(model: Model) -> Tensor:
    """Read the distribution that a model answers each probe with, `[probe, word]` float32."""
    with torch.inference_mode():
        batch = encode(model, list(probes()), CUE, truncate=True)
        return torch.cat(
            [answer_position(model, batch.take(rows)).float() for rows in torch.arange(len(batch)).split(32)]
        ).softmax(-1)


def relation(found: Tensor) -> Tensor:
    """Say how alike each two probes are answered: the centred Gram matrix of square roots `[probe, probe]`."""
    rows = found.double().sqrt()
    rows = rows - rows.mean(0)
    return (rows @ rows.T).float()


def accuracy(model: Model, task: str) -> float:
    """Give the share of right answers on the texts that only score."""
    return evaluate(model, replace(task_of(task), test=scored(task))).value


def measure(member: Member, folder: Path) -> dict[str, Tensor]:
    """Read one expert."""
    base, before, base_answers = base_of(member.model)
    model = open_model(folder)
    began = time.process_time()
    own = read_inputs(model, probes(), base=None)
    both = Inputs(own.coordinates, own.gram, before.coordinates, before.gram, own.depths, own.normalisation)
    described = describe(both)
    read = time.process_time() - began
    found = answers(model)
    texts = [example.text for name in TASKS for example in queries(name)]
    kept = {
        "description": described,
        "shift": both.shift().half(),
        "relation": relation(found),
        "base_relation": relation(base_answers),
        "features": capture(model, texts, depths=(1.0,), truncate=True)[0].half(),
        "score": torch.tensor(accuracy(model, member.task)),
        "seconds": torch.tensor(read),
    }
    if base.kind != "encoder":
        kept["answers"] = found.half()
    return kept


def build(*, minutes: float) -> None:
    """Train and measure what is missing; begin no new expert after so many minutes."""
    place, until = home(), time.monotonic() + 60 * minutes
    for member in members():
        path = place / "measured" / f"{member.name}.safetensors"
        if path.exists() or time.monotonic() > until:
            continue
        began = time.process_time()
        folder = expert(
            f"zoo:{member.model}",
            task_of(member.task),
            place / "experts",
            seed=member.seed,
            schedule=schedule(member.model),
        )
        kept = measure(member, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        save_file(kept, draft)
        draft.rename(path)
        spent = time.process_time() - began
        write_json(path.with_suffix(".json"), {**vars(member), "cpu": round(spent, 2)})
        print(f"{member.name}: {float(kept['score']):.3f}, {spent:.1f} s", flush=True)


def collection() -> dict[Member, dict[str, Tensor]]:
    """Read everything that was measured, in the order of `members`."""
    place = home() / "measured"
    paths = {member: place / f"{member.name}.safetensors" for member in members()}
    return {member: load_file(path) for member, path in paths.items() if path.exists()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the collection."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no new expert after this long")
    torch.set_num_threads(1)
    build(minutes=parser.parse_args(arguments).minutes)


if __name__ == "__main__":
    main()
