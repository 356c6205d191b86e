"""The extractor learns across models, hides the base, and is judged by numbers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from umaf.activations import ANCHORS
from umaf.errors import FingerprintError, TaskError
from umaf.extraction import Inputs, load_trained, save_trained
from umaf.extraction.behaviour import behaviour
from umaf.extraction.inputs import tokens
from umaf.models import open_model
from umaf.seeds import generator
from umaf.training.accept import Fold, ranks, retrieval, silhouettes, verdict
from umaf.training.entries import Entry, EntryCard, drawn, load_entries, load_entry, stacked, together
from umaf.training.extractor import ExtractorSettings, fingerprinted, train_extractor
from umaf.training.linear import train_linear

A = len(ANCHORS)
PLAN = ExtractorSettings(steps=6, rate=1e-3, look_every=6, capabilities=3, patience=0)


def _entry(what: int, base: str, split: str = "train", *, seed: int = 0, probes: int = 5) -> Entry:
    """The capability moves every probe in its own direction; the base has its own arrangement of texts."""
    own, noise = generator(what, "capability"), generator(seed, what, base)
    arrangement = 0.1 * torch.randn(2, probes, A, generator=generator(0, base))
    shift = 0.5 * torch.randn(2, 1, A, generator=own) + 0.01 * torch.randn(2, probes, A, generator=noise)
    gram = torch.eye(A).expand(2, A, A)
    told = torch.randn(2, A, generator=noise) if base != "bert" else None
    inputs = Inputs(arrangement + shift, gram, arrangement, gram, (0.5, 1.0), "centred", told)
    return Entry(inputs, EntryCard(f"c{what}", split, base, base, 10**6, 4, 128, seed))


def _entries() -> list[Entry]:
    known = [_entry(what, base) for what in range(4) for base in ("llama", "bert", "gpt2")]
    return known + [_entry(what, base, "validation") for what in (7, 8) for base in ("llama", "bert")]


def test_an_entry_comes_back_from_its_file(tmp_path: Path) -> None:
    entry = _entry(1, "llama")
    again = load_entry(entry.save(tmp_path / "one.safetensors"))
    assert again.card == entry.card and again.inputs.depths == (0.5, 1.0)
    assert torch.allclose(again.inputs.shift(), entry.inputs.shift(), atol=1e-3)
    _entry(2, "bert", "heldout").save(tmp_path / "two.safetensors")
    assert len(load_entries(tmp_path)) == 1 and len(load_entries(tmp_path, splits=("heldout",))) == 1
    with pytest.raises(TaskError, match=r"zoo\.material"):
        load_entries(tmp_path / "nowhere")


def test_probes_drop_out_and_sets_are_padded() -> None:
    entry = _entry(1, "llama", probes=12)
    few = drawn(entry, 3, share=0.5, seed=0)
    assert few.coordinates.shape == (2, 6, A) and few.base_coordinates is not None
    assert torch.equal(drawn(entry, 3, share=0.5, seed=0).coordinates, few.coordinates)
    batch, depths, mask = stacked([few, _entry(1, "bert").inputs], behaviour=True)
    assert batch.shape == (2, 13, 2 * A) and mask.sum(1).tolist() == [13, 10] and int(depths.max()) == 2


def test_two_capabilities_are_shown_at_once() -> None:
    one, other = _entry(1, "llama"), _entry(2, "llama")
    both = together(one.inputs, other.inputs)
    assert both.coordinates.shape[1] == 10 and both.behaviour is not None
    assert torch.equal(both.shift()[:, :5], one.inputs.shift())


def test_the_behavioural_token_is_read_where_a_model_continues_texts(pico) -> None:
    llama, bert = open_model(pico("llama")), open_model(pico("bert"))
    assert behaviour(bert, None) is None
    same = behaviour(llama, llama)
    assert same is not None and same.shape == (2, A) and not same[0].any()
    assert abs(float(same[1].mean())) < 1e-5 and float(same[1].std()) > 0
    rows, numbers = tokens(replace(_entry(1, "bert").inputs, behaviour=same))
    assert len(rows) == 11 and int(numbers[-1]) == 2


def test_training_gathers_capabilities_across_models(tmp_path: Path) -> None:
    entries = _entries()
    extractor, done = train_extractor(entries, settings=PLAN)
    losses = [row["loss"] for row in done.curve if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    again = load_trained(save_trained(extractor, tmp_path / "extractor"))
    assert again.version == extractor.version and again.behaviour
    entry = entries[0].inputs
    assert torch.equal(fingerprinted(again, entry), fingerprinted(extractor, entry))


def test_held_out_capabilities_and_single_models_are_refused() -> None:
    with pytest.raises(TaskError, match="held out"):
        train_extractor([*_entries(), _entry(9, "llama", "heldout")], settings=PLAN)
    alone = [_entry(what, "llama") for what in range(3)]
    with pytest.raises(TaskError, match="two or more models"):
        train_extractor(alone, settings=PLAN)
    watched = [_entry(7, base, "validation") for base in ("llama", "bert")]
    with pytest.raises(TaskError, match="add experts of other models"):
        train_extractor([*alone, *watched], settings=PLAN)


def _made(by_capability: float, by_architecture: float) -> tuple[torch.Tensor, list[EntryCard]]:
    cards = [_entry(what, base).card for what in range(6) for base in ("llama", "bert", "gpt2")]
    draw = generator(0, "made")
    what, kind = torch.randn(6, 512, generator=draw), torch.randn(3, 512, generator=draw)
    rows = [by_capability * what[at // 3] + by_architecture * kind[at % 3] for at in range(18)]
    return functional.normalize(torch.stack(rows) + 0.1 * torch.randn(18, 512, generator=draw), dim=1), cards


def test_the_verdict_follows_the_numbers() -> None:
    good, cards = _made(1.0, 0.2)
    bad, _ = _made(0.02, 1.0)
    parts = torch.stack([good[:9], good[9:]], dim=1)
    found = verdict(
        [
            Fold(kind, good, bad, cards, functional.normalize(parts.sum(1), dim=1), parts)
            for kind in ("llama", "bert")
        ]
    )
    assert found.accepted and not found.reasons and found.top1 == 1.0 and found.additive > 0.99
    worse = verdict([Fold("gpt2", bad, good, cards, parts[:, 0], parts)])
    assert not worse.accepted and len(worse.reasons) == 3 and "0.8" in worse.reasons[-1]


def test_only_held_out_capabilities_of_the_architecture_left_out_are_looked_up() -> None:
    vectors, cards = _made(1.0, 0.2)
    held = [replace(card, split="heldout" if card.capability == "c0" else "train") for card in cards]
    assert list(ranks(vectors, held, of="bert")) == [1] and len(ranks(vectors, held)) == 3
    assert len(ranks(vectors, cards, of="bert")) == 6


def test_fingerprints_that_are_all_the_same_find_nothing() -> None:
    _, cards = _made(1.0, 0.0)
    assert retrieval(torch.ones(18, 512), cards) == {"top1": 0.0, "top5": 0.0}
    with pytest.raises(FingerprintError, match="found none"):
        retrieval(torch.ones(2, 512), cards[:1] + cards[3:4])
    with pytest.raises(FingerprintError, match="left out"):
        verdict([])
    with pytest.raises(FingerprintError, match="two groups"):
        silhouettes(torch.ones(2, 512), cards[:2])


def test_the_linear_extractor_is_fitted_on_entries_with_places() -> None:
    places = torch.randn(5, 63, generator=generator(0, "places"))

    def placed(entry: Entry) -> Entry:
        return replace(entry, inputs=replace(entry.inputs, places=places))

    entries = [placed(entry) for entry in _entries()]
    made = train_linear(entries)
    assert made.entries == 12 and made.top1 is not None
    assert made.extractor.depths == (0.5, 1.0)
    with pytest.raises(TaskError, match="without places"):
        train_linear(_entries())
    with pytest.raises(TaskError, match="held out"):
        train_linear([*entries, _entry(9, "llama", "heldout")])
    few = drawn(entries[0], 1, share=0.8, seed=0)
    assert few.places is not None and len(few.places) == few.coordinates.shape[1]
