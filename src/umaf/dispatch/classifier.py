"""Dispatch by a classifier: an expert of its own, trained to name the kind of a request, does the first pass.

It is trained like any other expert (the label reward on the task that `naming_task` makes), and is on the base only
while names are scored. What it has learnt need not be told again: the request and one word are all it reads, and the
names stand side by side behind them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from umaf import seeds
from umaf.dispatch.decision import OTHER, Decision, Dispatcher, chosen_by
from umaf.dispatch.dispatchers import Material
from umaf.dispatch.naming import kinds_line, name_scores, naming_cue
from umaf.dispatch.shelf import Shelved, open_shelf
from umaf.errors import ExpertError
from umaf.experts.expert import Expert
from umaf.experts.settings import TrainSettings
from umaf.experts.train import train_expert
from umaf.models import Model
from umaf.tasks.task import Example, Task

CUE = "expert"
ALONE = torch.ones(1, 1)
"""The weight of a shelf's only expert, for every row of any batch."""


def classifier(shelf: Shelved, material: Material) -> Dispatcher:
    """Make the dispatcher that asks an expert trained for it.

    Args:
        shelf: the experts to choose among.
        material: its `classifier`, trained on `naming_task` with this shelf's names.

    Raises:
        ExpertError: no classifier, one of another base, or one trained to tell other names apart.
    """
    expert = material.classifier
    if expert is None:
        raise ExpertError(
            "Requests were to be sorted by a classifier, but no expert trained for it was given; train one on texts "
            "named by expert, or use prompt or probe."
        )
    names, cue = (*shelf.names, OTHER), _cue_of(expert, shelf)
    own = open_shelf(shelf.model, [expert])

    def decide(texts: Sequence[str]) -> Decision:
        with own.applied(ALONE) as model:
            scores, cut = name_scores(model, texts, names, cue)
        notes = [", from the beginning of the request" if one else "" for one in cut]
        why = f'the classifier "{expert.name}"'
        return chosen_by(shelf.names, scores.softmax(1), mixed=material.mixed, why=why, notes=notes)

    return decide


def _cue_of(expert: Expert, shelf: Shelved) -> str:
    """Give the word that a classifier was trained to answer; older ones were told the names there.

    Raises:
        ExpertError: it was trained to tell other names apart.
    """
    cue, task = expert.card.data.get("cue", CUE), expert.card.data.get("task")
    if cue == naming_cue(shelf.names) or (cue == CUE and task in (None, kinds_line(shelf.names))):
        return cue
    raise ExpertError(
        f'The classifier "{expert.name}" was trained to answer "{task if cue == CUE else cue}", but this shelf asks '
        f'"{kinds_line(shelf.names)}"; train one for this shelf.'
    )


def train_classifier(
    shelf: Shelved,
    examples: Mapping[str, Sequence[str]],
    folder: str | Path,
    *,
    settings: TrainSettings | None = None,
    tell: Callable[[str], None] = print,
) -> Expert:
    """Train an expert that names the kind of a request, and write its folder.

    Args:
        shelf: the experts that requests are to be sorted by.
        examples: texts by name, those for no expert under "other".
        folder: where it goes; must not exist.
        settings: of the training. By default it learns from the wanted names: a base that never says one of them by
            itself earns no reward to learn from.
        tell: called with a sentence when something unexpected is dealt with.

    Raises:
        ExpertError: too few texts, or texts for a name that the shelf does not have.
    """
    task = naming_task(shelf.model, examples, names=shelf.names)
    chosen = settings or TrainSettings(objective="next_token", reward="label", rate=0.03, patience=4)
    return train_expert(
        shelf.model,
        task,
        settings=chosen,
        folder=folder,
        description=f"sorts requests by {', '.join(shelf.names)}",
        tell=tell,
    )


def naming_task(
    model: Model, examples: Mapping[str, Sequence[str]], *, names: Sequence[str], seed: int = 0
) -> Task:
    """Make the task a classifier is trained on: texts, and the name of the expert that each is for.

    Args:
        model: the base that is to learn it.
        examples: texts by name, those for no expert under "other"; every name has at least five.
        names: the shelf's names, in its order.
        seed: shuffles texts into train (seven tenths), validation (the rest) and no test.

    Raises:
        ExpertError: a name without five texts, or texts for a name that the shelf does not have.
    """
    odd = sorted(set(examples) - {*names, OTHER})
    if odd:
        raise ExpertError(
            f'Texts were given for "{odd[0]}", but the shelf has {", ".join(names)} and {OTHER}.'
        )
    train: list[Example] = []
    validation: list[Example] = []
    for name in names:
        if len(examples.get(name, ())) < 5:
            raise ExpertError(
                f'A classifier needs five texts or more for every expert, but "{name}" has '
                f"{len(examples.get(name, ()))}; give more."
            )
    for name, texts in examples.items():
        drawn = list(texts)
        random.Random(seeds.derive(seed, "naming", name)).shuffle(drawn)
        kept = max(1, round(0.7 * len(drawn)))
        train += [Example(text, name) for text in drawn[:kept]]
        validation += [Example(text, name) for text in drawn[kept:]]
    for part, side in ((train, "train"), (validation, "validation")):
        random.Random(seeds.derive(seed, "naming", side)).shuffle(part)
    labels = tuple(name for name in (*names, OTHER) if name in examples)
    return Task(
        name=kinds_line(names),
        kind="classification",
        labels=labels,
        cue=CUE,
        train=tuple(train),
        validation=tuple(validation),
        test=(),
        source="the examples of a shelf",
        licence="that of the examples",
    )
