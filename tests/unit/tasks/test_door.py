"""The data door: tasks that other packages bring, and folders that hold none."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from umaf import registry
from umaf.errors import RegistryError, TaskError
from umaf.registry import Registry
from umaf.tasks import door
from umaf.tasks.generated.tense import tense


@pytest.fixture
def plugin(monkeypatch):
    """A package that brings a task under this name."""

    def bring(name):
        point = EntryPoint(name, "umaf.tasks.generated.tense:tense", "umaf.tasks")
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "umaf.tasks" else [])
        monkeypatch.setattr(door, "TASKS", Registry("task", "umaf.tasks", door.TASKS._builtins))

    return bring


def test_a_package_brings_a_task(plugin):
    plugin("ours/mood")
    assert "ours/mood" in door.list_tasks() and "made/sentiment" in door.list_tasks()
    task = door.load_task("ours/mood", seed=3, limit=4)
    assert len(task.train) == 4 and set(task.train) <= set(tense(3).train)
    assert door.load_measured("ours/mood", seed=3).test == tense(3).test


def test_two_claims_on_a_task_are_an_error(plugin):
    plugin("made/sentiment")
    with pytest.raises(RegistryError, match="claim to be the task 'made/sentiment'"):
        door.load_task("made/sentiment")


def test_a_folder_without_tasks_is_refused(tmp_path):
    with pytest.raises(TaskError, match="neither text/ nor icl/"):
        door.find_data(tmp_path)
    (tmp_path / "text").mkdir()
    assert door.find_data(tmp_path) == tmp_path
    with pytest.raises(TaskError, match="does not hold it; list the tasks"):
        door.load_task("snips", data=tmp_path)
