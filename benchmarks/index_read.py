"""What each expert of the collection says about itself, read once and kept.

Read are the description that closed-form fingerprints are made from, the answers to the store's probes and to the
anchor texts, the activations on what the held-out tasks are searched by (LogME needs them), and the score on its own
task. Probes, queries and scored texts are apart, and none of them was trained on.
"""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.index_experts import ROOT, WORK, shelf, trained
from benchmarks.index_plan import HELDOUT, Member, queries, scored, task_of
from umaf.activations import ANCHORS, capture
from umaf.extraction.describe import describe
from umaf.extraction.inputs import Inputs, read_inputs
from umaf.files import hash_texts, write_json
from umaf.index.space import default_probes
from umaf.models import Model, open_model
from umaf.readout import label_scores
from umaf.readout.encode import encode
from umaf.readout.scores import answer_position

SOURCES = ("benchmarks/index_read.py", "benchmarks/index_plan.py", "src/umaf/index/space.py")
CUE = "answer"


@functools.cache
def home() -> Path:
    """Give the folder of what was read by the code as it is now."""
    return WORK / f"read-{hash_texts((ROOT / path).read_text(encoding='utf-8') for path in SOURCES)[:12]}"


@functools.cache
def probes() -> tuple[str, ...]:
    """Give the store's probes; kept, because making them takes a while."""
    path = home() / "probes.json"
    if not path.exists():
        write_json(path, list(default_probes()))
    return tuple(json.loads(path.read_text(encoding="utf-8")))


@functools.cache
def texts() -> tuple[str, ...]:
    """Give what every member answers: the store's probes, then the anchors."""
    return tuple(dict.fromkeys((*probes(), *ANCHORS)))


@functools.lru_cache(maxsize=8)
def base_of(name: str) -> tuple[Model, Inputs]:
    """Open a base and read it once."""
    model = open_model(f"zoo:{name}")
    return model, read_inputs(model, probes(), base=None)


def logits(model: Model) -> Tensor:
    """Read the logits that a model begins its answers to the probes with, `[probe, word]` float32."""
    with torch.inference_mode():
        batch = encode(model, list(probes()), CUE, truncate=True)
        found = torch.empty(0)
        for rows in batch.mask.sum(1).argsort(stable=True).split(32):
            part = answer_position(model, batch.take(rows)).float()
            found = torch.empty(len(batch), part.shape[1]) if not len(found) else found
            found[rows] = part
    return found


def relation(found: Tensor) -> Tensor:
    """Say how alike each two probes are answered: the centred Gram matrix of square roots `[probe, probe]`."""
    rows = found.double().sqrt()
    rows = rows - rows.mean(0)
    return (rows @ rows.T).float()


def accuracy(model: Model, task: str) -> float:
    """Give the share of right answers on the texts that only score; a model that cannot say the labels raises."""
    known, asked = task_of(task), scored(task)
    scores = label_scores(model, [e.text for e in asked], known.labels, known.cue, truncate=True)
    right = torch.tensor([known.labels.index(e.answer) for e in asked])
    return float((scores.argmax(1) == right).float().mean())


@functools.cache
def asked() -> tuple[str, ...]:
    """Give the texts that the held-out tasks are searched by; kept, because making every task takes a while."""
    path = home() / "asked.json"
    if not path.exists():
        write_json(path, [example.text for name in HELDOUT for example in queries(name)])
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def measure(member: Member) -> dict[str, Tensor]:
    """Read one expert."""
    base, before = base_of(member.model)
    known = task_of(member.task)
    model = open_model(shelf() / member.folder)
    own = read_inputs(model, probes(), base=None)
    both = Inputs(own.coordinates, own.gram, before.coordinates, before.gram, own.depths, own.normalisation)
    kept = {
        "description": describe(both),
        "shift": both.shift().half(),
        "relation": relation(logits(model).softmax(-1)).half(),
        "told": label_scores(model, texts(), known.labels, known.cue, truncate=True),
        "features": capture(model, asked(), depths=(1.0,), truncate=True)[0].half(),
        "score": torch.tensor(accuracy(model, member.task)),
    }
    if base.kind != "encoder":
        kept["base_told"] = label_scores(base, texts(), known.labels, known.cue, truncate=True)
    return kept


def read(*, minutes: float) -> None:
    """Read the members that are there and were not read; begin no new one after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for member in trained():
        path = home() / f"{member.name}.safetensors"
        if path.exists() or time.monotonic() > until:
            continue
        began = time.process_time()
        kept = measure(member)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        save_file({name: value.contiguous() for name, value in kept.items()}, draft)
        draft.rename(path)
        spent = round(time.process_time() - began, 2)
        write_json(path.with_suffix(".json"), {**vars(member), "cpu": spent})
        print(f"{member.name}: {float(kept['score']):.3f}, {spent:.1f} s", flush=True)


def collection() -> dict[Member, dict[str, Tensor]]:
    """Read back everything that was measured, in the order of the plan."""
    paths = {member: home() / f"{member.name}.safetensors" for member in trained()}
    return {member: load_file(path) for member, path in paths.items() if path.exists()}
