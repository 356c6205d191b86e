"""What extractors, interpolators and gates are trained on: what experts of several models show of a capability.

An entry is one expert read on one set of probes. Entries of one capability in other architectures, sizes or seeds are
each other's positives.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from umaf import seeds
from umaf.errors import TaskError
from umaf.extraction import Inputs
from umaf.extraction.inputs import tokens
from umaf.extraction.store import read_tensors, write_tensors

SPLITS = ("train", "validation", "heldout")


@dataclass(frozen=True)
class EntryCard:
    """Where an entry comes from.

    Attributes:
        capability: what the expert learned.
        split: "train", "validation" or "heldout"; held-out ones are measured with, never trained on.
        base: the expert's base model.
        architecture: `config.model_type`.
        parameters: number of parameters.
        layers: layers of the stack that was read.
        width: size of its hidden states.
        seed: of the expert's fine-tuning.
    """

    capability: str
    split: str
    base: str
    architecture: str
    parameters: int
    layers: int
    width: int
    seed: int


@dataclass(frozen=True)
class Entry:
    """One expert read on probes.

    Attributes:
        inputs: what an extractor reads.
        card: where it comes from.
    """

    inputs: Inputs
    card: EntryCard

    def save(self, path: str | Path) -> Path:
        """Write one file that does not exist, in float16; read it with `load_entry`.

        Raises:
            TaskError: the expert was read without its base.
        """
        own = self.inputs
        if own.base_coordinates is None or own.base_gram is None:
            raise TaskError(
                f"An entry tells what {self.card.base} learned, and was read without that base; give it."
            )
        named = {
            "coordinates": own.coordinates,
            "gram": own.gram,
            "base_coordinates": own.base_coordinates,
            "base_gram": own.base_gram,
            "behaviour": own.behaviour,
            "places": own.places,
        }
        # The difference of two cosines is small, and float16 would drop it: it is kept apart.
        named["coordinates"] = own.coordinates - own.base_coordinates
        named["gram"] = own.gram - own.base_gram
        kept = {name: value.half() for name, value in named.items() if value is not None}
        about = {"depths": own.depths, "normalisation": own.normalisation, **asdict(self.card)}
        return write_tensors(path, kept, {"umaf": "entry", "card": json.dumps(about)})


def load_entry(path: str | Path) -> Entry:
    """Read a file that `Entry.save` wrote.

    Raises:
        TaskError: no such file, or not an entry.
    """
    tensors, about = read_tensors(path)
    if about.get("umaf") != "entry":
        raise TaskError(f"{path} is no entry of training material; make it with `python -m zoo.material`.")
    card = json.loads(about["card"])
    depths, normalisation = tuple(card.pop("depths")), card.pop("normalisation")
    named = {name: value.float() for name, value in tensors.items()}
    inputs = Inputs(
        named["base_coordinates"] + named["coordinates"],
        named["base_gram"] + named["gram"],
        named["base_coordinates"],
        named["base_gram"],
        depths,
        normalisation,
        named.get("behaviour"),
        named.get("places"),
    )
    return Entry(inputs, EntryCard(**card))


def load_entries(folder: str | Path, *, splits: Sequence[str] = ("train", "validation")) -> list[Entry]:
    """Read every entry of some splits in a folder, in the order of the file names.

    Raises:
        TaskError: none there.
    """
    found = [load_entry(path) for path in sorted(Path(folder).glob("*.safetensors"))]
    kept = [entry for entry in found if entry.card.split in splits]
    if not kept:
        raise TaskError(
            f"{folder} was asked for training material of {' and '.join(splits)} capabilities, and holds none; make it "
            "with `python -m zoo.material`."
        )
    return kept


def drawn(entry: Entry, draw: int, *, share: float, seed: int) -> Inputs:
    """Keep a random share of an entry's probes, at least 4: what an extractor sees of it in one step.

    Args:
        entry: the entry.
        draw: numbers the draw.
        share: of the probes, in (0, 1].
        seed: the run's seed.
    """
    inputs = entry.inputs
    probes = inputs.coordinates.shape[1]
    count = max(min(4, probes), round(share * probes))
    random = np.random.default_rng(seeds.derive(seed, "probes", draw))
    return subset(inputs, torch.from_numpy(np.sort(random.permutation(probes)[:count])))


def subset(inputs: Inputs, rows: Tensor) -> Inputs:
    """Keep some probes."""
    base = inputs.base_coordinates
    return replace(
        inputs,
        coordinates=inputs.coordinates[:, rows],
        base_coordinates=None if base is None else base[:, rows],
        places=None if inputs.places is None else inputs.places[rows],
    )


def stacked(inputs: Sequence[Inputs], *, behaviour: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Put several sets of tokens into one batch.

    Args:
        inputs: what an extractor reads, of any numbers of probes.
        behaviour: keep behavioural tokens.

    Returns:
        Tokens `[entry, token, 2 * anchor]`, their depths `[entry, token]`, and which are real `[entry, token]`.
    """
    sets = [tokens(one if behaviour else replace(one, behaviour=None)) for one in inputs]
    longest = max(len(rows) for rows, _ in sets)
    batch = torch.zeros(len(sets), longest, sets[0][0].shape[1])
    depths, mask = torch.zeros(len(sets), longest, dtype=torch.long), torch.zeros(len(sets), longest)
    for at, (rows, numbers) in enumerate(sets):
        batch[at, : len(rows)], depths[at, : len(rows)], mask[at, : len(rows)] = rows, numbers, 1
    return batch, depths, mask


def together(one: Inputs, other: Inputs) -> Inputs:
    """Show two capabilities at once: the probes of both, as one model that learned both would show them.

    The behavioural token is the sum of the changes.

    Raises:
        TaskError: of different models.
    """
    if one.base_coordinates is None or other.base_coordinates is None:
        raise TaskError(
            "Two capabilities are shown at once as changes from a base, and one has none; give it."
        )
    both = None
    if one.behaviour is not None and other.behaviour is not None:
        both = torch.stack([one.behaviour[0] + other.behaviour[0], one.behaviour[1]])
    places = None
    if one.places is not None and other.places is not None:
        places = torch.cat([one.places, other.places])
    shift = one.gram if one.base_gram is None else one.gram - one.base_gram
    return replace(
        one,
        coordinates=torch.cat([one.coordinates, other.coordinates], dim=1),
        base_coordinates=torch.cat([one.base_coordinates, other.base_coordinates], dim=1),
        gram=other.gram + shift,
        behaviour=both,
        places=places,
    )
