"""The transfer benchmark goes on from the cells of an earlier record, and says which figures are that record's."""

from __future__ import annotations

import json

from benchmarks.transfer import take
from benchmarks.transfer_summary import _taken, headline, spaces
from umaf.evaluation.summary import Figure


def _cell(capability: str, **scores: float) -> dict:
    place = {"kind": "single", "source": "bert-1m", "target": "llama-1m", "capability": capability, "seed": 0}
    return {"cell": {**place, "extras": False}, "scores": scores, "cpu": {}, "one_run": False}


def test_cells_of_a_record_are_kept_and_measured_ones_stay(tmp_path) -> None:
    figures = {"retrieval.top1": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 136, "aim": ">= 0.90"}}
    numbers = {
        "figures": figures,
        "train": [["a", 1.0]],
        "cells": [_cell("a", bare=0.1), _cell("b", bare=0.2)],
    }
    record = tmp_path / "2026-01-01-0000.json"
    record.write_text(json.dumps({"numbers": numbers}))
    mine = tmp_path / "home" / "cells" / "single--bert-1m--llama-1m--a--0.json"
    mine.parent.mkdir(parents=True)
    mine.write_text('{"mine": true}')
    take(tmp_path / "home", record)
    assert json.loads(mine.read_text()) == {"mine": True}
    other = json.loads((mine.parent / "single--bert-1m--llama-1m--b--0.json").read_text())
    assert other == {"record": record.stem, **numbers["cells"][1]}
    assert json.loads((tmp_path / "home" / "train.json").read_text()) == numbers["train"]
    take(tmp_path / "home", record)
    assert json.loads((tmp_path / "home" / "taken.json").read_text())["records"] == {record.stem: 1}


def test_families_of_figures_are_taken_whole_where_they_rest_on_more(tmp_path) -> None:
    earlier = {
        name: {"value": 0.5, "low": None, "high": None, "n": 9, "aim": None}
        for name in ("retrieval.top1", "ablation.answers", "ablation.weights", "recovery.generate")
    }
    several = ("recovery.generate.trained_on.8", "recovery.generate.trained_on.64")
    earlier |= {name: {"value": 0.4, "low": None, "high": None, "n": 14, "aim": None} for name in several}
    (tmp_path / "taken.json").write_text(json.dumps({"records": {"r": 4}, "figures": earlier}))
    figures = {
        "retrieval.top1": Figure(0.7, n=3),
        "retrieval.new": Figure(0.1, n=3),
        several[1]: Figure(0.3, n=7),
    }
    figures |= {"ablation.answers": Figure(0.7, n=16), "ablation.share50": Figure(0.6, n=4)}
    assert _taken(tmp_path, figures) == {"cells": {"r": 4}, "figures": ["retrieval.top1", several[0]]}
    assert {name: one.value for name, one in figures.items()} == {
        "ablation.answers": 0.7,
        "ablation.share50": 0.6,
        "retrieval.top1": 0.5,
        several[0]: 0.4,
        several[1]: 0.3,
    }
    (tmp_path / "taken.json").unlink()
    assert _taken(tmp_path, figures) == {"cells": {}, "figures": []}


def test_no_expert_at_hand_gives_no_figure_of_fingerprints() -> None:
    assert spaces([]) == {}


def test_a_source_that_knows_no_more_than_the_target_is_left_out_of_one_figure() -> None:
    rest = {"generate_refined50": 0.8, "multitask": 0.5, "nearest": 0.5, "oracle": 0.9}
    cells = [
        _cell("a", bare=0.5, source=0.9, generate=0.7, **rest),
        _cell("b", bare=0.5, source=0.5, generate=0.5, **rest),
    ]
    found = headline(cells)
    assert round(found["recovery.generate"].value or 0, 6) == 0.25
    assert round(found["recovery.generate.source_ahead"].value or 0, 6) == 0.5
    assert found["recovery.generate.source_ahead"].n == 1 and found["cells"].value == 2
