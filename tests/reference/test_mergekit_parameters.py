"""Options, gradients, filters, slices and bases resolve as in mergekit 0.1.5; its results are recorded beside this."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.merging.plan_methods import stand_ins  # noqa: F401
from tests.unit.merging.plan_models import Shelf, llama, llama_config
from umaf.merging.planning.plan import make_plan
from umaf.merging.recipes.read import read_recipe

RECORD = json.loads(Path(__file__).with_name("mergekit_parameters.json").read_text(encoding="utf-8"))


def value_of(job, values):
    """Work out what a job gives for models whose entries all have one value."""
    rows = [values[source.model] for source in job.sources]
    if job.method == "passthrough":
        return rows[0] * job.options["scale"][0]
    if job.method == "slerp":
        return rows[0] + job.options["t"] * (rows[1] - rows[0])
    base = values[job.base.model] if job.base else 0.0
    weights = job.options["weight"]
    total = sum(weight * (row - base) for weight, row in zip(weights, rows, strict=True))
    return base + job.scale * total / (sum(weights) if job.options["normalize"] else 1)


@pytest.mark.parametrize("case", RECORD["cases"])
@pytest.mark.usefixtures("stand_ins")
def test_a_tensor_gets_the_options_that_mergekit_gives_it(case):
    shelf = Shelf()
    for name, (_, layers) in RECORD["models"].items():
        shelf.add(name, llama(layers), llama_config(layers), dtype="F32")
    plan = make_plan(read_recipe(RECORD["cases"][case] + "\n"), open=shelf.open)
    values = [RECORD["models"][str(model.ref)][0] for model in plan.models]
    made = {job.name: value_of(job, values) for job in plan.jobs}
    expected = RECORD["results"][case]
    assert {name: made[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    layers = {name.split(".")[2] for name in expected if "layers" in name}
    assert len(layers) == plan.config.get("num_hidden_layers", 7 if case == "gradient.four" else 5)
