"""Published sets as tasks: letters for choices, numbers for sums, tests for programs, and splits that do not meet."""

from __future__ import annotations

import json

import pytest

from umaf.errors import TaskError
from umaf.experts.rewards import judge
from umaf.tasks.door import load_task
from umaf.tasks.reasoning import REWARDS, read


def folder_with(tmp_path, name, rows):
    (tmp_path / "text").mkdir(exist_ok=True)
    home = tmp_path / name
    home.mkdir(parents=True)
    for split, part in rows.items():
        (home / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in part))
    return tmp_path


def test_choices_become_letters_and_test_questions_leave_training(tmp_path):
    rows = [{"question": f"which {i}?", "choices": ["ice", "fire"], "answer": "fire"} for i in range(40)]
    data = folder_with(tmp_path, "reasoning/arc_easy", {"train": rows, "test": rows[:5]})
    task = load_task("reasoning/arc_easy", data=data)
    assert task.test[0].text == "which 0? A ice, B fire" and task.test[0].answer == "B"
    assert len(task.train) + len(task.validation) == 35 and task.validation


def test_a_set_without_train_file_is_a_test_alone(tmp_path):
    data = folder_with(tmp_path, "reasoning/svamp", {"test": [{"question": "2 and 3?", "answer": "5.0"}]})
    task = read("reasoning/svamp", data)
    assert (task.train, task.validation, len(task.test)) == ((), (), 1)


def test_programs_keep_their_tests(tmp_path):
    row = {"question": "add one", "answer": "def f(x):\n    return x + 1", "tests": ["assert f(1) == 2"]}
    one = read("reasoning/mbpp", folder_with(tmp_path, "reasoning/mbpp", {"test": [row]})).test[0]
    with judge("code", run_code=True) as judged:
        assert judged([one.answer, "f = lambda x: x + 1", "f = abs"], [one] * 3) == [1.0, 1.0, -1.0]


@pytest.mark.parametrize(
    "row", ["{", '{"question": "x"}', '{"question": "x", "choices": ["a"], "answer": "b"}']
)
def test_a_damaged_set_is_one_sentence(tmp_path, row):
    data = folder_with(tmp_path, "reasoning/arc_easy", {"test": []})
    (data / "reasoning/arc_easy/test.jsonl").write_text(row)
    with pytest.raises(TaskError, match="could not be read"):
        read("reasoning/arc_easy", data)
    with pytest.raises(TaskError, match="does not hold it"):
        read("reasoning/gsm8k", data)


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_real_sets_can_be_had_and_their_answers_earn_the_reward(name, real_data):
    task = load_task(name, data=real_data)
    with judge(REWARDS[name], run_code=True) as judged:
        found = judged([one.answer for one in task.test[:10]], task.test[:10])
    assert sum(found) >= 8
