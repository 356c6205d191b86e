"""The two one-shot closed forms: places of two models that meet, residual shifts, and output shifts."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from umaf.adapters import attach, lora_modules, weight_of
from umaf.errors import ModelError, ProbeError
from umaf.generation.decisions import Decisions, ask, decide, divergence
from umaf.generation.goals import answer_goal, label_goal
from umaf.generation.outputs import FLOOR, last_writer, output_shift, pulled_back
from umaf.generation.places import pair, read
from umaf.generation.residual import residual_shift
from umaf.generation.watch import watched
from umaf.models import bare, fresh_classifier, open_model
from umaf.readout import answer_logits
from umaf.seeds import generator

TEXTS = tuple(
    f"{first} {middle} {last}"
    for first in ("the film", "a kind doctor", "rain", "the letter")
    for middle in ("was good and", "fell on", "about music in")
    for last in ("the hills", "a small town", "bad music")
)
LABELS = ("positive", "negative")
TARGETS = ("llama", "gpt2", "mixtral", "bert", "t5", "gpt_neox", "opt")


def _hooks(model) -> int:
    return sum(len(module._forward_hooks) for module in bare(model.net).modules())


def _tuned(model, size=0.3):
    """A copy whose linear modules were moved a little in few directions."""
    expert = replace(model, net=copy.deepcopy(model.net))
    with torch.no_grad():
        for name in lora_modules(expert):
            weight, noise = weight_of(expert, name), generator(1, "tuned", name)
            delta = torch.randn(weight.shape[0], 2, generator=noise) @ torch.randn(
                2, weight.shape[1], generator=noise
            )
            weight.add_(size * weight.norm() / delta.norm() * delta)
    return expert


def _wanted(count: int) -> torch.Tensor:
    signs = torch.tensor([1.0 if "good" in text else -1.0 for text in TEXTS[:count]])
    return torch.stack([signs, -signs], dim=1).log_softmax(-1)


def _divergence(model, goal) -> float:
    one = ask(model, goal)
    with torch.no_grad():
        return float(divergence(decide(one, range(len(one)))).mean())


def test_tokens_of_two_models_are_paired_with_their_answers(pico) -> None:
    source, target = open_model(pico("bert")), open_model(pico("llama"))
    there, here = pair(source, target, TEXTS[:3], "sentiment")
    assert len(there.text) == len(here.text) and torch.equal(there.text, here.text)
    for text in range(3):
        last = (here.text == text) & (here.token == here.batch.last[text])
        assert there.token[last].tolist() == [int(there.batch.last[text])]
    classifier = fresh_classifier(open_model(pico("bert"), head="base"), LABELS)
    there, here = pair(classifier, target, TEXTS[:1], "sentiment")
    assert int(there.token[here.token == here.batch.last[0]]) == 0, "its answer is read at the first token"


def test_batches_do_not_change_what_is_read(pico) -> None:
    model = open_model(pico("bert"))
    places, _ = pair(model, model, TEXTS[:5])
    writer = lora_modules(model)[-1]
    for whole, parts in zip(
        read(model, places, [writer]), read(model, places, [writer], batch_size=2), strict=True
    ):
        assert torch.allclose(whole[writer], parts[writer], atol=1e-5)


@pytest.mark.parametrize("architecture", TARGETS)
def test_shifts_of_hidden_states_arrive_in_every_architecture(architecture, pico) -> None:
    base, target = open_model(pico("qwen3")), open_model(pico(architecture))
    expert = _tuned(base)
    factors = residual_shift(expert, base, target, TEXTS, cue="sentiment", rank=4)
    assert len(factors) == target.layers and set(factors) <= set(lora_modules(target))
    ending = {"mixtral": "o_proj", "llama": "down_proj", "bert": "output.dense", "t5": "DenseReluDense.wo"}
    assert all(name.endswith(ending.get(architecture, "")) for name in factors)
    assert _hooks(target) == 0 and _hooks(base) == 0
    adapted = attach(target, factors)
    places, _ = pair(target, target, TEXTS)
    changed, before = (read(model, places, [next(iter(factors))])[1] for model in (adapted, target))
    assert not torch.allclose(*(next(iter(states.values())) for states in (changed, before)))
    nothing = residual_shift(base, base, target, TEXTS, cue="sentiment", rank=4)
    assert all(not (b @ a).any() for a, b in nothing.values())


def test_a_norm_behind_the_writer_is_undone(pico) -> None:
    """BERT's own shift, at rank and rows enough, must come back although each block ends in a LayerNorm."""
    base = open_model(pico("bert"))
    expert = replace(base, net=copy.deepcopy(base.net))
    name = [name for name in lora_modules(base) if name.endswith("1.output.dense")][-1]
    weight = weight_of(expert, name)
    noise = torch.randn(weight.shape, generator=generator(0, "norm")) * 0.02
    with torch.no_grad():
        weight.add_(noise)
    factors = residual_shift(expert, base, base, TEXTS, rank=weight.shape[0], ridge=1e-6)
    places, _ = pair(base, base, TEXTS)
    layer = name.removesuffix(".output.dense")
    wanted, found, bare_target = (
        read(model, places, [layer])[1][layer] for model in (expert, attach(base, factors), base)
    )
    assert (found - wanted).norm() < 0.1 * (bare_target - wanted).norm()


def test_residual_shift_refuses_what_is_not_the_base(pico) -> None:
    source, other = open_model(pico("gpt2")), open_model(pico("llama"))
    with pytest.raises(ModelError, match="was fine-tuned from"):
        residual_shift(source, other, other, TEXTS)


def test_long_probes_are_refused_or_cut(pico) -> None:
    base, target = open_model(pico("llama")), open_model(pico("gpt2"))
    long = [*TEXTS[:3], "the film was good " * 60]
    with pytest.raises(ProbeError, match="room for"):
        residual_shift(base, base, target, long)
    assert residual_shift(_tuned(base), base, target, long, cue="sentiment", truncate=True)


@pytest.mark.parametrize("head", ["auto", "base"])
@pytest.mark.parametrize("architecture", TARGETS)
def test_answers_come_nearer_in_every_architecture(architecture, head, pico) -> None:
    target = open_model(pico(architecture), head=head)
    goal = label_goal(TEXTS, "sentiment", LABELS, _wanted(len(TEXTS)))
    factors = output_shift(target, [goal], rank=4)
    ((name, (a, b)),) = factors.items()
    assert a.shape[0] == b.shape[1] == 4 and name in lora_modules(target)
    assert _hooks(target) == 0
    assert _divergence(attach(target, factors), goal) < 0.7 * _divergence(target, goal)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_written_answers_come_nearer(architecture, pico) -> None:
    target = open_model(pico(architecture))
    goal = answer_goal(TEXTS, "first", [text.split()[0] for text in TEXTS])
    factors = output_shift(target, [goal], rank=8)
    adapted = attach(target, factors)
    assert _among_rivals(adapted, goal) < 0.8 * _among_rivals(target, goal)
    assert _divergence(adapted, goal) < _divergence(target, goal)


def _among_rivals(model, goal) -> float:
    """Cross-entropy of the wanted tokens against the three strongest others, summed per text."""
    with torch.no_grad():
        logits, targets = answer_logits(model, goal.texts, goal.answers, goal.cue)
    wanted = logits.gather(1, targets[:, None])
    rivals = logits.scatter(1, targets[:, None], -torch.inf).topk(3, dim=1).values
    few = torch.cat([wanted, rivals], dim=1)
    return float(-few.log_softmax(1)[:, 0].sum() / len(goal.texts))


def test_answers_that_are_right_already_are_left_alone(pico) -> None:
    target = open_model(pico("llama"))
    goal = label_goal(TEXTS, "sentiment", LABELS, _wanted(len(TEXTS)))
    with torch.no_grad():
        present = decide(ask(target, goal), range(len(TEXTS))).logits[:, 0]
    factors = output_shift(target, [label_goal(TEXTS, "sentiment", LABELS, present)])
    assert all((b @ a).abs().max() < 1e-4 for a, b in factors.values())


def test_the_pull_back_is_the_pseudo_inverse_of_the_label_rows(pico) -> None:
    """LLaMA: J = rows of the unembedding, divided by the norm's root mean square, without what the norm removes."""
    target = open_model(pico("llama"))
    goal = label_goal(TEXTS[:4], "sentiment", LABELS, _wanted(4))
    one = ask(target, goal)
    writer = last_writer(one)
    assert writer == "model.layers.1.mlp.down_proj"
    with watched(target, [writer, "model.norm"], graph=True) as seen:
        decisions = decide(one, range(4))
    shift, used = pulled_back(decisions, seen[writer][1])
    assert used.sum(1).tolist() == [1] * 4 and used.nonzero()[:, 1].tolist() == one.batch.last.tolist()
    stream = seen["model.norm"][0][used]
    spread = stream.square().mean(-1, keepdim=True).sqrt()
    rows = target.net.lm_head.weight.detach()[list(one.readout.tokens)]
    (difference,) = (rows[:1] - rows[1:]).split(1)
    unit = stream / stream.norm(dim=-1, keepdim=True)
    jacobian = (difference - (unit @ difference.T) * unit) / spread
    lack = (decisions.wanted.clamp_min(FLOOR).log() - decisions.logits.log_softmax(-1)).detach()[:, 0]
    gap = lack[:, :1] - lack[:, 1:]
    # J J^T of the two centred logits has the trace |j|^2 / 2, of which a hundredth of the mean damps.
    expected = gap * jacobian / (jacobian.square().sum(-1, keepdim=True) * 1.005)
    assert torch.allclose(shift[used], expected, rtol=1e-3, atol=1e-4)


def test_no_shift_is_asked_where_no_decision_is(pico) -> None:
    target = open_model(pico("llama"))
    goal = answer_goal(TEXTS[:2], "first", ["the", "a kind doctor"])
    one = ask(target, goal)
    with watched(target, [last_writer(one)], graph=True) as seen:
        decisions = decide(one, range(2))
    masked = Decisions(decisions.logits, decisions.wanted, torch.zeros_like(decisions.mask))
    shift, used = pulled_back(masked, next(iter(seen.values()))[1])
    assert not used.any() and not shift.any()


def test_watching_ends_when_a_pass_fails(pico) -> None:
    target = open_model(pico("llama"))
    with pytest.raises(KeyboardInterrupt), watched(target, lora_modules(target)):
        assert _hooks(target) == len(lora_modules(target))
        raise KeyboardInterrupt
    assert _hooks(target) == 0


def test_probes_left_out_choose_the_ridge_or_that_nothing_is_done(pico) -> None:
    target = open_model(pico("llama"))
    goal = label_goal(TEXTS, "sentiment", LABELS, _wanted(len(TEXTS)))
    weak, strong, best = (
        output_shift(target, [goal], ridges=ridges, rounds=1, check=[goal])
        for ridges in ((1e-3,), (10.0,), (10.0, 1e-3))
    )
    (name,) = best
    assert torch.equal(best[name][0], weak[name][0]) and not torch.equal(best[name][0], strong[name][0])
    with torch.no_grad():
        present = decide(ask(target, goal), range(len(TEXTS))).logits[:, 0]
    stay = label_goal(TEXTS, "sentiment", LABELS, present)
    assert all(not (b @ a).any() for a, b in output_shift(target, [goal], check=[stay]).values())
