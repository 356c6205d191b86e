"""Which models do what texts without labels show? Some are run, and heard beside what they say elsewhere.

Texts alone lie near many capabilities, and every model is sure of something. Two things tell the one that was made for
them. It tells these texts apart more than it does the store's probes: the mutual information of text and label rises.
And models that learned the same from other bases agree where they know what they do, and fall apart where they guess,
so their agreement on the texts rises over that on the probes.

Models are run in turn: one of every group that shares label words, then more of the groups that did best.

Source: that agreement of independently trained models tells their accuracy without labels: Jiang et al., Assessing
generalization via disagreement, ICLR 2022; mutual information of text and label: Bridle et al., Unsupervised
classifiers, mutual information and "phantom targets", NIPS 1991.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from umaf.extraction.answered import even

# Of the models that are run, the share that goes round all groups before the best ones are heard whole.
ROUND = 2 / 3
# Of the store's probes, as many are asked beside the texts.
PROBES = 32


@dataclass(frozen=True)
class Heard:
    """What one capability of a model answers.

    Attributes:
        words: its label words in small letters, in the order of the columns.
        texts: log-probabilities `[text, label]` of the query's texts.
        probes: the same of probes `[probe, label]`.
    """

    words: tuple[str, ...]
    texts: Tensor
    probes: Tensor


def heard(labels: Sequence[str], scores: Float[Tensor, "text label"], texts: int) -> Heard:
    """Sort what was read by label word; the first rows are the query's texts, the others probes."""
    words = [label.casefold() for label in labels]
    order = sorted(range(len(words)), key=lambda at: words[at])
    return Heard(tuple(sorted(words)), scores[:texts, order], scores[texts:, order])


def beside(probes: Sequence[str]) -> list[str]:
    """Choose the probes that are asked beside the texts, evenly spread.

    Example:
        >>> len(beside([str(number) for number in range(132)]))
        32
    """
    return list(probes[:: max(1, len(probes) // PROBES)])[:PROBES]


def heard_in_turn(
    groups: Sequence[Hashable], run: Callable[[int], Sequence[Heard]], *, many: int
) -> dict[int, float]:
    """Run some of many models, and say how likely each is made for the texts.

    Args:
        groups: of each model, best guess first, what its capability is called; such as its label words.
        run: runs the model of that number; nothing where it cannot be run.
        many: how many to run.

    Returns:
        A worth in [-1, 1] for each that was run and said something; the larger the likelier.

    Example:
        >>> import torch
        >>> sure = torch.tensor([[0.0, -9.0], [-9.0, 0.0]])
        >>> flat = torch.full((2, 2), -0.7)
        >>> said = [Heard(("a", "b"), flat, sure), Heard(("c", "d"), sure, flat)]
        >>> found = heard_in_turn(["ab", "cd"], lambda at: [said[at]], many=2)
        >>> max(found, key=found.get)
        1
    """
    told: dict[int, Sequence[Heard]] = {}
    tried: set[int] = set()

    def hear(wanted: Sequence[int]) -> None:
        for at in wanted:
            tried.add(at)
            said = run(at)
            if said:
                told[at] = said

    hear(_turns(groups)[: max(1, math.ceil(many * ROUND))])
    ahead: dict[Hashable, float] = {}
    for at, worth in worths(told).items():
        ahead[groups[at]] = max(worth, ahead.get(groups[at], worth))
    left = sorted(
        (at for at in range(len(groups)) if at not in tried),
        key=lambda at: (-ahead.get(groups[at], -math.inf), at),
    )
    hear(left[: many - len(tried)])
    return worths(told)


def worths(told: Mapping[int, Sequence[Heard]]) -> dict[int, float]:
    """Judge models by what was heard of them and of those with the same label words; the best capability counts."""
    found = {}
    for at, own in told.items():
        each = []
        for one in own:
            informed = information(one.texts) - information(one.probes)
            kin = [
                other
                for there, others in told.items()
                if there != at
                for other in others
                if other.words == one.words
            ]
            agreed = [agreement(one.texts, o.texts) - agreement(one.probes, o.probes) for o in kin]
            each.append((informed + sum(agreed) / len(agreed)) / 2 if agreed else informed)
        found[at] = max(each)
    return found


def information(scores: Float[Tensor, "text label"]) -> float:
    """Give the mutual information of text and label as a share of what is possible, in [0, 1].

    Example:
        >>> import torch
        >>> round(information(torch.tensor([[0.0, -30.0], [-30.0, 0.0]])), 3), information(torch.zeros(3, 2))
        (1.0, 0.0)
    """
    shares = scores.double().softmax(-1)
    whole = shares.mean(0)
    surprise = -(whole * whole.clamp_min(1e-12).log()).sum()
    left = -(shares * shares.clamp_min(1e-12).log()).sum(1).mean()
    return float((surprise - left) / math.log(shares.shape[1]))


def agreement(one: Float[Tensor, "text label"], other: Float[Tensor, "text label"]) -> float:
    """Give the correlation of two models' answers, whatever label each prefers and how sure it is, in [-1, 1]."""
    x, y = even(one).flatten(), even(other).flatten()
    return float(x @ y / (x.norm() * y.norm()).clamp_min(1e-12))


def _turns(groups: Sequence[Hashable]) -> list[int]:
    """Put the first of every group first, then every second, in the order of the groups' first."""
    seen: dict[Hashable, int] = {}
    rounds = []
    for at, group in enumerate(groups):
        seen[group] = seen.get(group, 0) + 1
        rounds.append((seen[group], at))
    return [at for _, at in sorted(rounds)]
