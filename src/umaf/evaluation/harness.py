"""Any task of the lm-evaluation-harness, by name or from a YAML file, asked through the harness's own Python API.

Needs the extra `umaf[eval]`. Source: Gao et al., The Language Model Evaluation Harness (2024).
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from umaf.errors import ConfigError, TaskError
from umaf.evaluation.assess import Result
from umaf.evaluation.statistics import Bootstrap, mean_interval
from umaf.models.model import Model
from umaf.models.quiet import quiet

PREFIX = "lm-eval:"
_NONE = "none"


def assess_harness(
    model: Model, name: str, *, limit: int | None = None, seed: int = 0, batch_size: int = 16
) -> list[Result]:
    """Score a model on a task of the harness, with our intervals over its items.

    Args:
        model: with the head "lm" or "seq2seq".
        name: "lm-eval:NAME" for a task or a group the harness knows, "lm-eval:FILE.yaml" for one of your own; its data
            may be local, and then nothing is asked of any network.
        limit: at most so many items: the first ones, as the harness takes them.
        seed: of the harness's draws and of the interval.
        batch_size: requests per pass.

    Returns:
        One result for each task: several for a group. The first metric the task names is its value, the others are in
        `also`.

    Raises:
        ConfigError: lm-eval is not installed.
        TaskError: the harness knows no such task, cannot load its data, or this model cannot answer it.

    Example:
        >>> from umaf.models import open_model
        >>> assess_harness(open_model("zoo:llama-1m"), "lm-eval:arc_easy", limit=20)  # doctest: +SKIP
        [Result(...)]
        >>> assess_harness(open_model("zoo:bert-1m"), "lm-eval:arc_easy")
        Traceback (most recent call last):
        umaf.errors.TaskError: lm-eval:arc_easy was asked of "zoo:bert-1m", but the harness needs a model ...
    """
    if model.head not in ("lm", "seq2seq"):
        raise TaskError(
            f'{name} was asked of "{model.name}", but the harness needs a model that writes and its head is '
            f"{model.head}; use a language model."
        )
    if find_spec("lm_eval") is None:
        raise ConfigError(
            f'{name} was asked for, but the harness is not installed; run: pip install "umaf[eval]"'
        )
    task, folder = _where(name.removeprefix(PREFIX))
    try:
        with quiet(), _hushed():
            found = _run(model, task, folder, limit=limit, seed=seed, batch_size=batch_size)
    except (
        Exception
    ) as problem:  # the harness and its data sets raise many kinds; each means it cannot be had
        why = " ".join(str(problem).split())[:200].rstrip(".") or type(problem).__name__
        raise TaskError(
            f"{name} was asked of the harness, but it could not ask it ({why}); check the name with "
            "`lm-eval ls tasks`, and the network if its data is on the hub."
        ) from problem
    samples = found.get("samples", {})
    return [_result(model, one, found, samples[one], seed=seed) for one in sorted(samples)]


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep the harness's bars and prints off the terminal, and those of the git it starts."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _run(
    model: Model, task: str, folder: str | None, *, limit: int | None, seed: int, batch_size: int
) -> dict[str, Any]:
    """Ask the harness; its modules are loaded here alone, because they are many."""
    evaluator: Any = import_module("lm_eval.evaluator")
    wrapper: Any = import_module("lm_eval.models.huggingface").HFLM
    known = import_module("lm_eval.tasks").TaskManager(include_path=folder, include_defaults=folder is None)
    wrapped = wrapper(
        pretrained=model.net,
        tokenizer=model.tokenizer,
        batch_size=batch_size,
        device=str(model.device),
        max_length=model.window,
        backend="causal" if model.head == "lm" else "seq2seq",
    )
    draws = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    return evaluator.simple_evaluate(
        wrapped,
        tasks=[task],
        task_manager=known,
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        **dict.fromkeys(draws, seed),
    )


def _where(name: str) -> tuple[str, str | None]:
    """Give the task's name, and the folder of its file where it is one of the user's own."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return name, None
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Tolerant)
        return str(content["task"]), str(path.resolve().parent)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as problem:
        raise TaskError(
            f"The harness task {name} was asked for, but it is no readable YAML with a task: line ({problem}); "
            "write it as the harness's guide to new tasks says."
        ) from problem


class _Tolerant(yaml.SafeLoader):
    """Passes over the harness's own tags, such as !function: only the name is wanted."""


_Tolerant.add_multi_constructor("!", lambda loader, suffix, node: None)


def _result(
    model: Model, task: str, found: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], *, seed: int
) -> Result:
    scores = {
        key: value
        for key, value in found["results"][task].items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    }
    first = next(iter(scores), None)
    if first is None:
        raise TaskError(f"{task} was asked of the harness, but it gave no number; check the task's metrics.")
    metric, kept = first.split(",", 1)
    rows = [sample for sample in samples if sample.get("filter", _NONE) == kept]
    items = [sample.get(metric) for sample in rows]
    single = [float(one) for one in items if isinstance(one, bool | int | float)]
    value, low, high, n = float(scores[first]), math.nan, math.nan, len(rows)
    # Where a metric is made of all items at once (a perplexity, an F1), the harness's number stands without interval.
    if len(single) == len(rows) and rows and math.isclose(sum(single) / len(single), value, abs_tol=1e-6):
        interval = mean_interval(single, bootstrap=Bootstrap(seed=seed))
        low, high = interval.low, interval.high
    else:
        single = []
    better = bool(found.get("higher_is_better", {}).get(task, {}).get(metric, True))
    return Result(
        model.name,
        f"{PREFIX}{task}",
        metric,
        value,
        low,
        high,
        n,
        chance=_chance(metric, rows),
        perfect=1.0 if better else 0.0,
        items=tuple(single),
        also={key.removesuffix(f",{_NONE}"): float(one) for key, one in scores.items() if key != first},
    )


def _chance(metric: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Give the score of guessing: one of so many choices, nothing for a written answer, else unknown."""
    if metric in ("acc", "acc_norm") and all(len(row["arguments"]) > 1 for row in rows):
        return sum(1 / len(row["arguments"]) for row in rows) / len(rows)
    return 0.0 if metric.startswith(("exact_match", "em", "f1")) else None
