"""The quickstart's parts: the folder it may replace, what it wants of the target, and which adapter it keeps."""

from __future__ import annotations

import pytest

from umaf.cli.quickstart import QuickstartConfig
from umaf.errors import OutputError
from umaf.evaluation.evaluate import Score
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import Interval
from umaf.generation.goals import labelled_goal
from umaf.quickstart.adapters import written
from umaf.quickstart.place import KIND, check_place, own_folder
from umaf.quickstart.plan import Plan
from umaf.quickstart.scores import LEVELS, Cell, better_route, mean_recovery, numbers_of

EASY, HARD = LEVELS


def old_run(place, kind=KIND):
    place.mkdir()
    write_record(place / "record.json", new_record(kind, config={}, numbers={}))
    return place


@pytest.mark.parametrize("what", ["file", "folder", "other record", "link"])
def test_only_a_quickstarts_own_folder_is_replaced(tmp_path, what):
    place = tmp_path / "out"
    if what == "file":
        place.write_text("mine")
    elif what == "folder":
        place.mkdir()
    elif what == "other record":
        old_run(place, kind="transfer")
    else:
        place.symlink_to(old_run(tmp_path / "other"))
    with pytest.raises(OutputError, match="not an earlier quickstart's"):
        check_place(place)


def test_an_earlier_quickstart_stays_until_the_new_one_is_whole(tmp_path):
    place = old_run(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), own_folder(place) as draft:
        (draft / "half").write_text("")
        raise KeyboardInterrupt
    assert (place / "record.json").is_file() and [path.name for path in tmp_path.iterdir()] == ["out"]
    with own_folder(place) as draft:
        (draft / "new").write_text("")
    assert [path.name for path in place.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_likeliest_label_is_written():
    goal = written(labelled_goal(["a", "b"], "tense", ["past", "future"], ["future", "past"]))
    assert goal.is_function and goal.answers == ("future", "past") and goal.cue == "tense"


def cell(level, solve, distill, recovery=0.5):
    def score(value):
        return Score("t", "accuracy", value, value, value, 4, (), (), 0)

    names = {"source": 1.0, "bare": 0.3, "solve": solve, "distill": distill, "generate": 0.4, "oracle": 1.0}
    found = None if recovery is None else Interval(recovery, 0.4, 0.6, 4)
    scores = {name: score(value) for name, value in names.items()}
    return Cell("tense", level, 0.5, scores, {"solve": found, "distill": found, "generate": found})


def test_the_harder_texts_do_not_choose_the_route():
    assert better_route([cell(EASY, 0.9, 0.8), cell(HARD, 0.1, 0.9)]) == "solve"
    assert better_route([cell(EASY, 0.8, 0.9), cell(HARD, 0.9, 0.1)]) == "distill"
    assert better_route([cell(EASY, 0.8, 0.8)]) == "solve"


def test_recovery_is_left_out_where_it_means_nothing():
    assert mean_recovery([cell(EASY, 1, 1), cell(EASY, 1, 1, recovery=None)], "solve", EASY) == 0.5
    assert mean_recovery([cell(EASY, 1, 1, recovery=None)], "solve", EASY) is None
    assert numbers_of([cell(EASY, 1, 1, recovery=None)])[EASY]["tense"]["solve"]["recovery"] is None


def test_the_commands_sizes_are_the_plans():
    shown = QuickstartConfig().model_dump(exclude={"out"})
    assert Plan(**shown) == Plan()
