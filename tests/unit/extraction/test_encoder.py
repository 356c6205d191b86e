"""The Transformer Encoder and Projection Head: the shape asked for, a set in, seeds that hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from umaf.activations import ANCHORS
from umaf.errors import FingerprintError, OutputError
from umaf.extraction import Inputs, load_trained, save_trained, untrained
from umaf.extraction.encoder import TransformerEncoder
from umaf.seeds import generator


def _inputs(probes: int = 9, *, base: bool = True) -> Inputs:
    draw = generator(0, "encoder")
    own = torch.randn(4, probes, 256, generator=draw)
    gram = torch.randn(4, 256, 256, generator=draw)
    return Inputs(
        own, gram, own / 2 if base else None, gram if base else None, (0.25, 0.5, 0.75, 1.0), "centred"
    )


def test_the_encoder_is_the_one_specified() -> None:
    extractor = untrained()
    layers = extractor.encoder.layers.layers
    assert len(layers) == 4
    for layer in layers:
        assert layer.self_attn.num_heads == 8 and layer.self_attn.embed_dim == 512
        assert layer.linear1.out_features == 2048 and layer.norm_first
    assert extractor.encoder.enter.in_features == 2 * len(ANCHORS)
    assert [extractor.head.inner.out_features, extractor.head.outer.out_features] == [512, 512]
    assert sum(p.numel() for p in layers.parameters()) == pytest.approx(12.6e6, rel=0.01)


@pytest.mark.parametrize("base", [True, False])
def test_the_order_of_probes_changes_nothing(base: bool) -> None:
    inputs, extractor = _inputs(base=base), untrained()
    found = extractor(inputs)
    assert found.shape == (1, 512) and found.norm().item() == pytest.approx(1.0)
    order = torch.randperm(9, generator=generator(0, "order"))
    own = inputs.base_coordinates
    mixed = Inputs(
        inputs.coordinates[:, order],
        inputs.gram,
        None if own is None else own[:, order],
        inputs.base_gram,
        inputs.depths,
        inputs.normalisation,
    )
    assert torch.allclose(extractor(mixed), found, atol=1e-5)


def test_masked_tokens_are_not_read() -> None:
    encoder = TransformerEncoder(anchors=4, depths=2).eval()
    rows, depths = torch.randn(1, 5, 8, generator=generator(0, "rows")), torch.tensor([0, 1, 0, 1, 0])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        assert torch.allclose(encoder(rows, depths, mask), encoder(rows[:, :3], depths[:3]), atol=1e-5)


def test_a_seed_names_the_weights_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert untrained(seed=1).version == untrained(seed=1).version != untrained(seed=2).version
    assert torch.equal(before, torch.random.get_rng_state())


def test_saved_and_loaded_it_gives_the_same_numbers(tmp_path: Path) -> None:
    extractor = untrained(seed=4)
    folder = save_trained(extractor, tmp_path / "extractor")
    again = load_trained(folder)
    assert again.version == extractor.version
    assert torch.equal(again(_inputs()), extractor(_inputs()))
    with pytest.raises(OutputError):
        save_trained(extractor, folder)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(FingerprintError, match="weights"):
        load_trained(folder)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "anchors": "0" * 64}))
    with pytest.raises(FingerprintError, match="other anchor texts"):
        load_trained(folder)
    with pytest.raises(FingerprintError, match="no trained extractor"):
        load_trained(tmp_path)
