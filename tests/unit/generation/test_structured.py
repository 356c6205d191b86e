"""The structured decoder: keys that say what probes are called, alone and beside other capabilities."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from umaf.generation.decisions import ask
from umaf.generation.generator import load_generator, shipped_generator
from umaf.generation.goals import labelled_goal
from umaf.generation.structured import corrected, fitted, levelled, plainly, writers
from umaf.models import open_model
from umaf.seeds import generator


def _capability(seed: int, *, at: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts around a middle of their own; the first number tells the labels apart."""
    middle = at * torch.eye(8)[7 - seed % 4]
    x = torch.randn(80, 8, generator=generator(seed, "texts")) + middle
    said = torch.stack([x[:, 0] > 0, x[:, 0] <= 0], dim=1).float()
    return x, said


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 50), scale=st.floats(0.01, 100))
def test_keys_do_not_depend_on_the_scale_of_what_is_read(seed: int, scale: float) -> None:
    x, said = _capability(seed, at=6.0)
    [keys], [scaled] = (fitted([each], [said], torch.tensor(0.5)) for each in (x, scale * x))
    assert torch.allclose(x @ keys, scale * x @ scaled, rtol=1e-3, atol=1e-3)
    centred = (x - x.mean(0)) @ keys
    assert abs(float(centred.std()) - 1) < 0.05
    assert float((x.mean(0) @ keys).abs().max()) < 1e-3  # the mean is not seen


def test_a_capability_is_silent_on_the_probes_of_another() -> None:
    (one, said), (other, told) = _capability(0, at=6.0), _capability(1, at=6.0)
    [alone] = fitted([one], [said], torch.tensor(0.1))
    together = fitted([one, other], [said, told], torch.tensor(0.1))[0]
    right = float((((one - one.mean(0)) @ together).argmax(1) == said.argmax(1)).float().mean())
    noise_alone, noise = (float(((other - one.mean(0)) @ keys).std()) for keys in (alone, together))
    assert right > 0.8 and noise < noise_alone


def test_keys_are_silent_in_ordinary_text() -> None:
    x, said = _capability(0, at=6.0)
    plain = 3 * torch.randn(200, 8, generator=generator(3, "plain"))
    loud, quiet = (fitted([x], [said], torch.tensor(0.1), plain=rows)[0] for rows in (None, plain))
    right = float((((x - x.mean(0)) @ quiet).argmax(1) == said.argmax(1)).float().mean())
    assert right > 0.8 and float((plain @ quiet).std()) < float((plain @ loud).std())


def test_plain_reads_are_of_every_head(pico) -> None:
    for kind in ("llama", "bert", "t5"):
        model = open_model(pico(kind))
        asked = ask(model, labelled_goal(["music", "rain"], "topic", ("good", "bad"), ["good", "bad"]))
        names = writers(asked)
        heard = plainly(model, names, ["music in the hills", "rain"])
        assert set(heard) == set(names) and len({len(rows) for rows in heard.values()}) == 1
        again = plainly(model, names, ["music in the hills", "rain"])
        assert all(torch.equal(again[name], heard[name]) for name in names)


def test_a_level_is_taken_back_on_its_own_probes_alone() -> None:
    (one, _), (other, _) = _capability(0, at=6.0), _capability(1, at=6.0)
    logits = [torch.tensor([[3.0, 1.0]]).repeat(80, 1), torch.zeros(80, 2)]
    first, second = levelled([one, other], logits)
    assert torch.allclose(one.mean(0) @ first, torch.tensor([-1.0, 1.0]), atol=0.05)
    assert float((other.mean(0) @ first).abs().max()) < 0.05 and float(second.abs().max()) == 0


def test_gradients_reach_what_is_read() -> None:
    x, said = _capability(0, at=6.0)
    x.requires_grad_()
    strength = torch.tensor(0.5, requires_grad=True)
    fitted([x], [said], strength)[0].square().sum().backward()
    assert x.grad is not None and strength.grad is not None and float(x.grad.abs().sum()) > 0


def test_writers_are_of_the_last_layers(pico) -> None:
    model = open_model(pico("llama"))
    asked = ask(model, labelled_goal(["music", "rain"], "topic", ("good", "bad"), ["good", "bad"]))
    last = len(model.net.model.layers) - 1
    assert writers(asked, layers=0) == [f"model.layers.{last}.mlp.down_proj"]
    assert writers(asked) == [f"model.layers.{last}.self_attn.o_proj", f"model.layers.{last}.mlp.down_proj"]
    assert len(writers(asked, layers=2)) == 3


def test_the_shipped_generator_is_the_zoo_models_own() -> None:
    target = open_model("zoo:llama-1m")
    folder = shipped_generator(target)
    assert folder is not None
    own = load_generator(folder)
    assert own.card.capabilities >= 256 and own.card.settings["steps"] > 0
    assert set(own.shared) | set(own.card.writers) <= {name for name, _ in target.net.named_modules()}


def test_a_correction_takes_back_what_went_wrong_and_keeps_plain_text_silent() -> None:
    x, said = _capability(0, at=6.0)
    plain = 3 * torch.randn(200, 8, generator=generator(3, "plain"))
    # The target leans to the first label whatever it reads, and turns a third of the answers.
    logits = 2 * said + torch.tensor([1.5, 0.0]) - 4 * said * (torch.arange(len(x)) % 3 == 0)[:, None]
    loud, [keys] = (
        corrected([x], [said], [logits], torch.tensor(0.1), size=torch.tensor(3.0), plain=rows)
        for rows in (None, plain)
    )
    before, after = (
        torch.nn.functional.cross_entropy(each, said.argmax(1)) for each in (logits, logits + x @ keys)
    )
    assert after < 0.9 * before
    assert float((plain @ keys).std()) < float((plain @ loud[0]).std())


def test_nothing_is_corrected_where_everything_is_right() -> None:
    x, said = _capability(0, at=6.0)
    [keys] = corrected([x], [said], [40 * said], torch.tensor(0.1), size=torch.tensor(3.0))
    assert float((x @ keys).abs().max()) < 1e-6


def test_one_capability_is_not_corrected_on_the_probes_of_another() -> None:
    (one, said), (other, told) = _capability(0, at=6.0), _capability(1, at=6.0)
    wrong = [torch.zeros_like(said), 40 * told]
    together = corrected([one, other], [said, told], wrong, torch.tensor(0.1), size=torch.tensor(3.0))
    [alone] = corrected([one], [said], wrong[:1], torch.tensor(0.1), size=torch.tensor(3.0))
    assert float((other @ together[0]).std()) < float((other @ alone).std())
    assert float((other @ together[1]).abs().max()) < 1e-6
