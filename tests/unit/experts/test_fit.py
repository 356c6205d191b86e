"""The training loop: it learns, stops when it must, goes on to the same bits, and survives what goes wrong."""

from __future__ import annotations

import json

import pytest
import torch

from umaf.errors import ConfigError, ExpertError, NumericalError, OutputError, TaskError
from umaf.experts import fit as fit_module
from umaf.experts.decompose import decompose, svf_modules
from umaf.experts.expert import load_expert
from umaf.experts.fit import Work, batch_of, fit, fitting, out_of_memory, rate_at
from umaf.experts.policy import svf
from umaf.experts.settings import TrainSettings
from umaf.experts.train import reward_name, state_folder, train_expert, train_ia3, train_lora
from umaf.models import open_model
from umaf.tasks.task import Example, Task

SETTINGS = TrainSettings(
    steps=6, rate=0.1, prompts=4, samples=4, max_new_tokens=4, validate_every=3, validation=6, keep_every=1, kl=0.01,
    reward="exact",
)  # fmt: skip
WORDS = ("rain", "town", "film", "letter", "doctor", "music", "small", "kind")


def toy(count: int = 16) -> Task:
    examples = tuple(Example(f"{one} {two} {i}", one) for i, one in enumerate(WORDS) for two in WORDS[:3])[
        :count
    ]
    return Task("toy", "function", (), "answer", examples, examples[:8], examples[:4], "here", "none")


@pytest.fixture(scope="module")
def model(pico):
    return open_model(pico("gpt2"))


@pytest.fixture
def policy(model):
    return svf(model, decompose(model, svf_modules(model)))


def vowels(answers, wanted):
    """Reward answers for the letter e: something a random model can learn."""
    return [1.0 if "e" in answer else -1.0 for answer in answers]


def work_of(policy, folder, settings=SETTINGS, judge=vowels, **more):
    told = []
    return Work(policy, toy(), judge, settings, folder, {"of": "toy"}, told.append, **more), told


def test_rewards_are_learnt(policy, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 25, "rate": 0.3, "samples": 16, "kl": 0.0, "patience": 0})
    work, _ = work_of(policy, tmp_path, settings)
    fitted = fit(work)
    rewards = [entry["reward"] for entry in fitted.curve if "reward" in entry]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    assert fitted.score >= fitted.curve[0]["validation_reward"]


def test_next_token_lowers_the_loss(policy, tmp_path):
    settings = SETTINGS.model_copy(update={"objective": "next_token", "steps": 20})
    work, _ = work_of(policy, tmp_path, settings)
    losses = [entry["loss"] for entry in fit(work).curve if "loss" in entry]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


def test_an_interrupted_training_goes_on_to_the_same_bits(model, tmp_path):
    def fresh():
        return svf(model, decompose(model, svf_modules(model)))

    whole, _ = work_of(fresh(), tmp_path / "whole")
    wanted = fit(whole)

    def stop(step, numbers):
        if step == 4:
            raise KeyboardInterrupt

    cut, _ = work_of(fresh(), tmp_path / "cut", watch=stop)
    with pytest.raises(KeyboardInterrupt):
        fit(cut)
    again, told = work_of(fresh(), tmp_path / "cut")
    found = fit(again)
    assert "Going on at step 4" in told[0]
    assert found.curve == wanted.curve
    assert all(torch.equal(found.parameters[name], wanted.parameters[name]) for name in wanted.parameters)
    for name, p in again.policy.parameters.items():
        assert torch.equal(p, whole.policy.parameters[name])


def test_the_best_by_validation_is_kept(policy, tmp_path, monkeypatch):
    scores = iter([0.2, 0.9, 0.1, 0.1, 0.1])
    seen = []

    def faked(policy, cue, examples, judge, settings, **more):
        seen.append({name: p.detach().clone() for name, p in policy.parameters.items()})
        return [next(scores)] * len(examples)

    monkeypatch.setattr(fit_module, "rewards_of", faked)
    work, _ = work_of(policy, tmp_path, SETTINGS.model_copy(update={"steps": 30, "patience": 3}))
    fitted = fit(work)
    assert fitted.steps == 12 and "3 looks" in fitted.ended
    assert all(torch.equal(fitted.parameters[name], seen[1][name]) for name in seen[1])
    assert not all(torch.equal(seen[1][name], seen[4][name]) for name in seen[1])


@pytest.mark.parametrize(("value", "why"), [(-1.0, "every answer is wrong"), (1.0, "every answer is right")])
def test_equal_rewards_stop_the_training(policy, tmp_path, value, why):
    settings = SETTINGS.model_copy(update={"flat_steps": 3, "steps": 50})
    work, _ = work_of(policy, tmp_path, settings, judge=lambda answers, wanted: [value] * len(answers))
    with pytest.raises(ExpertError, match=why) as caught:
        fit(work)
    assert "nothing can be learned" in str(caught.value)


def test_nan_stops_and_keeps_the_last_good_state(policy, tmp_path, monkeypatch):
    real, calls = fit_module.reinforce_loss, []

    def broken(*args, **named):
        calls.append(1)
        loss, apart, chosen = real(*args, **named)
        return (loss * float("nan") if len(calls) == 3 else loss), apart, chosen

    monkeypatch.setattr(fit_module, "reinforce_loss", broken)
    work, _ = work_of(policy, tmp_path)
    with pytest.raises(NumericalError, match="after step 2"):
        fit(work)
    assert all(torch.isfinite(p).all() for p in policy.parameters.values())
    monkeypatch.setattr(fit_module, "reinforce_loss", real)
    again, told = work_of(policy, tmp_path)
    assert fit(again).steps == 6 and "step 2" in told[0]


def test_chances_that_are_nan_stop_with_one_sentence(pico, tmp_path):
    broken = open_model(pico("gpt2"))
    policy = svf(broken, decompose(broken, svf_modules(broken)))
    with torch.no_grad():
        broken.net.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(
        NumericalError, match="chances of tokens that are NaN or infinite after step 0"
    ) as caught:
        fit(work_of(policy, tmp_path)[0])
    assert "\n" not in str(caught.value)


def test_a_reward_that_fails_late_loses_no_step(policy, tmp_path):
    asked = []

    def fails(answers, wanted):
        asked.append(1)
        if len(asked) == 7:  # a look, three steps, a look, a step, and the next one
            raise ExpertError("The reward failed.")
        return vowels(answers, wanted)

    settings = SETTINGS.model_copy(update={"keep_every": 100})
    with pytest.raises(ExpertError, match="failed"):
        fit(work_of(policy, tmp_path, settings, judge=fails)[0])
    work, told = work_of(policy, tmp_path, settings)
    assert fit(work).steps == 6 and "Going on at step 4" in told[0]


def test_a_state_that_cannot_be_written_is_one_sentence(policy, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="The state of the training cannot be written") as caught:
        fit(work_of(policy, tmp_path / "taken")[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, SystemExit])
def test_a_step_cut_while_it_moves_parameters_is_not_kept(model, tmp_path, monkeypatch, stopped):
    def fresh():
        return svf(model, decompose(model, svf_modules(model)))

    settings = SETTINGS.model_copy(update={"passes": 2, "clip": 0.2})
    wanted = fit(work_of(fresh(), tmp_path / "whole", settings)[0])
    work, _ = work_of(fresh(), tmp_path / "cut", settings)
    real, calls = fit_module._update, []

    def cut(work, state):
        calls.append(1)
        if len(calls) == 6:  # the second pass of the third step
            raise stopped
        return real(work, state)

    monkeypatch.setattr(fit_module, "_update", cut)
    with pytest.raises(stopped):
        fit(work)
    monkeypatch.setattr(fit_module, "_update", real)
    again, told = work_of(fresh(), tmp_path / "cut", settings)
    found = fit(again)
    assert "Going on at step 2" in told[0] and found.curve == wanted.curve
    assert all(torch.equal(found.parameters[name], wanted.parameters[name]) for name in wanted.parameters)


def test_out_of_memory_halves_the_batch_and_tells(policy, tmp_path, monkeypatch):
    real, sizes = fit_module.rollout, []

    def small(policy, examples, *args, **named):
        sizes.append(len(examples))
        if len(examples) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return real(policy, examples, *args, **named)

    monkeypatch.setattr(fit_module, "rollout", small)
    work, told = work_of(policy, tmp_path)
    assert fit(work).steps == 6
    assert sizes[:3] == [4, 2, 2] and 4 not in sizes[1:]
    assert told == ["Memory ran out at step 0; going on with 2 prompts at a time."]


def test_out_of_memory_on_validation_halves_it_and_tells(policy, tmp_path, monkeypatch):
    real, sizes = fit_module.answered, []

    def small(model, texts, cue, *, batch_size, **named):
        sizes.append(batch_size)
        if min(batch_size, len(texts)) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, texts, cue, batch_size=batch_size, **named)

    monkeypatch.setattr(fit_module, "answered", small)
    work, told = work_of(policy, tmp_path)
    assert fit(work).steps == 6 and sizes[:3] == [128, 3, 1] and set(sizes[2:]) == {1}
    assert told[0] == "Memory ran out on validation; going on with 3 prompts at a time." and len(told) == 2

    def never(*args, **named):
        raise MemoryError

    monkeypatch.setattr(fit_module, "answered", never)
    with pytest.raises(ExpertError, match="single validation prompt"):
        fit(work_of(policy, tmp_path / "never")[0])


def test_out_of_memory_with_one_prompt_is_an_error(policy, tmp_path, monkeypatch):
    def never(*args, **named):
        raise MemoryError

    monkeypatch.setattr(fit_module, "rollout", never)
    work, _ = work_of(policy, tmp_path)
    with pytest.raises(ExpertError, match="does not fit into memory"):
        fit(work)


def test_another_error_is_no_lack_of_memory(policy, tmp_path, monkeypatch):
    def never(*args, **named):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(fit_module, "rollout", never)
    work, _ = work_of(policy, tmp_path)
    with pytest.raises(RuntimeError, match="shapes"):
        fit(work)
    assert out_of_memory(RuntimeError("CUDA out of memory")) and not out_of_memory(
        ValueError("out of memory")
    )


def test_a_batch_in_parts_has_the_gradient_of_the_whole(model, tmp_path):
    found = []
    for rows in (4, 2):
        policy = svf(model, decompose(model, svf_modules(model)))
        settings = SETTINGS.model_copy(update={"objective": "next_token", "steps": 1, "grad_clip": 1e6})
        work, _ = work_of(policy, tmp_path / str(rows), settings)
        state = fit_module.fresh_state(policy.parameters, rows=rows)
        numbers = fit_module.take_step(work, state)
        found.append((numbers["loss"], numbers["gradient"]))
    # Answers differ in length, so means of parts are near the mean of the whole, not equal to it.
    assert found[0][0] == pytest.approx(found[1][0], rel=0.1)


def test_a_state_of_another_training_is_refused(policy, tmp_path):
    work, _ = work_of(policy, tmp_path)
    fit(work)
    other = Work(policy, toy(), vowels, SETTINGS, tmp_path, {"of": "another"})
    with pytest.raises(ConfigError, match="another of"):
        fit(other)
    (tmp_path / "state.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="cannot be read"):
        fit(work)


def test_prompts_longer_than_the_window(model):
    long = Example("rain " * 60, "rain")
    task = toy()
    task = Task(
        task.name,
        task.kind,
        (),
        task.cue,
        (*task.train, long),
        task.validation,
        task.test,
        task.source,
        task.licence,
    )
    settings = SETTINGS.model_copy(update={"max_new_tokens": 90})
    told = []
    with pytest.raises(TaskError, match="1 of 17 train prompts"):
        fitting(model, task, settings, told.append)
    left = fitting(model, task, settings.model_copy(update={"too_long": "drop"}), told.append)
    assert len(left.train) == 16 and "1 of 17" in told[0]
    with pytest.raises(TaskError, match="no validation examples"):
        fitting(model, Task("x", "function", (), "a", task.test, (), (), "", ""), SETTINGS, told.append)


def test_every_example_is_asked_once_a_round():
    task, settings = toy(16), SETTINGS.model_copy(update={"prompts": 4})
    first = [one.text for step in range(4) for one in batch_of(task, step, settings)]
    second = [one.text for step in range(4, 8) for one in batch_of(task, step, settings)]
    assert sorted(first) == sorted(second) == sorted(one.text for one in task.train) and first != second


def test_the_rate_warms_up_and_falls():
    settings = TrainSettings(steps=100, rate=1.0)
    rates = [rate_at(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == 1.0 and 0.09 < rates[-1] < 0.12


def test_an_expert_is_written_whole_and_its_state_goes(model, tmp_path):
    folder = tmp_path / "expert"
    settings = SETTINGS.model_copy(update={"steps": 3, "reward": "label"})
    labelled = Task("toy", "classification", WORDS, "word", toy().train, toy().validation, (), "", "")
    told = []
    expert = train_expert(
        model,
        labelled,
        settings=settings.model_copy(update={"objective": "next_token"}),
        folder=folder,
        tell=told.append,
    )
    back = load_expert(folder)
    assert (
        back.card.objective == "next_token" and back.card.reward == "label" and back.card.data["train"] == 16
    )
    assert len(back.card.curves["loss"]) == 3 and back.card.curves["validation_step"] == [0, 3]
    assert all(torch.equal(back.z[name], expert.z[name]) for name in expert.z)
    assert not state_folder(folder).exists()
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 20_000
    json.loads((folder / "expert.json").read_text())
    with pytest.raises(OutputError, match="already exists"):
        train_expert(model, labelled, settings=settings, folder=folder)


def test_lora_and_ia3_are_trained_by_the_same_loop(pico, tmp_path):
    model = open_model(pico("llama"))
    settings = SETTINGS.model_copy(update={"objective": "next_token", "steps": 4, "rank": 2, "rate": 0.02})
    factors, fitted = train_lora(model, toy(), settings=settings, folder=tmp_path / "lora")
    assert len(fitted.curve) == 4 + 3 and all(a.shape[0] == 2 for a, _ in factors.values())
    policy, fitted = train_ia3(model, toy(), settings=settings, folder=tmp_path / "ia3")
    assert all(torch.equal(policy.parameters[name], best) for name, best in fitted.parameters.items())


def test_a_task_without_a_reward_is_told_to_name_one():
    with pytest.raises(ConfigError, match="--reward"):
        reward_name(toy(), TrainSettings())
