"""Rewards: right, wrong, and every way in which somebody's reward function can go wrong."""

from __future__ import annotations

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from umaf.errors import ConfigError, ExpertError, RegistryError
from umaf.experts.rewards import _in_time, exact, judge, label, numeric
from umaf.tasks.task import Example

ASKED = Example("how many?", "12")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("12", 1),
        (" 12 ", 1),
        ("3 + 9 = 12", 1),
        ("12.0", 1),
        ("1,2", 1),
        ("-12", -1),
        ("", -1),
        ("12 or 13", -1),
    ],
)
def test_numeric_reads_the_last_number(answer, right):
    assert numeric(answer, ASKED) == right


def test_numeric_reads_thousands_and_decimals():
    assert numeric("1,234.5", Example("", "1234.50")) == 1


def test_exact_and_label_differ_in_case():
    wanted = Example("", "Yes")
    assert (exact("yes", wanted), label('"yes".', wanted), label("yes sir", wanted)) == (-1, 1, -1)


def test_a_wanted_answer_without_a_number_is_no_silent_minus_one():
    with judge("numeric") as judged, pytest.raises(ExpertError, match="holds no number"):
        judged(["3"], [Example("how many?", "none")])


def test_an_unknown_reward_is_named():
    with pytest.raises(RegistryError, match="numeric"), judge("numerical"):
        pass


def test_code_is_off_unless_asked_for():
    with pytest.raises(ConfigError, match="--run-code"), judge("code"):
        pass


def _raises(answer, wanted):
    raise KeyError("lost")


def _hangs(answer, wanted):
    time.sleep(5)
    return 1.0


def _tries_every_way(answer, wanted):
    """A regular expression holds the interpreter's lock until it is done: no other thread could end it."""
    return 1.0 if re.match(r"(a+)+$", "a" * 40 + "b") else -1.0


def _catches_everything(answer, wanted):
    with suppress(BaseException):
        time.sleep(5)
    return 1.0


FAULTS = [
    (_raises, "raised KeyError"),
    (_hangs, r"no answer within 0\.1 s"),
    (lambda a, w: 3.0, "gave 3.0"),
    (lambda a, w: float("nan"), "gave nan"),
    (lambda a, w: True, "gave True"),
    (lambda a, w: "1", "gave '1'"),
]


def _sentence(reward):
    with pytest.raises(ExpertError) as caught:
        _in_time("mine", reward, 0.1)(["an answer"], [ASKED])
    assert "\n" not in str(caught.value) and "'mine'" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("reward", "says"),
    [*FAULTS, *((one, r"no answer within 0\.1 s") for one in (_tries_every_way, _catches_everything))],
)
def test_a_faulty_reward_stops_with_one_sentence(reward, says):
    before = time.monotonic()
    assert re.search(says, _sentence(reward))
    assert time.monotonic() - before < 4


@pytest.mark.parametrize(("reward", "says"), FAULTS)
def test_a_faulty_reward_stops_in_any_thread(reward, says):
    with ThreadPoolExecutor(1) as pool:
        assert re.search(says, pool.submit(_sentence, reward).result(timeout=4))


def test_judging_leaves_the_alarms_of_others():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert _in_time("mine", lambda a, w: 1.0, 5.0)(["an answer"], [ASKED]) == [1.0]
        assert not rung and 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 0.2
        while not rung:
            time.sleep(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_reward_of_another_package_may_give_any_share():
    assert _in_time("mine", lambda answer, wanted: len(answer) / 10, 1.0)(["ab", "abcd"], [ASKED] * 2) == [
        0.2,
        0.4,
    ]
