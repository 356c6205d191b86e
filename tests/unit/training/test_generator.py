"""The generator: learned at pico size, kept on disk, and careful about what it is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from umaf.adapters import attach, norms
from umaf.errors import ConfigError, FingerprintError, TaskError
from umaf.extraction import Answers, Bound, Fingerprint, extract, fit_universal, load_universal
from umaf.extraction.universal import Universal
from umaf.fusion import fuse
from umaf.generation.decisions import ask, decide
from umaf.generation.forward import adapter, forward
from umaf.generation.generator import Generator, fits, load_generator, save_generator
from umaf.generation.goals import Goal, labelled_goal
from umaf.models import Model, open_model
from umaf.tasks.task import Example, Task
from umaf.training.generator import train_generator
from umaf.training.lesson import SHARES, GeneratorSettings, Lesson
from umaf.training.material import Material, gather, load_material

FIRST = ("the film", "a kind doctor", "rain", "the letter", "music", "a small town")
MIDDLE = ("was good and", "fell on", "about music in", "wrote a", "is bad in")
LAST = ("the hills", "a small town", "bad music", "rain")
TEXTS = tuple(f"{one} {two} {three}" for one in FIRST for two in MIDDLE for three in LAST)
PLAN = GeneratorSettings(
    steps=8, rate=3e-3, look_every=4, keep_every=3, texts=8, shown=40, looked=24, probes=60, rank=2
)


def _task(name: str, words: tuple[str, str], has: str) -> Task:
    labels = ("yes", "no") if name.endswith("yn") else words
    examples = tuple(Example(text, labels[0] if has in text else labels[1]) for text in TEXTS)
    return Task(name, "classification", labels, "topic", examples, examples, examples, "made", "")


@pytest.fixture(scope="module")
def models(pico) -> dict[str, Model]:
    return {name: open_model(pico(name)) for name in ("bert", "gpt2", "llama")}


@pytest.fixture(scope="module")
def space(pico, tmp_path_factory) -> Universal:
    made = fit_universal(TEXTS[:60], reader=pico("bert"), width=8)
    return load_universal(made.save(tmp_path_factory.mktemp("space") / "universal.safetensors"))


@pytest.fixture(scope="module")
def material(space) -> Material:
    tasks = [
        ("train", _task("one", ("music", "good"), "music")),
        ("train", _task("two", ("rain", "film"), "rain")),
        ("train", _task("three yn", ("yes", "no"), "doctor")),
        ("validation", _task("four", ("letter", "class"), "town")),
    ]
    return gather(tasks, Bound(space))


@pytest.fixture(scope="module")
def trained(models, material, space) -> Generator:
    return train_generator(models["llama"], material, Bound(space), settings=PLAN)[0]


def _fingerprint(models, space, tmp_path: Path, has: str = "town", cue: str = "topic") -> Fingerprint:
    folder = tmp_path / "extractor"
    if not folder.exists():
        space.save(folder / "universal.safetensors")
    scores = torch.tensor([[0.0, -9.0] if has in text else [-9.0, 0.0] for text in TEXTS])
    answers = Answers(cue, ("letter", "class"), scores)
    return extract(models["gpt2"], TEXTS, extractor=f"bound:{folder}", answers=answers)


def _goal(has: str = "town", cue: str = "topic") -> Goal:
    return labelled_goal(
        TEXTS, cue, ("letter", "class"), ["letter" if has in text else "class" for text in TEXTS]
    )


def _right(model: Model, goal: Goal) -> float:
    with torch.no_grad():
        logits = decide(ask(model, goal), range(len(goal.texts))).logits[:, 0]
    return float((logits.argmax(1) == goal.wanted.argmax(1)).float().mean())


def test_a_training_starts_at_the_closed_form(models, material, space) -> None:
    plan = PLAN.model_copy(update={"steps": 1, "rate": 1e-12, "patience": 0})
    made = train_generator(models["llama"], material, Bound(space), settings=plan)[0]
    assert all(float(b.abs().max()) < 1e-9 for _, b in made.shared.values())
    assert made.known.shape == (3, 512) and made.spread.shape == (9,)


def test_a_training_goes_on_from_a_generator(models, material, space, trained) -> None:
    plan = PLAN.model_copy(update={"steps": 1, "rate": 1e-12})
    made = train_generator(models["llama"], material, Bound(space), settings=plan, begin=trained)[0]
    assert all(torch.equal(made.shared[name][0], a) for name, (a, _) in trained.shared.items())
    assert float((made.size - trained.size).abs()) < 1e-6 and made.card.begin == trained.version
    with pytest.raises(FingerprintError, match="go on from was made for"):
        train_generator(models["gpt2"], material, Bound(space), settings=plan, begin=trained)


@pytest.mark.parametrize(
    ("scores", "least"),
    [((0.80, 0.85, 0.855), 0.75), ((0.9, 0.9, 0.9), 0.5), ((0.7, 0.8, 0.9), 1.0), ((0.85, 0.855, 0.8), 0.5)],
)
def test_the_least_share_that_validation_does_not_miss(monkeypatch, scores, least) -> None:
    lesson = object.__new__(Lesson)
    looks = dict(zip(SHARES, scores, strict=True))
    monkeypatch.setattr(lesson, "look", lambda share: {"score": looks[share]})
    assert lesson.least_share() == (least, [{"share": at, "score": looks[at]} for at in SHARES])


def test_adapters_are_given_a_share_of_the_trained_lora(models, material, space, trained, tmp_path) -> None:
    assert [look["share"] for look in trained.card.shares] == list(SHARES) and trained.card.share in SHARES
    plan = PLAN.model_copy(update={"share": 0.25})
    part = train_generator(models["llama"], material, Bound(space), settings=plan)[0]
    assert part.card.share == 0.25 and not part.card.shares and part.version != trained.version
    given, goal = _fingerprint(models, space, tmp_path), _goal()
    made = adapter(part, models["llama"], [goal], given)
    for name, (a, b) in trained.shared.items():
        assert torch.equal(made[name][0], a) and torch.equal(made[name][1], 0.25 * b)


def test_another_share_is_no_other_training(models, material, space, tmp_path) -> None:
    halves = [PLAN.model_copy(update={"share": share}) for share in (None, 0.5)]
    made = [
        train_generator(models["llama"], material, Bound(space), settings=plan, folder=tmp_path)[0]
        for plan in halves
    ]
    assert made[1].card.share == 0.5 and torch.equal(made[0].size, made[1].size)


def test_generators_of_the_format_before_keep_all_of_their_lora(trained, tmp_path) -> None:
    folder = save_generator(trained, tmp_path / "generator")
    about = json.loads((folder / "generator.json").read_text())
    del about["share"], about["shares"]
    (folder / "generator.json").write_text(json.dumps({**about, "format": 3}))
    again = load_generator(folder)
    assert again.card.share == 1.0 and torch.equal(again.known, trained.known)
    (folder / "generator.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(FingerprintError, match="train it again"):
        load_generator(folder)
    for wrong in ({**about, "format": 4, "share": 7.0}, {**about, "format": 4, "share": None}, 5):
        (folder / "generator.json").write_text(json.dumps(wrong))
        with pytest.raises(FingerprintError, match="holds no generator"):
            load_generator(folder)


def test_keeping_plain_text_leaves_more_of_it(models, material, space) -> None:
    """Eight steps that only ask to keep plain text change it less than eight that never ask."""
    plans = [PLAN.model_copy(update={"keeping": weight, "rate": 1e-2}) for weight in (0.0, 100.0)]
    curves = [
        train_generator(models["llama"], material, Bound(space), settings=plan)[1].curve for plan in plans
    ]
    lost = [next(row["lost"] for row in reversed(curve) if "lost" in row) for curve in curves]
    assert lost[1] < lost[0]


def test_material_comes_back_from_its_file(material, tmp_path) -> None:
    again = load_material(material.save(tmp_path / "material.safetensors"))
    assert again.texts == material.texts and len(again.capabilities) == 4
    assert torch.equal(again.places, material.places) and again.extractor == material.extractor
    assert torch.equal(again.capabilities[2].answers, material.capabilities[2].answers)


def test_held_out_capabilities_never_become_material(space) -> None:
    with pytest.raises(TaskError, match="only train and validation"):
        gather([("heldout", _task("one", ("a", "b"), "music"))], Bound(space))


def test_material_of_another_space_is_refused(models, material, pico) -> None:
    other = Bound(fit_universal(TEXTS[:60], reader=pico("gpt2"), width=8))
    with pytest.raises(FingerprintError, match="again in this space"):
        train_generator(models["llama"], material, other, settings=PLAN)


def test_capabilities_that_a_target_has_no_words_for_are_left_out(models, material, space) -> None:
    odd = replace(material.capabilities[3], labels=("letter", "letter"))
    only = replace(material, capabilities=(*material.capabilities[:3], odd))
    with pytest.raises(TaskError, match="has words for"):
        train_generator(models["llama"], only, Bound(space), settings=PLAN)


def test_an_unseen_capability_arrives(models, space, trained, tmp_path) -> None:
    """The validation task's words and grouping were in no training; its adapter beats the bare target clearly."""
    fingerprint, goal = _fingerprint(models, space, tmp_path), _goal()
    made = forward(models["llama"], [goal], generator=trained, fingerprint=fingerprint, rank=4)
    assert _right(attach(models["llama"], made.factors), goal) > max(_right(models["llama"], goal), 0.6)
    sizes = norms(made.factors)
    assert all(value < 1e3 for value in sizes.values()) and all(
        sizes[writer] > 0 for writer in trained.card.writers
    )


def test_what_the_goals_want_is_not_looked_at(models, space, trained, tmp_path) -> None:
    fingerprint, goal = _fingerprint(models, space, tmp_path), _goal()
    turned = replace(goal, wanted=goal.wanted.flip(1))
    one, two = (
        forward(models["llama"], [g], generator=trained, fingerprint=fingerprint) for g in (goal, turned)
    )
    assert all(torch.equal(one.factors[name][0], two.factors[name][0]) for name in one.factors)


def test_different_capabilities_get_different_adapters(models, space, trained, tmp_path) -> None:
    made = [
        adapter(trained, models["llama"], [_goal(has)], _fingerprint(models, space, tmp_path, has))
        for has in ("town", "rain")
    ]
    for writer in trained.card.writers:
        one, two = ((b @ a).flatten() for a, b in (each[writer] for each in made))
        assert float(torch.cosine_similarity(one, two, dim=0)) < 0.99


def test_two_capabilities_lie_in_one_fingerprint(models, space, trained, tmp_path) -> None:
    both = fuse(
        [_fingerprint(models, space, tmp_path), _fingerprint(models, space, tmp_path, "rain", "kind")]
    )
    goals = [_goal(), _goal("rain", "kind")]
    first, second = ("topic: letter", "topic: class"), ("kind: letter", "kind: class")
    alone = trained.directions(_fingerprint(models, space, tmp_path), [first])
    together = trained.directions(both, [first, second])
    assert all(float(torch.cosine_similarity(alone[name], together[name], dim=0)) > 0.999 for name in first)
    made = forward(models["llama"], goals, generator=trained, fingerprint=both, rank=4)
    assert min(_right(attach(models["llama"], made.factors), goal) for goal in goals) > 0.5


def test_saved_and_loaded_it_is_the_same(trained, models, tmp_path) -> None:
    folder = save_generator(trained, tmp_path / "generator")
    again = load_generator(folder)
    assert again.version == trained.version
    assert again.card.writers == trained.card.writers and fits(again, models["llama"])
    assert torch.equal(again.spread, trained.spread) and not fits(again, models["gpt2"])
    (folder / "generator.safetensors").unlink()
    with pytest.raises(FingerprintError, match="not all there"):
        load_generator(folder)
    with pytest.raises(FingerprintError, match="holds no generator"):
        load_generator(tmp_path)


def test_a_stopped_training_ends_with_the_same_bits(models, material, space, tmp_path) -> None:
    class Stopped(Exception):
        pass

    def stop(step: int, *_: object) -> None:
        if step == 5:
            raise Stopped

    whole = train_generator(models["llama"], material, Bound(space), settings=PLAN)[0]
    with pytest.raises(Stopped):
        train_generator(models["llama"], material, Bound(space), settings=PLAN, folder=tmp_path, said=stop)
    parts = train_generator(models["llama"], material, Bound(space), settings=PLAN, folder=tmp_path)[0]
    assert parts.version == whole.version


def test_strange_fingerprints_are_refused_and_far_ones_told(models, space, trained, tmp_path) -> None:
    fingerprint = _fingerprint(models, space, tmp_path)
    other = replace(fingerprint, card=replace(fingerprint.card, extractor="pca-1"))
    with pytest.raises(FingerprintError, match="reads fingerprints of"):
        trained.check(other, models["llama"])
    with pytest.raises(FingerprintError, match="has other weights"):
        trained.check(fingerprint, models["gpt2"])
    strict = replace(trained, card=replace(trained.card, near=0.999))
    assert "lies far from the 3" in str(strict.check(fingerprint, models["llama"]))
    with pytest.raises(ConfigError, match="umaf train generator"):
        forward(models["llama"], [_goal()])
    with pytest.raises(TaskError, match="free text"):
        forward(
            models["llama"],
            [labelled_goal(TEXTS, "x", (), TEXTS)],
            generator=trained,
            fingerprint=fingerprint,
        )
