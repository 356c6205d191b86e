from __future__ import annotations

import pytest

from tests.made_web import CAPABILITIES, made_client, made_store


@pytest.fixture(scope="session")
def store_place(tmp_path_factory):
    """A store of twelve made-up models that nobody writes to."""
    place = tmp_path_factory.mktemp("web") / "store"
    made_store(place)
    return place


@pytest.fixture
def client(store_place, tmp_path):
    with made_client(tmp_path, store=str(store_place)) as client:
        yield client


@pytest.fixture
def keys(client):
    """Keys of the models by name."""
    found = {row["model"]: row["key"] for row in client.get("/api/models").json()["models"]}
    assert len(found) == 2 * 2 * len(CAPABILITIES)
    return found
