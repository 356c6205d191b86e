"""Sources of a transfer, and the goals that their own answers give.

A source is read on its probes: a classifier by its classes, a language model by label words after the cue or, for a
function, by what it writes. No label of a probe is used anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umaf.activations import check_probes
from umaf.errors import ConfigError, ModelError, TaskError
from umaf.fusion import check_weights
from umaf.generation.goals import Goal, answer_goal, label_goal
from umaf.generation.replies import Replies, labels_of, nothing_to_move, same_weights
from umaf.models import Model
from umaf.readout import label_scores, make_readout

WRITES = ("lm", "seq2seq")


@dataclass(frozen=True)
class Source:
    """A capability as one model shows it on some texts.

    Attributes:
        model: the model that has the capability.
        probes: texts without labels on which it shows, at least 16.
        cue: the word before the answer, such as "sentiment".
        labels: label words; for a classifier its classes, or words for them in the order of its classes. Empty for
            a classifier's own class names, and for a function, whose answers the model writes.
        base: the model it was fine-tuned from, where known.
        weight: share of this source among others; 0 leaves it out, a negative one takes the capability away.
    """

    model: Model
    probes: tuple[str, ...]
    cue: str
    labels: tuple[str, ...] = ()
    base: Model | None = None
    weight: float = 1.0


def goals_of(
    sources: Sequence[Source],
    target: Model,
    *,
    batch_size: int = 64,
    truncate: bool = False,
    replies: Replies | None = None,
) -> list[Goal]:
    """Ask sources for their answers, as goals for a target.

    Sources with the same cue, labels and probes show one capability, and become one goal: log-probabilities are
    averaged by weight, written answers voted on by weight. A source with a negative weight is mirrored at the bare
    target: wanted are the probabilities in proportion to ``bare^2 / source``. A source that answers like its own
    base has nothing to move, and gives no goal.

    Args:
        sources: at least one.
        target: the model that shall receive the capabilities.
        batch_size: texts per pass.
        truncate: cut probes that are longer than a model's window.
        replies: what the sources were asked before; the two settings above are its own then.

    Returns:
        One goal per capability; none when no source has anything to move.

    Raises:
        ModelError: a source is the target itself.
        ProbeError: probes that are empty, repeated, too few or too long.
        TaskError: labels that a source or the target cannot be read for, or answers that they cannot write.
        ConfigError: a negative weight on a function.
        FingerprintError: weights that are all 0, NaN or infinite.
        NumericalError: a source answers with NaN.

    Example:
        >>> goals_of([Source(expert, probes, "sentiment", ("bad", "good"))], target)  # doctest: +SKIP
        [Goal(...)]
        >>> goals_of([], target=None)
        Traceback (most recent call last):
        umaf.errors.ConfigError: A transfer needs at least one source, and none was given; name one.
    """
    check_sources(sources, target)
    heard = replies or Replies(batch_size, truncate)
    groups: dict[tuple, list[Source]] = {}
    for source in sources:
        if source.weight != 0 and not nothing_to_move(source, heard):
            # Whatever the order of the labels: it is one capability.
            key = (source.cue, frozenset(labels_of(source)), source.probes)
            groups.setdefault(key, []).append(source)
    return [
        _label_goal(group, target, heard) if labels_of(group[0]) else _answer_goal(group, heard)
        for group in groups.values()
    ]


def check_sources(sources: Sequence[Source], target: Model) -> None:
    """Stop before any model runs, where sources cannot become goals for a target.

    Raises:
        ModelError, ProbeError, TaskError, ConfigError, FingerprintError: see `goals_of`.
    """
    if not sources:
        raise ConfigError("A transfer needs at least one source, and none was given; name one.")
    check_weights([source.weight for source in sources], len(sources))
    for source in sources:
        check_probes(source.probes)
        if same_weights(source.model, target):
            raise ModelError(
                f'"{source.model.name}" was given as source and as target, but both hold the same weights, so there '
                "is nothing to move; name another model as one of them."
            )
        labels = labels_of(source)
        if labels:
            make_readout(target, labels, source.cue)
        else:
            _check_function(source, target)


def _check_function(source: Source, target: Model) -> None:
    if source.model.head not in WRITES:
        raise TaskError(
            f'"{source.model.name}" was given without labels, but its head ({source.model.head}) writes no answers; '
            "name the labels it shall be read for."
        )
    if target.head not in WRITES:
        raise TaskError(
            f'"{source.model.name}" was given without labels, so the target has to write its answers, but the head of '
            f'"{target.name}" ({target.head}) does not write; name labels, or choose a language model as target.'
        )
    if source.weight < 0:
        raise ConfigError(
            f'"{source.model.name}" has the weight {source.weight:g} and no labels, and a written answer has no '
            "opposite; give labels, or a weight above 0."
        )


def _label_goal(group: Sequence[Source], target: Model, heard: Replies) -> Goal:
    """Average what the sources of one classification capability answer."""
    labels, first = labels_of(group[0]), group[0]
    total = sum(abs(source.weight) for source in group)
    wanted = torch.zeros(len(first.probes), len(labels))
    bare_scores: Tensor | None = None
    for source in group:
        own = labels_of(source)
        scores = heard.scores(source)[:, [own.index(label) for label in labels]]
        if source.weight < 0:
            if bare_scores is None:
                how = {"batch_size": heard.batch_size, "truncate": heard.truncate}
                bare_scores = label_scores(target, first.probes, labels, first.cue, **how)
            scores = (2 * bare_scores - scores).log_softmax(-1)
        wanted += abs(source.weight) / total * scores
    return label_goal(first.probes, first.cue, labels, wanted, weight=total)


def _answer_goal(group: Sequence[Source], heard: Replies) -> Goal:
    """Take, probe by probe, the answer with the largest weight behind it."""
    first = group[0]
    votes: list[dict[str, float]] = [{} for _ in first.probes]
    for source in group:
        for vote, answer in zip(votes, heard.texts(source), strict=True):
            vote[answer] = vote.get(answer, 0.0) + source.weight
    chosen = [max(vote, key=lambda answer: vote[answer]) for vote in votes]
    return answer_goal(first.probes, first.cue, chosen, weight=sum(source.weight for source in group))
