"""The bank's split: nothing held out may train anything."""

from __future__ import annotations

import functools

import pytest

from umaf.errors import TaskError
from umaf.tasks import bank, door
from umaf.tasks.task import Example, Task

FEW = (Example("hi", "greeting"), Example("bye now", "say goodbye"), Example("gas?", "gas"))
SMALL = Task(
    "small", "classification", ("greeting", "say goodbye", "gas"), "intent", FEW, FEW, FEW, "here", "none"
)


def test_splits_share_no_capability() -> None:
    listed = [name for split in bank.SPLITS for name in bank.names(split)]
    assert len(listed) == len(set(listed))
    assert len(bank.names("train", "classification")) >= 256
    assert len(bank.names("heldout", "function")) >= 8


def test_the_bank_is_as_large_as_it_says() -> None:
    real, written = bank.splits()["classification"], bank.splits()["functions"]
    cuts = bank.names()
    assert sum(len(real[split]) for split in (*bank.SPLITS, "by_class")) >= 12
    assert sum(len(written[split]) for split in bank.SPLITS) >= 20
    assert sum(name.startswith("derived/") for name in cuts) >= 256 and len(set(cuts)) == len(cuts)


def test_splits_share_no_class() -> None:
    for classes in bank.splits()["classes"].values():
        train, validation, heldout = (set(classes[split]) for split in bank.SPLITS)
        assert train and validation and heldout
        assert not train & validation and not train & heldout and not validation & heldout


def test_cuts_use_only_classes_of_their_split() -> None:
    for cut in bank.splits()["cuts"]:
        allowed = set(bank.splits()["classes"][cut["set"]][cut["split"]])
        assert {label for group in cut["groups"].values() for label in group} <= allowed


def test_regroup_keeps_only_the_grouped_classes() -> None:
    task = bank.regroup(SMALL, "chat", "match", {"yes": ["greeting", "say_goodbye"]})
    assert [e.answer for e in task.test] == ["yes", "yes"]
    assert task.labels == ("yes",) and task.name == "chat"


def test_heldout_capabilities_are_no_training_data() -> None:
    with pytest.raises(TaskError, match="does not hold it in its train split"):
        bank.training_examples("snips7", lambda _: SMALL, frozenset())
    kept = bank.training_examples("mnli", lambda _: SMALL, frozenset({"hi"}))
    assert [e.text for e in kept] == ["bye now", "gas?"]


def test_unknown_split_is_one_sentence() -> None:
    with pytest.raises(TaskError, match="splits train, validation, heldout"):
        bank.names("testing")


def test_no_heldout_text_is_in_any_training_split(real_data) -> None:
    load = functools.cache(lambda name: door.load_task(name, data=real_data))
    forbidden = bank.heldout_texts(load)
    assert len(forbidden) > 10_000
    names = [name for name in bank.names("train") if not name.startswith("derived/")]
    names += [name for name in bank.names("train") if name.startswith("derived/")][::48]
    total = 0
    for name in names:
        trained = {e.text.lower() for e in bank.training_examples(name, load, forbidden)}
        assert not trained & forbidden, name
        total += len(trained)
    assert total > 10_000


def test_zoo_corpus_holds_no_heldout_prompt(real_data) -> None:
    corpus = pytest.importorskip("zoo.corpus").read(real_data)
    load = functools.cache(lambda name: door.load_task(name, data=real_data))
    prompts = {asked.rsplit("\n", 1)[0].lower() for asked, _ in corpus.pairs}
    assert not prompts & bank.heldout_texts(load)


def test_no_capability_trains_on_what_it_is_tested_with(real_data) -> None:
    """Experts, oracles and probes are train texts; scores are of test texts, choices of validation texts."""
    load = functools.cache(lambda name: door.load_task(name, data=real_data))
    for name in (*bank.names("heldout"), *bank.names("validation"), "goemotions28", "mnli"):
        task = load(name)
        train, validation, test = (
            {e.text.lower() for e in part} for part in (task.train, task.validation, task.test)
        )
        assert train and test, name
        assert not train & test and not validation & test and not train & validation, name


def test_material_of_the_spaces_holds_no_heldout_text(real_data, monkeypatch) -> None:
    material = pytest.importorskip("zoo.material")
    load = functools.cache(lambda name: door.load_task(name, data=real_data))
    forbidden = bank.heldout_texts(load)
    every = bank.names
    chosen = every("train", "classification")
    few = [name for name in chosen if not name.startswith("derived/")] + chosen[-300::60]
    monkeypatch.setattr(
        bank, "names", lambda *asked: few if asked == ("train", "classification") else every(*asked)
    )
    texts = {e.text.lower() for task in material.tasks("train", each=60, data=real_data) for e in task.train}
    assert len(texts) > 1000 and not texts & forbidden
