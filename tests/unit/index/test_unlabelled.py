"""Texts without labels: who was made for them is told by what it says to them and elsewhere."""

from __future__ import annotations

import pytest
import torch

from umaf.index.unlabelled import PROBES, agreement, beside, heard, heard_in_turn, information, worths

TEXTS, OTHERS, LABELS = 24, 32, 3


def answers(rule, *, sure=6.0, noise=0.3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (sure * rule + noise * torch.randn(rule.shape, generator=draw)).log_softmax(-1)


def model(words, *, knows, number):
    """One that follows its group's rule on the texts if it knows them, and a rule of its own on all else."""
    shared, own = (torch.Generator().manual_seed(seed) for seed in (7, 1000 + number))
    rule = torch.eye(LABELS)[torch.randint(LABELS, (TEXTS,), generator=shared)]
    guess = torch.randn(TEXTS + OTHERS, LABELS, generator=own).softmax(-1)
    rows = torch.cat([answers(rule if knows else guess[:TEXTS], seed=number), answers(guess[TEXTS:])])
    return [heard(words, rows, TEXTS)]


def collection():
    """Three groups of three; the second group was made for the texts."""
    groups = [("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i")]
    order = [0, 2, 1, 0, 2, 0, 1, 2, 1]
    return [groups[at] for at in order], [
        model(groups[at], knows=at == 1, number=number) for number, at in enumerate(order)
    ]


def test_information_and_agreement_do_not_ask_how_sure_or_which_label():
    rule = torch.eye(LABELS)[torch.arange(TEXTS) % LABELS]
    assert information(answers(rule, noise=0)) > 0.95 and abs(information(torch.zeros(TEXTS, LABELS))) < 1e-9
    assert information(torch.tensor([[9.0, -9.0]] * TEXTS)) == pytest.approx(0, abs=1e-6)
    one, other = answers(rule, noise=0), answers(rule, sure=2.0, noise=0) + torch.tensor([3.0, 0.0, -1.0])
    assert agreement(one, other) == pytest.approx(1, abs=0.02)
    assert agreement(one, answers(rule.roll(1, 1), noise=0)) < 0


def test_who_was_made_for_the_texts_is_found_with_few_runs():
    groups, said = collection()
    ran = []

    def run(at):
        ran.append(at)
        return said[at]

    found = heard_in_turn(groups, run, many=5)
    assert ran[:3] == [0, 1, 2] and len(ran) == len(set(ran)) == 5 and set(found) == set(ran)
    assert groups[max(found, key=found.get)] == ("d", "e", "f")
    everyone = heard_in_turn(groups, lambda at: said[at], many=99)
    best = set(sorted(everyone, key=everyone.get)[-3:])
    assert best == {at for at, group in enumerate(groups) if group == ("d", "e", "f")}


def test_what_is_left_of_the_runs_goes_to_the_best_group():
    groups, said = collection()
    ran = []
    heard_in_turn(groups, lambda at: ran.append(at) or said[at], many=6)
    assert sorted(groups[at] for at in ran).count(("d", "e", "f")) == 3


def test_being_sure_of_everything_is_no_sign():
    rule = torch.eye(LABELS)[torch.arange(TEXTS + OTHERS) % LABELS]
    loud = heard(("x", "y", "z"), answers(rule, sure=30.0), TEXTS)
    quiet = answers(rule, sure=3.0)
    quiet[TEXTS:] = answers(torch.zeros(OTHERS, LABELS), noise=0.5)
    found = worths({0: [loud], 1: [heard(("p", "q", "r"), quiet, TEXTS)]})
    assert found[1] > 0.3 > abs(found[0])


def test_columns_are_matched_by_word_and_who_cannot_be_run_is_left_out():
    groups, said = collection()
    rows = torch.cat([said[2][0].texts, said[2][0].probes])
    turned = heard(("F", "d", "E"), rows[:, [2, 0, 1]], TEXTS)
    assert turned.words == ("d", "e", "f") and torch.equal(turned.texts, said[2][0].texts)
    assert set(heard_in_turn(groups, lambda at: [] if at < 3 else said[at], many=4)) == {3}
    assert heard_in_turn([], lambda at: said[at], many=4) == {}


def test_the_probes_beside_are_evenly_spread():
    texts = [str(number) for number in range(70)]
    assert beside(texts) == texts[::2][:PROBES] and beside(texts[:5]) == texts[:5]
