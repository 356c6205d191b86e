"""Rewards that a program can check: the answer a model wrote against the example it was asked.

A reward is a function of (answer, example) that gives a number in [-1, 1]; the built-in ones give 1 for right and -1
for wrong (Transformer-squared, section 3.2). Other packages add one by entry point in the group ``umaf.rewards``.
"""

from __future__ import annotations

import math
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from umaf.errors import ConfigError, ExpertError
from umaf.experts.sandbox import Limits, Sandbox
from umaf.registry import Registry
from umaf.tasks.task import Example

Reward = Callable[[str, Example], float]
Judge = Callable[[Sequence[str], Sequence[Example]], list[float]]
CODE = "code"
REWARDS = Registry(
    "reward",
    "umaf.rewards",
    {
        "exact": "umaf.experts.rewards:exact",
        "numeric": "umaf.experts.rewards:numeric",
        "label": "umaf.experts.rewards:label",
        # Code is not judged in this process; the entry says where its judge is.
        CODE: "umaf.experts.rewards:judge_code",
    },
)
RIGHT, WRONG = 1.0, -1.0
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def exact(answer: str, wanted: Example) -> float:
    """Reward an answer that is the wanted one, letter for letter; space around it aside.

    Example:
        >>> exact(" B", Example("which?", "B")), exact("b", Example("which?", "B"))
        (1.0, -1.0)
    """
    return RIGHT if answer.strip() == wanted.answer.strip() else WRONG


def numeric(answer: str, wanted: Example) -> float:
    """Reward an answer whose last number is the last number of the wanted one.

    Example:
        >>> numeric("so it is 1,200.0", Example("how many?", "1200")), numeric("none", Example("how many?", "0"))
        (1.0, -1.0)
    """
    said, right = _last_number(answer), _last_number(wanted.answer)
    if right is None:
        raise ValueError(f"the wanted answer {wanted.answer!r} holds no number")
    return RIGHT if said is not None and math.isclose(said, right, rel_tol=1e-9, abs_tol=1e-9) else WRONG


def label(answer: str, wanted: Example) -> float:
    """Reward an answer that is the wanted label; case, quotes and a full stop at the end do not matter.

    Example:
        >>> label("Animal.", Example("a dog", "animal")), label("animals", Example("a dog", "animal"))
        (1.0, -1.0)
    """
    return RIGHT if _bare(answer) == _bare(wanted.answer) else WRONG


def judge_code(answers: Sequence[str], wanted: Sequence[Example], sandbox: Sandbox) -> list[float]:
    """Reward programs that pass the tests of their examples, each run in the sandbox.

    Raises:
        ExpertError: an example has no tests.
    """
    return [
        RIGHT if sandbox.passes(answer, one.tests) else WRONG
        for answer, one in zip(answers, wanted, strict=True)
    ]


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _bare(text: str) -> str:
    return text.strip(" \t\"'.").casefold()


@contextmanager
def judge(
    name: str, *, run_code: bool = False, seconds: float = 10.0, limits: Limits | None = None
) -> Iterator[Judge]:
    """Open the judge of a reward: a function of answers and examples that gives their rewards.

    Args:
        name: a reward's name in the registry.
        run_code: allow the reward "code" to run what a model wrote; off unless asked for.
        seconds: how long one call of a reward may take.
        limits: what a program of the reward "code" may use.

    Raises:
        ConfigError: code was to be judged and running it was not allowed.
        ExpertError: while judging: the reward raised, took too long, or gave no number in [-1, 1].
        RegistryError: there is no such reward.

    Example:
        >>> with judge("exact") as judged:
        ...     judged(["4", "5"], [Example("2 + 2", "4")] * 2)
        [1.0, -1.0]
    """
    reward = REWARDS.get(name)
    if name != CODE:
        yield _in_time(name, cast(Reward, reward), seconds)
        return
    if not run_code:
        raise ConfigError(
            'The reward "code" runs what the model writes, which is off unless asked for; allow it with --run-code '
            "(run_code=True)."
        )
    with Sandbox(limits or Limits()) as sandbox:
        yield lambda answers, wanted: judge_code(answers, wanted, sandbox)


def _in_time(name: str, reward: Reward, seconds: float) -> Judge:
    """Call a reward so that one that never comes back does not hold up the training."""
    call = _woken if hasattr(signal, "SIGALRM") else _aside

    def judged(answers: Sequence[str], wanted: Sequence[Example]) -> list[float]:
        # Signals reach the main thread alone.
        own = threading.current_thread() is threading.main_thread()
        given = (call if own else _aside)(reward, list(zip(answers, wanted, strict=True)), seconds)
        found: list[float] = []
        for answer in answers:
            try:
                value = next(given)
            except _Late:
                raise ExpertError(
                    f"The reward {name!r} gave no answer within {seconds:g} s for {answer[:60]!r}; make it faster, or "
                    "allow it more time."
                ) from None
            found.append(_checked(name, value, answer))
        return found

    return judged


class _Late(BaseException):
    """The time of a reward is over; no mistake that a reward could catch as one of its own."""


def _woken(reward: Reward, asked: Sequence[tuple[str, Example]], seconds: float) -> Iterator[object]:
    """Call a reward with an alarm set: it also ends what holds the interpreter's lock, such as a regular expression
    that tries every way there is.
    """

    def ring(number: int, frame: object) -> None:
        raise _Late

    for answer, one in asked:
        before, begun = signal.signal(signal.SIGALRM, ring), time.monotonic()
        theirs = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            value: object = reward(answer, one)
        except Exception as problem:  # whatever a foreign function raises is reported as its own
            value = problem
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if theirs[0]:  # an alarm of somebody else's goes on
                signal.setitimer(
                    signal.ITIMER_REAL, max(1e-3, theirs[0] - (time.monotonic() - begun)), theirs[1]
                )
        if time.monotonic() - begun > seconds:  # it caught the alarm, and came back late
            raise _Late
        yield value


def _aside(reward: Reward, asked: Sequence[tuple[str, Example]], seconds: float) -> Iterator[object]:
    """Call a reward in a thread of its own and wait for it, where there is no alarm."""
    results: queue.SimpleQueue[object] = queue.SimpleQueue()

    def work() -> None:
        for answer, one in asked:
            try:
                results.put(reward(answer, one))
            except Exception as problem:  # whatever a foreign function raises is reported as its own
                results.put(problem)
                return

    threading.Thread(target=work, daemon=True, name="a reward").start()
    for _ in asked:
        try:
            yield results.get(timeout=seconds)
        except queue.Empty:
            raise _Late from None


def _checked(name: str, value: object, answer: str) -> float:
    if isinstance(value, Exception):
        raise ExpertError(
            f"The reward {name!r} raised {type(value).__name__} ({value}) for the answer {answer[:60]!r}; put the "
            "reward right."
        ) from value
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise ExpertError(
            f"The reward {name!r} gave {value!r} for the answer {answer[:60]!r}; a reward is a number in [-1, 1]."
        )
    return float(value)
