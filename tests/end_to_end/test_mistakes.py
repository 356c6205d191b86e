"""What goes wrong for users: one sentence, exit 1, nothing half-written, no hook left."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import AutoConfig, ViTConfig, ViTModel

import umaf.models
import umaf.readout.scores
from tests.texts import CUE, LABELS, PROBES
from umaf.cli import main
from umaf.generation.solve import Solved
from umaf.models import open_model, weights_hash

LONG = "the film was good and " * 60


class Place:
    """A folder with probes, and a shell in it."""

    def __init__(self, folder: Path, pico, capsys) -> None:
        self.folder, self.pico, self.capsys = folder, pico, capsys
        self.models: list = []
        self.write("probes.txt", PROBES)

    def write(self, name, texts):
        (self.folder / name).write_text("\n".join(texts) + "\n")

    def run(self, *words):
        self.capsys.readouterr()  # what saving a model printed
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = self.capsys.readouterr()
        return end.value.code, shown.out, shown.err

    def transfer(self, *more, source=None, target=None, probes="probes.txt"):
        source, target = source or self.pico("bert"), target or self.pico("llama")
        words = ["transfer", "--source", source, "--target", target, "--probes", probes]
        return self.run(
            *words, "--labels", ",".join(LABELS), "--cue", CUE, "--rank", 2, "--out", "adapter", *more
        )

    def refuses(self, *words, run=None, **given):
        """The command says these words in one line, exits with 1, and leaves everything as it was."""
        before = sorted(path.name for path in self.folder.iterdir())
        code, out, err = (run or self.transfer)(*given.pop("more", ()), **given)
        assert (code, out) == (1, ""), err
        assert err.startswith("umaf: ") and err.count("\n") == 1 and err[-2] in ".?", err
        for word in words:
            assert word in err, err
        assert sorted(path.name for path in self.folder.iterdir()) == before
        self.nothing_hooked()
        return err

    def nothing_hooked(self):
        for model in self.models:
            modules = list(model.net.modules())
            assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules) == 0
            assert not any("lora" in name for name, _ in model.net.named_modules())


@pytest.fixture
def place(pico, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    found = Place(tmp_path, pico, capsys)

    def recorded(*args, **more):
        found.models.append(open_model(*args, **more))
        return found.models[-1]

    monkeypatch.setattr(umaf.models, "open_model", recorded)
    return found


@pytest.fixture
def copy(place):
    """A copy of a tiny model to break; outside the watched folder's later changes."""

    def make(name="llama"):
        return Path(shutil.copytree(place.pico(name), place.folder / f"copy-{name}"))

    return make


def test_it_works_when_nothing_is_wrong(place):
    code, out, err = place.transfer("--json")
    assert (code, err) == (0, "") and json.loads(out)["folder"] == "adapter"
    assert len(place.models) == 2
    place.nothing_hooked()


def test_unknown_models(place):
    place.refuses("no such folder", source="./nowhere")
    place.refuses(
        "no model", "umaf zoo build" if not umaf.models.locate.zoo_names() else "it has", target="zoo:nothing"
    )
    place.refuses("cannot be reached", source="nobody/nothing")


def test_gated_and_missing_on_the_hub(place, monkeypatch):
    class Answer:
        headers: dict[str, str] = {}  # noqa: RUF012
        request = status_code = None

    opening = AutoConfig.from_pretrained
    for kind, word in ((GatedRepoError, "gated"), (RepositoryNotFoundError, "check the spelling")):

        def refuse(name, *args, _kind=kind, **more):
            if name != "org/model":
                return opening(name, *args, **more)
            raise OSError("no") from _kind("no", response=Answer())

        monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
        place.refuses(word, "org/model", source="org/model")


def test_corrupt_weights(place, copy):
    folder = copy()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    place.refuses("corrupt or cut short", target=folder)


def test_pickled_weights_need_a_flag(place, copy):
    folder = copy()
    torch.save(open_model(folder).net.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    place.refuses("--allow-pickle", target=folder)
    assert place.transfer("--allow-pickle", target=folder)[0] == 0


def test_a_model_without_hidden_states_of_text(place):
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ViTModel(config).save_pretrained(place.folder / "vit")
    place.refuses("no usable hidden states", source=place.folder / "vit")


@pytest.mark.parametrize("command", ["transfer", "fingerprint", "compare"])
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (PROBES[:10], ("10 probes were given and at least 16 are needed, because",)),
        ((*PROBES, PROBES[3]), ("probe 26 repeats probe 4",)),
        ((*PROBES[:3], "  ", *PROBES[3:]), ("probe 4 is empty",)),
        ((), ("no probes",)),
        (None, ("no probe file",)),
    ],
)
def test_probes(place, command, texts, words):
    if texts is not None:
        place.write("other.txt", texts)
    given = {
        "transfer": [],
        "fingerprint": [place.pico("bert")],
        "compare": [place.pico("bert"), place.pico("gpt2")],
    }
    if command == "transfer":
        place.refuses(*words, probes="other.txt")
    else:
        place.refuses(*words, run=lambda: place.run(command, *given[command], "--probes", "other.txt"))
    assert not place.models, "probes are checked before any model is opened"


def test_long_probes_are_cut_only_when_asked_and_said(place):
    place.write("long.txt", (LONG, *PROBES))
    place.refuses("128 tokens at once", "ask for truncation (--truncate)", probes="long.txt")
    place.refuses(
        "128 tokens", run=lambda: place.run("fingerprint", place.pico("bert"), "--probes", "long.txt")
    )
    code, out, _ = place.transfer("--truncate", probes="long.txt")
    assert code == 0 and out.count("1 of 26 probes were cut to the window") == 2
    code, out, _ = place.run("fingerprint", place.pico("bert"), "--probes", "long.txt", "--truncate")
    assert code == 0 and "1 of them cut" in " ".join(out.split())


def test_source_and_target_are_the_same(place, copy):
    place.refuses("source and as target", source=place.pico("llama"))
    place.refuses("the same weights", source=copy(), target=place.pico("llama"))


def test_a_base_that_is_not_the_sources(place, pico):
    place.refuses("was given as the base of", "architecture", more=("--base", pico("gpt2")))


def test_a_stranger_of_the_same_shape_is_no_base(place, copy):
    folder = copy("bert")
    model = open_model(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.net.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    model.net.save_pretrained(folder)
    place.refuses("nothing in common", more=("--base", folder))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--weights", "0.5,0.5"), ("1 sources were given with 2 weights", "one weight for each")),
        (("--weights", "0"), ("weights are 0",)),
        (("--weights", "nan"), ("finite",)),
        (("--weights", "much"), ("valid number",)),
        (("--cue", "a"), ("--cue was given 2 times for 1",)),
        (("--rank", "0"), ("at least 1",)),
        (("--rank", "500"), ("at most",)),
        (("--route", "slove"), ('Did you mean "solve"',)),
        (("--steps", "5"), ("'steps', which it does not have",)),
        (("--scaling", "huge"), ("No scaling is called",)),
        (("--fusion", "cold"), ("No fusion is called",)),
        (("--extractor", "none"), ("no extractor is called",)),
        (("--device", "abacus"), ("device", "umaf doctor")),
    ],
)
def test_options(place, more, words):
    place.refuses(*words, more=more)


def test_an_output_that_exists(place):
    (place.folder / "adapter").mkdir()
    place.refuses("adapter already exists")
    assert not place.models, "it is refused before any model is opened"
    place.write("f.safetensors", ["x"])
    words = ("fingerprint", place.pico("bert"), "--probes", "probes.txt", "--out", "f.safetensors")
    place.refuses("already exists", run=lambda: place.run(*words))


def test_nan_in_weights(place, copy):
    folder = copy()
    net = open_model(folder).net
    with torch.no_grad():
        net.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    net.save_pretrained(folder)
    place.refuses("NaN or infinity", "model.layers.1.mlp.down_proj.weight", target=folder)


@pytest.mark.parametrize("role", ["source", "target"])
def test_nan_in_activations(place, copy, role):
    folder = copy("gpt2")
    net = open_model(folder).net
    with torch.no_grad():  # finite, but not once they are multiplied
        for layer in net.transformer.h:
            layer.mlp.c_fc.weight.fill_(1e38)
            layer.mlp.c_proj.weight.fill_(1e38)
    net.save_pretrained(folder)
    place.refuses("NaN or infinity", "copy-gpt2", **{role: folder})


@pytest.mark.parametrize(
    "moment", ["umaf.pipeline.extract", "umaf.pipeline.generate", "umaf.adapters.lora.fill"]
)
def test_an_interruption_leaves_nothing(place, monkeypatch, moment):
    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, interrupted)
    code, out, err = place.transfer()
    assert (code, out) == (130, "") and err == "umaf: interrupted; nothing half-written was kept.\n"
    assert [path.name for path in place.folder.iterdir()] == ["probes.txt"]
    place.nothing_hooked()


@pytest.mark.parametrize("route", ["solve", "distill"])
def test_hooks_are_gone_whenever_a_route_is_interrupted(place, monkeypatch, route):
    forward = umaf.readout.scores.forward
    calls = stop = 0

    def counted(*args, **more):
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return forward(*args, **more)

    monkeypatch.setattr("umaf.readout.scores.forward", counted)
    words = ("--route", route, *(("--steps", "4") if route == "distill" else ()))
    assert place.transfer(*words)[0] == 0
    shutil.rmtree(place.folder / "adapter")
    whole = calls
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        calls, stop = 0, int(share * whole)
        assert place.transfer(*words)[0] == 130
        assert [path.name for path in place.folder.iterdir()] == ["probes.txt"]
        place.nothing_hooked()


def test_hooks_are_gone_after_an_interruption_inside_training(place, monkeypatch):
    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("umaf.generation.train.loss", interrupted)
    before = weights_hash(open_model(place.pico("llama")))
    assert place.transfer("--route", "distill", "--steps", 2)[0] == 130
    assert weights_hash(place.models[0]) == before
    place.nothing_hooked()


def test_a_route_that_gives_nan_writes_nothing(place, monkeypatch):
    def route(model, goals, *, rank, seed, truncate):
        return Solved({"model.layers.0.mlp.up_proj": (torch.full((2, 32), torch.nan), torch.ones(48, 2))}, ())

    monkeypatch.setattr("umaf.generation.solve.solve", route)
    place.refuses("NaN or infinity", "model.layers.0.mlp.up_proj")


def test_evaluate_and_compare(place, pico):
    model = pico("llama")
    place.refuses("no grammar", run=lambda: place.run("evaluate", model, "--task", "made/sentimet"))
    place.refuses(
        "no adapter_config",
        run=lambda: place.run("evaluate", model, "--task", "made/tense", "--adapter", "x"),
    )
    place.refuses("'task' is needed", run=lambda: place.run("evaluate", model))
    place.refuses("models are compared on probes", run=lambda: place.run("compare", model, pico("bert")))
    place.refuses("No similarity", run=lambda: place.run("compare", model, model, "--metric", "love"))
    assert place.transfer()[0] == 0
    place.refuses(
        "other shapes",
        run=lambda: place.run("evaluate", pico("gpt2"), "--task", "made/tense", "--adapter", "adapter"),
    )
