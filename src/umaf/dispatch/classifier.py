"""Dispatch by a classifier: an expert of its own, trained to name the kind of a request, does the first pass.

It is trained like any other expert (the label reward on the task that `naming_task` makes), and is on the base only
while names are scored.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from umaf import seeds
from umaf.dispatch.decision import OTHER, Decision, Dispatcher, chosen_by
from umaf.dispatch.dispatchers import Material
from umaf.dispatch.naming import name_scores, naming_cue
from umaf.dispatch.shelf import Shelved, open_shelf
from umaf.errors import ExpertError
from umaf.models import Model
from umaf.tasks.task import Example, Task


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
    cue, names = naming_cue(shelf.names), (*shelf.names, OTHER)
    learned = expert.card.data.get("labels")
    if learned is not None and not set(shelf.names) <= set(learned):
        raise ExpertError(
            f'The classifier "{expert.name}" tells {", ".join(learned)} apart, but the shelf has '
            f"{', '.join(shelf.names)}; train one for this shelf."
        )
    own = open_shelf(shelf.model, [expert])

    def decide(texts: Sequence[str]) -> Decision:
        with attached_alone(own) as model:
            scores, cut = name_scores(model, texts, names, cue)
        notes = [", from the beginning of the request" if one else "" for one in cut]
        why = f'the classifier "{expert.name}"'
        return chosen_by(shelf.names, scores.softmax(1), mixed=material.mixed, why=why, notes=notes)

    return decide


def attached_alone(shelf: Shelved):
    """Put a shelf's only expert on its base, whole, for every row of any batch."""
    import torch

    return shelf.applied(torch.ones(1, 1))


def naming_task(
    model: Model, examples: Mapping[str, Sequence[str]], *, names: Sequence[str], seed: int = 0
) -> Task:
    """Make the task a classifier is trained on: texts, and the name of the expert that each is for.

    Args:
        model: the base; only for the name of the task.
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
        name=f"names on {model.name}",
        kind="classification",
        labels=labels,
        cue=naming_cue(names),
        train=tuple(train),
        validation=tuple(validation),
        test=(),
        source="the examples of a shelf",
        licence="that of the examples",
    )
