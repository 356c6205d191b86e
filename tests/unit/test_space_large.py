"""From small to large: shares of the oracle's gain, and cells of an earlier record that are kept as they are."""

from __future__ import annotations

import json

from benchmarks import space_large


def _cell(capability: str, **scores: float) -> dict:
    return {"source": "gpt2-1m", "target": "gpt2-5m", "capability": capability, "scores": scores}


def test_shares_are_means_over_the_cells_that_an_oracle_moves() -> None:
    found = space_large.figures(
        [
            _cell("a", bare=0.5, solve=0.6, distill=0.7, oracle=0.9),
            _cell("b", bare=0.5, solve=0.9, distill=0.9, oracle=0.9),
            _cell("c", bare=0.5, solve=0.9, distill=0.9, oracle=0.51),
        ]
    )
    solve = found["small_to_large.solve.gpt2-1m_gpt2-5m"]
    assert round(solve.value or 0, 6) == 0.625 and solve.n == 2 and found["cells"].n == 3


def test_cells_of_an_earlier_record_do_not_replace_measured_ones(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(space_large, "HOME", tmp_path)
    mine = space_large._place(_cell("a/b"))
    mine.parent.mkdir(parents=True)
    mine.write_text(json.dumps({"mine": True}))
    found = space_large.cells(minutes=0, shelves=[], earlier=[_cell("a/b"), _cell("c", bare=0.5)])
    assert found == [{"mine": True}, {"commit": None, **_cell("c", bare=0.5)}]
