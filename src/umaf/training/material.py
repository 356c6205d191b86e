"""What a generator is trained on: texts of the train capabilities, and where in the universal space they lie.

No expert has to be trained for it. A bound fingerprint is made of a source's answers and of the places of its probes;
for train capabilities the true answers stand in for the source's, with as many of them turned wrong as sources err.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from umaf.errors import TaskError
from umaf.extraction import Bound
from umaf.extraction.store import read_tensors, write_tensors
from umaf.tasks.task import Task

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Capability:
    """A classification with its texts.

    Attributes:
        name: of the task.
        split: "train" or "validation".
        cue: the word before the answer.
        labels: label words.
        rows: which of the material's texts are its own, `[text]`.
        answers: number of each one's label, `[text]`.
    """

    name: str
    split: str
    cue: str
    labels: tuple[str, ...]
    rows: Tensor
    answers: Tensor


@dataclass(frozen=True)
class Material:
    """Texts, their places as each source reads them, and the capabilities they show.

    Attributes:
        texts: every text once.
        places: `[text, place]` float32.
        space: version of the universal space.
        extractor: version of the bound extractor.
        capabilities: classifications over these texts.
    """

    texts: tuple[str, ...]
    places: Tensor
    space: str
    extractor: str
    capabilities: tuple[Capability, ...]

    def of(self, split: str) -> list[Capability]:
        """List the capabilities of a split."""
        return [one for one in self.capabilities if one.split == split]

    def save(self, path: str | Path) -> Path:
        """Write one file that does not exist; read it with `load_material`."""
        tensors = {"places": self.places.to(torch.float16)}
        for number, one in enumerate(self.capabilities):
            tensors |= {f"rows.{number}": one.rows, f"answers.{number}": one.answers}
        cards = [[one.name, one.split, one.cue, list(one.labels)] for one in self.capabilities]
        about = {"umaf": "material", "space": self.space, "extractor": self.extractor}
        about |= {"texts": json.dumps(self.texts), "capabilities": json.dumps(cards)}
        return write_tensors(path, tensors, about)


def load_material(path: str | Path) -> Material:
    """Read a file that `Material.save` wrote.

    Raises:
        TaskError: no such file, or not training material.
    """
    tensors, about = read_tensors(path)
    if about.get("umaf") != "material":
        raise TaskError(f"{path} is no training material of umaf; make it with `python -m zoo.material`.")
    capabilities = tuple(
        Capability(name, split, cue, tuple(labels), tensors[f"rows.{at}"], tensors[f"answers.{at}"])
        for at, (name, split, cue, labels) in enumerate(json.loads(about["capabilities"]))
    )
    texts = tuple(json.loads(about["texts"]))
    return Material(texts, tensors["places"].float(), about["space"], about["extractor"], capabilities)


def gather(tasks: Sequence[tuple[str, Task]], compute: Bound) -> Material:
    """Read the texts of tasks.

    Args:
        tasks: (split, task); of each the training examples are used. Functions are passed over.
        compute: the bound extractor whose fingerprints the generator will get.

    Returns:
        The material.

    Raises:
        TaskError: no classification, or a split that is neither train nor validation; held-out capabilities
            never become training material.
    """
    strange = sorted({split for split, _ in tasks} - set(SPLITS))
    if strange:
        raise TaskError(
            f"Training material was asked for from the split {strange[0]!r}; only {' and '.join(SPLITS)} may be used."
        )
    kept = [(split, task) for split, task in tasks if task.labels]
    if not kept:
        raise TaskError("Training material needs classifications, and none was given; name some.")
    place = {
        text: at for at, text in enumerate(dict.fromkeys(e.text for _, task in kept for e in task.train))
    }
    capabilities = tuple(_capability(split, task, place) for split, task in kept)
    texts = tuple(place)
    read = compute.space.places(texts).half().float()  # what is kept in float16 is what is used
    return Material(texts, read, compute.space.version, compute.version, capabilities)


def _capability(split: str, task: Task, place: Mapping[str, int]) -> Capability:
    rows = torch.tensor([place[example.text] for example in task.train])
    answers = torch.tensor([task.labels.index(example.answer) for example in task.train])
    return Capability(task.name, split, task.cue, task.labels, rows, answers)
