"""The Transformer Encoder as an extractor: trained leaving one architecture out, its fingerprints of everybody kept.

    python -m benchmarks.space_encoder [--left-out gpt2 bert llama] [--index FOLDER]

A step reads eight probes of each expert, so that a training fits on one core; fingerprints read all probes. Trainings
go on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.index_plan import Member
from benchmarks.index_read import base_of, probes
from benchmarks.space_experts import WORK
from benchmarks.space_plan import card_of
from benchmarks.space_read import collection, learned
from umaf.extraction import Inputs
from umaf.training.entries import Entry
from umaf.training.extractor import ExtractorSettings, fingerprinted, train_extractor

HOME = WORK / "encoder"
LEFT_OUT = ("gpt2", "bert", "llama")
PLAN = ExtractorSettings(
    steps=160, rate=5e-4, look_every=80, patience=0, keep_every=20, capabilities=8, share=8 / 132,
    behaviour=False, bfloat16=True,
)  # fmt: skip


def entries(measured: Mapping[Member, Mapping[str, Tensor]]) -> dict[Member, Entry]:
    """Give every expert's coordinates beside its base's; the anchors' own are the base's, no token holds them."""
    found = {}
    for member, one in measured.items():
        _, base = base_of(member.model)
        moved = base.coordinates + one["shift"].float()
        inputs = Inputs(moved, base.gram, base.coordinates, base.gram, base.depths, base.normalisation)
        found[member] = Entry(inputs, card_of(member, base_of(member.model)[0]))
    return found


def train(left_out: str, index: Path | None) -> Path:
    """Train without one architecture, and keep the fingerprints of all experts; nothing is done twice."""
    path = HOME / f"{left_out}.safetensors"
    if path.exists():
        return path
    measured = collection(index)
    known = entries({m: one for m, one in measured.items() if learned(m, float(one["score"]))})
    shown = [e for m, e in known.items() if m.architecture != left_out and e.card.split != "heldout"]
    extractor, done = train_extractor(
        shown,
        settings=PLAN,
        folder=HOME / f"{left_out}.unfinished",
        said=lambda at, of, row: print(at, row, flush=True),
    )
    vectors = {member.name: fingerprinted(extractor, entry.inputs)[0] for member, entry in known.items()}
    about = {"best": str(done.best), "probes": str(len(probes())), "trained on": str(len(shown))}
    save_file(vectors, path, metadata=about)
    return path


def found() -> dict[str, dict[str, Tensor]]:
    """Give the fingerprints by left-out architecture and expert's name, of the trainings that are done."""
    paths = {name: HOME / f"{name}.safetensors" for name in LEFT_OUT}
    return {name: load_file(path) for name, path in paths.items() if path.exists()}


def curves() -> dict[str, list[dict]]:
    """Give the losses and looks of every training so far, by left-out architecture."""
    found = {}
    for name in LEFT_OUT:
        path = HOME / f"{name}.unfinished" / "state.safetensors"
        if path.exists():
            with safe_open(path, framework="pt") as state:
                found[name] = json.loads(state.metadata()["state"])["curve"]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--left-out", nargs="+", default=list(LEFT_OUT))
    parser.add_argument("--index", type=Path, help="folder of what the index read")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in asked.left_out:
        print(train(name, asked.index), flush=True)


if __name__ == "__main__":
    main()
