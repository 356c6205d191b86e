"""A store of made-up models, and the page over it, for tests of the page."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import torch
from fastapi.testclient import TestClient

from tests.texts import PROBES
from umaf.cli.web import builds
from umaf.extraction import FingerprintCard
from umaf.index import Query, Store, make_space, make_store, query_vector
from umaf.index.entry import Entry, key_of
from umaf.web.app import make_app
from umaf.web.settings import WebSettings

SPACE = make_space(PROBES)
CAPABILITIES = {"sentiment": ("good", "bad"), "size": ("small", "kind"), "place": ("town", "film")}
ARCHITECTURES = ("bert", "llama")


def shots(capability):
    """Texts that show a capability, with the labels of whoever has it."""
    words = CAPABILITIES[capability]
    texts = [text for text in PROBES if any(word in text for word in words)]
    return texts, [next(word for word in words if word in text) for text in texts]


def made_entry(
    capability: str, architecture: str, *, base: str | None = "zoo:bert-1m", number: int = 0
) -> Entry:
    """A model whose fingerprint lies near others of its capability, and which answers as its texts' labels say."""
    stream = torch.Generator().manual_seed(10 * list(CAPABILITIES).index(capability) + number)
    vector = torch.zeros(512)
    vector[list(CAPABILITIES).index(capability)] = 1.0
    vector += 0.01 * torch.randn(512, generator=stream)
    name = f"{architecture}-{capability}" + ("" if base else "-whole")
    card = FingerprintCard(
        model=name, base=base, architecture=architecture, parameters=1000 * (1 + ARCHITECTURES.index(architecture)),
        layers=2, width=32, tokenizer="t" * 64, probes=SPACE.probes, probe_count=len(PROBES), truncated=0,
        anchors=SPACE.anchors, extractor=SPACE.extractor, normalisation=SPACE.normalisation, depths=SPACE.depths,
        strength=0.5, unchanged=False,
    )  # fmt: skip
    answers = query_vector(Query(*map(tuple, shots(capability))), SPACE.texts)
    scores = {f"made/{capability}": 0.9, "made/tense": 0.5}
    return Entry(
        key_of(name),
        name,
        "zoo:bert-1m",
        name,
        card,
        vector / vector.norm(),
        answers,
        "mit",
        "Made up.",
        scores,
    )


def made_store(place: str | Path) -> Store:
    """Two architectures with every capability, as what was learned since a base and as what they are."""
    store = make_store(str(place), SPACE)
    store.put(
        [
            made_entry(capability, architecture, base=base, number=number)
            for number, architecture in enumerate(ARCHITECTURES)
            for capability in CAPABILITIES
            for base in ("zoo:bert-1m", None)
        ]
    )
    return store


@contextmanager
def made_client(tmp_path: Path, **settings):
    """The page without a network: a client that looks like a browser on this machine."""
    records = tmp_path / "records"
    records.mkdir(exist_ok=True)
    shared = {"records": (records,), "work": tmp_path / "jobs", "max_body": 50_000, **settings}
    app, desk = make_app(WebSettings(**shared), builds())
    client = TestClient(app, base_url="http://127.0.0.1:8322", raise_server_exceptions=False)
    client.desk = desk
    try:
        with client:
            yield client
    finally:
        desk.close()
