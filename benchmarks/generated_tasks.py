"""How far a bag of words gets on the generated tasks: the table of docs/concepts/generated-tasks.md.

Run with ``python -m benchmarks.generated_tasks``. Word counts and a logistic regression are trained on the train
split and scored on validation (templates and words of the train side) and on test (neither seen before).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from umaf.files import write_json
from umaf.registry import Registry
from umaf.tasks.generated import GENERATED, KINDS
from umaf.tasks.task import Task

SEEDS = (0, 1, 2)
SIZES = (2000, 400, 600)
STUDENT_T = 4.303  # 97.5th percentile with two degrees of freedom: three seeds
MARGIN = 0.15  # at most so far above chance counts as near chance; 0.65 for two classes
MUST_FAIL = ("sentiment", "ordering", "agency", "comparison")
OUT = Path("comparison/generated-tasks/summary.json")


def bag_of_words(task: Task) -> tuple[float, float]:
    """Score a bag of words on validation and on test, as shares of right answers."""
    model = make_pipeline(
        CountVectorizer(token_pattern=r"[\w']+", lowercase=True), LogisticRegression(max_iter=1000)
    )
    model.fit([e.text for e in task.train], [e.answer for e in task.train])
    known, new = (
        float(model.score([e.text for e in split], [e.answer for e in split]))
        for split in (task.validation, task.test)
    )
    return known, new


def figure(values: list[float], aim: float | None = None) -> dict[str, float | int | None]:
    """Give the mean over seeds with its 95 % interval (Student's t; shares stay in [0, 1])."""
    mean = statistics.fmean(values)
    half = STUDENT_T * statistics.stdev(values) / len(values) ** 0.5
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return {
        "value": round(mean, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "n": len(values),
        "aim": aim,
    }


def measure() -> dict[str, dict]:
    """Measure every kind; print the table as it goes; return the figures by name."""
    registry = Registry("task", "umaf.tasks", GENERATED)
    figures: dict[str, dict] = {}
    near = both = 0
    print("| kind | classes | chance | validation | test | 95 % (test) | near chance |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        tasks = [registry.get(f"made/{kind}")(seed, SIZES) for seed in SEEDS]  # type: ignore[operator]
        scores = [bag_of_words(task) for task in tasks]
        classes = len(tasks[0].labels)
        limit = round(1 / classes + MARGIN, 4)
        known = figure([score[0] for score in scores])
        new = figure([score[1] for score in scores], limit if kind in MUST_FAIL else None)
        figures[f"bag_of_words.validation.{kind}"] = known
        figures[f"bag_of_words.test.{kind}"] = new
        fails = statistics.fmean(score[1] for score in scores) < limit
        near += fails
        both += fails and statistics.fmean(score[0] for score in scores) < limit
        print(
            f"| {kind} | {classes} | {1 / classes:.2f} | {known['value']:.2f} | {new['value']:.2f} "
            f"| {new['low']:.2f} to {new['high']:.2f} | {'yes' if fails else ''} |"
        )
    figures["kinds_near_chance"] = {"value": near, "low": near, "high": near, "n": len(KINDS), "aim": 3}
    # On new words a bag of words may fail for want of words; failing on known ones too, it fails for want of order.
    figures["kinds_near_chance_on_known_words_too"] = {
        "value": both, "low": both, "high": both, "n": len(KINDS), "aim": 3,
    }  # fmt: skip
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Bag of words on the generated tasks.")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go")
    out = parser.parse_args().out
    figures = measure()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, figures)
