"""Ten labelled texts weigh the sources of a transfer, from Python and from the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from umaf import pipeline
from umaf.adapters import attach
from umaf.errors import ConfigError, TaskError
from umaf.generation.finetune import finetune
from umaf.generation.goals import labelled_goal
from umaf.generation.sources import Source
from umaf.generation.train import Schedule
from umaf.models import open_model
from umaf.pipeline import transfer
from umaf.search.shots import shot_score, shots_of
from umaf.tasks.door import load_task

TASK = "made/topic"


@pytest.fixture(scope="module")
def pair():
    """Two experts of one base, of which one learned the task and the other its answers in a circle."""
    task, base = load_task(TASK), open_model("zoo:gpt2-1m")
    turned = dict(zip(task.labels, (*task.labels[1:], task.labels[0]), strict=True))
    texts = [one.text for one in task.train[:600]]
    answers = [one.answer for one in task.train[:600]]
    schedule = Schedule(steps=40, rate=2e-3)
    return [
        finetune(base, labelled_goal(texts, task.cue, task.labels, said), schedule=schedule)
        for said in (answers, [turned[one] for one in answers])
    ]


def test_shots_find_the_source_that_is_right(pair, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "FEW", replace(pipeline.FEW, population=6, elites=2, iterations=2))
    task, target = load_task(TASK), open_model("zoo:llama-1m")
    probes = tuple(dict.fromkeys(one.text for one in task.train[600:900]))[:64]
    sources = [
        Source(model, probes, task.cue, task.labels, weight=w) for model, w in zip(pair, (1, 2), strict=True)
    ]
    shots = shots_of(task)
    plain = transfer(sources, target, route="generate")
    done = transfer(sources, target, tmp_path / "adapter", route="generate", shots=shots)
    right, wrong = done.fused.card.weights
    assert right > 0.4 and right + wrong == pytest.approx(1.0)
    before, after = (shot_score(attach(target, one.factors), shots) for one in (plain, done))
    assert after > before and after[0] > 0.5
    [told] = [row for row in done.history if "shots" in row]
    assert told["shots"]["after"] == pytest.approx(after) and "chose the shares" in told["note"]
    provenance = json.loads((tmp_path / "adapter" / "umaf.json").read_text())["provenance"]
    assert [one["weight"] for one in provenance["sources"]] == pytest.approx([right, wrong])
    assert [one.weight for one in sources] == [1, 2]


def test_shots_are_refused_where_they_choose_nothing(pair) -> None:
    task, target = load_task(TASK), open_model("zoo:llama-1m")
    probes = tuple(one.text for one in task.train[:32])
    one = Source(pair[0], probes, task.cue, task.labels)
    with pytest.raises(ConfigError, match="does not read fingerprints"):
        transfer([one, one], target, shots=shots_of(task))
    with pytest.raises(ConfigError, match="with one source"):
        transfer([one], target, route="generate", shots=shots_of(task))
    with pytest.raises(TaskError, match="free text"):
        shots_of(load_task("made/plural"))
