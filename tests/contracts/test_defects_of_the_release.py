"""Every known defect of Transformer-squared's released code, as something that does not happen here.

What mixing promises for any numbers is in ``test_mixing_experts.py``; here each defect has one test by its name.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import adapt_unseen
from benchmarks.adapt import task_of
from benchmarks.adapt_plan import SEEDS, TASKS, UNSEEN
from tests.unit.dispatch.conftest import make_expert
from umaf import dispatch, experts, search, serve
from umaf.dispatch.classifier import naming_task
from umaf.dispatch.shelf import open_shelf
from umaf.experts.decompose import decompose, svf_modules
from umaf.experts.expert import load_expert
from umaf.experts.policy import svf
from umaf.experts.reinforce import Drawn, reinforce_loss, rollout
from umaf.experts.rollout import likelihood
from umaf.experts.settings import TrainSettings
from umaf.experts.train import train_expert
from umaf.models import open_model
from umaf.search import cross_entropy
from umaf.tasks.task import Example, Task

WORDS = ("rain", "town", "film", "letter")
TEXTS = ("the film was good", "rain fell on the hills")


class Untouched(tuple):
    """Examples that nobody may look at."""

    def _looked(self, *_):
        raise AssertionError("the test split was looked at")

    __iter__ = __getitem__ = __len__ = __contains__ = _looked


@pytest.fixture(scope="module")
def base(pico):
    return open_model(pico("llama"))


@pytest.fixture(scope="module")
def shelf(base):
    return open_shelf(base, [make_expert(base, "sums"), make_expert(base, "lists")])


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory, request):
    """An expert of a training in which nobody looked at the test split, and what was written to stdout meanwhile."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture()
    capture.resume_global_capture()
    folder, told = tmp_path_factory.mktemp("release") / "expert", []
    asked = tuple(Example(f"{one} {two}", one) for one in WORDS for two in WORDS)
    task = Task("toy", "classification", WORDS, "word", asked, asked[:4], Untouched(), "here", "none")
    settings = TrainSettings(
        steps=3,
        prompts=4,
        samples=2,
        max_new_tokens=2,
        validation=4,
        validate_every=1,
        objective="next_token",
    )
    train_expert(base, task, settings=settings, folder=folder, tell=told.append)
    return load_expert(folder), capture.read_global_capture()[0]


def logits(model, text=TEXTS[0]):
    with torch.no_grad():
        return model.net(**model.tokenizer(text, return_tensors="pt")).logits


def changed(shelf, weights):
    with shelf.applied(torch.tensor([weights], dtype=torch.float64)) as model:
        return logits(model)


def test_a_mixture_of_one_expert_is_that_expert(base, shelf):
    """The release mixes before the sigmoid: a mixture of one expert changes the weights 18.7 times as much."""
    expert, bare = shelf.experts[0], logits(base)
    dense = []
    for name, z in expert.z.items():
        weight, one = base.net.get_submodule(name).weight, shelf.factored[name]
        dense.append((weight, weight.detach().clone(), (one.u * (one.s * z)) @ one.vh))
    try:
        for weight, _, new in dense:
            weight.data.copy_(new)
        wanted = logits(base)
    finally:
        for weight, old, _ in dense:
            weight.data.copy_(old)
    found = changed(shelf, [1.0, 0.0])
    assert (wanted - bare).norm() > 1e-2
    assert float((found - bare).norm() / (wanted - bare).norm()) == pytest.approx(1, rel=1e-3)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_b_weights_that_add_up_to_nothing_divide_by_nothing(base, shelf):
    """The release divides by the sum of the weights, which is 0/0 where that sum is 0."""
    assert torch.equal(changed(shelf, [0.0, 0.0]), logits(base))
    assert torch.isfinite(changed(shelf, [1.0, -1.0])).all()


def test_c_training_keeps_the_best_without_a_look_at_the_test(trained):
    """The release keeps the checkpoint that is best on what it reports; here looking at the test split raises."""
    expert, _ = trained
    assert expert.card.curves["validation_step"] == [0, 1, 2, 3]
    assert expert.card.scores["validation"] == max(expert.card.curves["validation"])


def test_c_shots_and_choices_never_come_from_the_test(monkeypatch):
    """The release searches on a part of the split it reports; here every stage works on train and validation alone."""
    sides = {
        side: tuple(Example(f"{side} {i}", "x") for i in range(200))
        for side in ("train", "validation", "test")
    }
    cell = object.__new__(adapt_unseen.Cell)
    vars(cell).update(
        name="toy", seed=0, reward="exact", shelf=SimpleNamespace(names=("sums", "lists")), test=sides["test"],
        task=Task("toy", "function", (), "answer", sides["train"], sides["validation"], sides["test"], "", ""),
    )  # fmt: skip
    learnt: list[Example] = []
    monkeypatch.setattr(adapt_unseen, "by_name", lambda *_, **__: None)
    for name, give in {
        "material": lambda self, examples, **_: learnt.extend(examples),
        "best_on": lambda self, examples: learnt.extend(examples) or "sums",
        "_mixed": lambda self, name, material, found: None,
        "correct": lambda self, decision: ([True], 0.0),
    }.items():
        monkeypatch.setattr(adapt_unseen.Cell, name, give)
    for stage in adapt_unseen.SOURCES.keys() - {"named"}:
        before = len(learnt)
        getattr(cell, stage)({"correct": {}, "seconds": {}, "chosen": {}, "weights": {}})
        assert len(learnt) > before
    assert {one.text.split()[0] for one in learnt} == {"train", "validation"}


def test_d_dispatchers_learn_from_no_text_that_is_asked_later(base):
    """The release trains its classifier on ARC-Challenge's test prompts, and reports ARC-Challenge."""
    known = {text for texts in adapt_unseen.named_texts(SEEDS[0]).values() for text in texts}
    asked = {one.text for name in (*TASKS, *UNSEEN) for one in task_of(name, SEEDS[0]).test}
    assert len(known) > 100 and len(asked) > 500 and not known & asked
    texts = {name: [f"{name} {i}" for i in range(10)] for name in ("sums", "lists")}
    task = naming_task(base, texts, names=("sums", "lists"))
    assert not {one.text for one in task.train} & {one.text for one in task.validation} and task.test == ()


def test_e_attention_can_be_trained_too(base):
    """The release scales MLP weights alone."""
    kinds = {name.rpartition(".")[2] for name in svf_modules(base)}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_e_answers_are_drawn_and_not_the_likeliest_ones(base):
    """The release trains on greedy answers, among which there is nothing to compare."""
    policy = svf(base, decompose(base, svf_modules(base, ["mlp"])))
    settings = TrainSettings(samples=8, max_new_tokens=6)
    found = rollout(
        policy, [Example(TEXTS[0], "x")], "answer", lambda a, _: [0.0] * len(a), settings=settings, step=0
    )
    assert len(set(found.answers.texts)) > 4


def test_e_the_divergence_is_of_the_new_from_the_base(base):
    """The release computes KL(base || new) where the paper writes KL(new || base)."""
    policy = svf(base, decompose(base, svf_modules(base, ["mlp"])))
    with torch.no_grad():
        for parameter in policy.parameters.values():
            parameter.add_(4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    settings = TrainSettings(samples=4, max_new_tokens=4, kl=0.1)
    one = rollout(
        policy, [Example(TEXTS[0], "x")], "answer", lambda a, _: [0.0] * len(a), settings=settings, step=0
    )
    _, apart, _ = reinforce_loss(policy, Drawn(one.prompts, one.answers, one.rewards), settings=settings)
    with torch.no_grad():
        bare = likelihood(base, one.prompts, one.answers)
        with policy.active():
            new = likelihood(base, one.prompts, one.answers)
    mask = one.answers.mask
    right, wrong = (float((p.exp() * (p - q)).sum(-1)[mask].mean()) for p, q in ((new, bare), (bare, new)))
    assert abs(right - wrong) > 1e-4
    assert abs(float(apart) - right) < 0.05 * abs(right - wrong)


def sources():
    for room in (experts, dispatch, search, serve):
        for path in sorted(Path(str(room.__file__)).parent.glob("*.py")):
            if path.stem != "sandbox_server":  # a process of its own, whose stdout is how it answers
                yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_e_no_argument_is_swallowed():
    """The release's search takes the base's weights by **kwargs and drops them; a misspelt argument is an error."""
    with pytest.raises(TypeError, match="original_model_params"):
        cross_entropy(lambda found: [], [0.0], original_model_params={})  # pyright: ignore[reportCallIssue]
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None:
                # These pass everything on: to a card that refuses what it does not know, to a module, to uvicorn.
                assert node.name in {"new_card", "forward", "__init__"}, f"{path.stem}.{node.name}"
    assert "fields" in inspect.signature(experts.new_card).parameters


def test_e_nothing_is_printed_by_the_way(trained):
    """The release prints "lalala" from the inside of its training."""
    assert trained[1] == ""
    calls = [
        f"{path.stem}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_f_curves_are_kept_by_their_whole_names(trained):
    """The release adds a name to its list of metrics letter by letter."""
    expert, _ = trained
    assert set(expert.card.curves) == {"gradient", "loss", "validation_step", "validation"}
    assert set(expert.card.scores) == {"validation", "validation_before", "steps"}
