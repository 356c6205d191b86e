"""Map, cards, search and comparison over a store."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from tests.made_web import CAPABILITIES, SPACE, made_client, made_entry, made_store, shots
from umaf.errors import StoreError
from umaf.index import by_model, open_store
from umaf.index.entry import renamed
from umaf.web import map as drawn
from umaf.web.models import Filter
from umaf.web.writer import Writer


def post(client, path, body, code=200):
    answer = client.post(path, json=body)
    assert answer.status_code == code, answer.text
    return answer.json() if code < 400 else answer.json()["error"]["message"]


def test_the_map_keeps_apart_what_cannot_be_compared(client):
    learned = client.get("/api/map?difference=true").json()
    whole = client.get("/api/map?difference=false").json()
    assert learned["whole"] == whole["whole"] == learned["other"] == 6
    assert {one["base"] for one in learned["points"]} == {"zoo:bert-1m"}
    assert {one["base"] for one in whole["points"]} == {None}
    assert client.get("/api/map").json()["difference"] is True


def test_points_of_one_capability_lie_together(client):
    points = client.get("/api/map?difference=true").json()["points"]
    assert {one["task"] for one in points} == {f"made/{name}" for name in CAPABILITIES}
    places = {one["model"]: np.array([one["x"], one["y"]]) for one in points}
    for name in CAPABILITIES:
        own = np.linalg.norm(places[f"bert-{name}"] - places[f"llama-{name}"])
        others = [np.linalg.norm(places[f"bert-{name}"] - places[f"bert-{other}"]) for other in CAPABILITIES]
        assert own < 0.3 * max(others)


def test_of_a_large_store_some_points_are_drawn(client, monkeypatch):
    monkeypatch.setattr(drawn, "MOST", 4)
    found = client.get("/api/map?difference=true").json()
    assert len(found["points"]) == 4 and found["whole"] == 6


def test_filters_are_conditions_and_nothing_else(client):
    listed = client.get("/api/models", params={"architecture": "llama", "most": 5000}).json()["models"]
    assert len(listed) == 6 and {row["architecture"] for row in listed} == {"llama"}
    assert client.get("/api/models", params={"most": 10}).json()["models"] == []
    assert client.get("/api/models", params={"licence": "mit' OR 'a' = 'a"}).json()["models"] == []
    answer = client.get("/api/models", params={"colour": "red"})
    assert answer.status_code == 400 and "colour" in answer.json()["error"]["message"]
    assert client.get("/api/models", params={"most": "many"}).status_code == 400
    assert Filter().condition() is None


def test_a_card_has_no_vectors(client, keys):
    card = client.get(f"/api/models/{keys['bert-size']}").json()
    assert card["card"]["architecture"] == "bert" and card["scores"]["made/size"] == 0.9
    assert card["fingerprint"] is True and card["answers"] is True
    missing = client.get("/api/models/' OR 1 = 1 --")
    assert missing.status_code == 404 and "no model with the key" in missing.json()["error"]["message"]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_pasted_texts_find_who_does_the_task(client, capability):
    texts, labels = shots(capability)
    found = post(client, "/api/search", {"by": "texts", "texts": texts, "labels": labels, "limit": 4})
    assert {hit["model"].split("-")[1] for hit in found["hits"]} == {capability}
    narrowed = {"by": "texts", "texts": texts, "labels": labels, "filter": {"architecture": "llama"}}
    assert {hit["architecture"] for hit in post(client, "/api/search", narrowed)["hits"]} == {"llama"}


def test_a_model_finds_its_like(client, keys, store_place):
    found = post(client, "/api/search", {"by": "model", "model": keys["bert-size"], "metric": "pearson"})
    assert found["hits"][0]["model"] == "llama-size" and found["metric"] == "pearson"
    plainly = post(client, "/api/search", {"by": "model", "model": keys["bert-size"]})
    direct = by_model(open_store(store_place), "bert-size")
    assert [hit["key"] for hit in plainly["hits"]] == [hit.key for hit in direct.hits][:20]
    assert post(client, "/api/search", {"by": "words", "words": "place"})["hits"][0]["model"].count("place")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"by": "texts"}, "paste at least one"),
        ({"by": "texts", "texts": [" "]}, "paste at least one"),
        ({"by": "texts", "texts": ["a", "b"], "labels": ["x"]}, "2 texts and 1 labels"),
        ({"by": "model"}, "choose one"),
        ({"by": "words"}, "type one"),
        ({"by": "colour"}, "The field by"),
        ({"by": "words", "words": "a", "limit": 10**9}, "The field limit"),
        ([1], "The field the body"),
    ],
)
def test_a_search_that_is_none_says_so(client, body, said):
    assert said in post(client, "/api/search", body, 400)


def test_an_unknown_metric_is_named(client, keys):
    said = post(client, "/api/search", {"by": "model", "model": keys["bert-size"], "metric": "cosin"}, 400)
    assert 'Did you mean "cosine"?' in said


def test_two_models_side_by_side(client, keys):
    found = client.get("/api/compare", params={"a": keys["bert-size"], "b": keys["llama-size"]}).json()
    values = {one["metric"]: one["value"] for one in found["similarities"]}
    assert values["cosine"] > 0.9 and values["answers (cosine)"] == pytest.approx(1, abs=1e-5)
    assert {row["name"] for row in found["differs"]} == {"architecture", "parameters"}
    assert found["near_a"][0]["model"] == "llama-size" and found["near_b"][0]["model"] == "bert-size"
    mixed = client.get("/api/compare", params={"a": keys["bert-size"], "b": keys["bert-size-whole"]}).json()
    assert "what was learned since a base" in mixed["why_not"]
    assert [one["metric"] for one in mixed["similarities"]] == ["answers (cosine)"]
    assert client.get("/api/compare", params={"a": "x", "b": "x"}).status_code == 400
    assert client.get("/api/compare", params={"a": keys["bert-size"]}).status_code == 400


def test_a_page_without_a_store_says_so(tmp_path):
    with made_client(tmp_path) as client:
        assert client.get("/api/about").json()["store"] is None
        for path in ("/api/map", "/api/models"):
            answer = client.get(path)
            assert answer.status_code == 404 and "--store" in answer.json()["error"]["message"]


def test_a_model_is_added_by_its_outputs(tmp_path, monkeypatch):
    made_store(tmp_path / "store")
    with made_client(tmp_path, store=str(tmp_path / "store")) as client:
        before = client.get("/api/map?difference=true").json()
        outputs = torch.rand(len(SPACE.texts), 3).tolist()
        made = post(
            client, "/api/models", {"name": "a <b>box</b>", "outputs": outputs, "scores": {"t": 1}}, 201
        )
        card = client.get(f"/api/models/{made['key']}").json()
        assert (
            card["model"] == "a <b>box</b>" and card["fingerprint"] is False and card["scores"] == {"t": 1.0}
        )
        monkeypatch.setattr(drawn, "FRESH", -1e9)
        assert client.get("/api/map?difference=true").json() == before
        client.desk.store.put([renamed(made_entry("size", "bert", number=7), key="another")])
        assert client.get("/api/map?difference=true").json() != before  # a changed store is drawn again
        assert "row of scores for each" in post(client, "/api/models", {"name": "b", "outputs": [[1.0]]}, 400)
        assert "cannot be read" in post(client, "/api/models", {"name": "b"}, 400)
        nothing = [[1e39, 0.0]] * len(SPACE.texts)
        assert "NaN or infinite" in post(client, "/api/models", {"name": "b", "outputs": nothing}, 400)


def test_writes_that_wait_together_share_a_commit_and_none_is_lost(tmp_path, monkeypatch):
    store = made_store(tmp_path / "store")
    theirs, commits, errors = open_store(tmp_path / "store"), [], []
    put = theirs.put
    monkeypatch.setattr(theirs, "put", lambda entries: (commits.append(len(entries)), put(entries)))
    writer = Writer(theirs)

    def write(number):
        entry = made_entry("size", "bert", number=number)
        try:
            writer.put(renamed(entry, key=f"key-{number}"))
        except Exception as problem:  # the thread's own failure is the test's
            errors.append(problem)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert not errors and {f"key-{number}" for number in range(30)} <= store.keys()
    assert 0 < len(commits) < 30 and sum(commits) == 30


def test_a_write_that_fails_is_told_and_the_next_one_goes_on(tmp_path, monkeypatch):
    store = made_store(tmp_path / "store")
    writer, real = Writer(store), store.put
    monkeypatch.setattr(store, "put", lambda _: (_ for _ in ()).throw(StoreError("The disk is full.")))
    with pytest.raises(StoreError, match="full"):
        writer.put(made_entry("size", "bert", number=3))
    monkeypatch.setattr(store, "put", real)
    writer.put(made_entry("size", "bert", number=3))
    writer.close()
    with pytest.raises(Exception, match="closing"):
        writer.put(made_entry("size", "bert", number=4))
