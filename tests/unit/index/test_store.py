from __future__ import annotations

import sys
import threading
from dataclasses import replace

import pytest
import torch

from benchmarks.index_kills import entry, rounds, space
from umaf.errors import ConfigError, FingerprintError, StoreError
from umaf.extraction.fingerprint import Fingerprint
from umaf.index import (
    Asked,
    arrange,
    by_fingerprint,
    clusters,
    make_store,
    near_duplicates,
    open_store,
    verify,
)
from umaf.index.entry import renamed


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store", space())


def made(count, *, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [entry(f"m{n}", torch.randn(512, generator=draw)) for n in range(count)]


def test_adding_twice_changes_nothing_and_replacing_keeps_one_row(store):
    entries = made(5)
    store.put(entries)
    store.put(entries[:2])
    store.put([renamed(entries[0], scores={"t": 0.5})])
    assert len(store) == 5 and verify(store).faults == ()
    again = open_store(store.place)
    found = {one.model: one for one in again.entries()}
    assert found["m0"].scores == {"t": 0.5} and torch.equal(found["m3"].vector, entries[3].vector)
    assert found["m3"].card == entries[3].card and again.space == space()


def test_a_batch_with_one_key_twice_leaves_one_row(store):
    one = made(1)[0]
    store.put([one, renamed(one, licence="mit")])
    assert [row["licence"] for row in store.rows()] == ["mit"]


def test_search_agrees_with_a_matrix_product_under_a_condition(store):
    entries = made(40)
    entries = [replace(one, licence="mit" if n % 2 else "gpl") for n, one in enumerate(entries)]
    store.put(entries)
    rows = torch.stack([one.vector for one in entries])
    query = torch.randn(512, generator=torch.Generator().manual_seed(9))
    query = query / query.norm()
    wanted = [n for n in (rows @ query).argsort(descending=True).tolist() if n % 2][:7]
    found = store.nearest(query, where="licence = 'mit'", limit=7)
    assert [row["model"] for row in found] == [f"m{n}" for n in wanted]
    assert found[0]["similarity"] == pytest.approx(float(rows[wanted[0]] @ query), abs=1e-5)


def test_other_metrics_rank_by_their_own_values(store):
    entries = made(12)
    store.put(entries)
    query = Fingerprint(entries[4].vector.reshape(1, 512), entries[4].card)
    for metric in ("pearson", "spearman", "kl"):
        found = by_fingerprint(store, query, Asked(metric=metric, limit=12))
        values = [hit.similarity for hit in found.hits]
        assert found.hits[0].model == "m4" and values == sorted(values, reverse=metric != "kl")
    with pytest.raises(FingerprintError, match="carries no coordinates"):
        by_fingerprint(store, query, Asked(metric="cka"))


@pytest.mark.parametrize("what", ["extractor", "probes", "normalisation", "anchors"])
def test_fingerprints_made_otherwise_are_refused_by_name(store, what):
    one = made(1)[0]
    store.put([one])
    other = Fingerprint(one.vector.reshape(1, 512), replace(one.card, **{what: "another"}))
    with pytest.raises(StoreError, match=f"made with {what} another"):
        by_fingerprint(store, other)
    with pytest.raises(StoreError, match=f"take {what} another"):
        make_store(store.place, space().model_copy(update={what: "another"}))


def test_changes_and_models_without_a_base_are_not_mixed(store):
    plain, change = made(2)
    store.put([plain, replace(change, card=replace(change.card, base="b"))])
    found = by_fingerprint(store, Fingerprint(plain.vector.reshape(1, 512), plain.card))
    assert [hit.model for hit in found.hits] == ["m0"]


def test_conditions_that_make_no_sense_say_so(store):
    store.put(made(1))
    for where in ("nope = 3", "((", "model ="):
        with pytest.raises(StoreError, match="condition cannot be understood"):
            store.rows(where)
    assert len(store) == 1


def test_no_store_and_no_lancedb_are_told_apart(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="no store at"):
        open_store(tmp_path)
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ConfigError, match=r"umaf\[index\]"):
        make_store(tmp_path / "s", space())


def test_writers_in_threads_lose_nothing(store):
    def write(part):
        mine = open_store(store.place)
        for one in part:
            mine.put([one])

    entries = made(24)
    threads = [threading.Thread(target=write, args=(entries[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.keys() == {one.key for one in entries} and verify(store).faults == ()


def test_a_commit_that_comes_second_is_tried_again(store, monkeypatch):
    tries = []

    def write():
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("lance error: Commit conflict for version 4")

    monkeypatch.setattr("umaf.index.store.time.sleep", lambda _: None)
    store._commit(write)
    assert len(tries) == 3
    with pytest.raises(StoreError, match="cannot be written"):
        store._commit(lambda: (_ for _ in ()).throw(OSError("disk full")))
    assert verify(store).entries == 0


def test_killed_processes_lose_nothing_acknowledged(tmp_path):
    found = rounds(tmp_path / "store", kills=3, seconds=0.4)
    assert found["kills"] == 3 and found["acknowledged"] > 0
    assert found["lost"] == 0 and found["faults"] == 0 and found["entries"] >= found["acknowledged"]


def test_verify_finds_what_was_damaged(store):
    good, bad = made(2)
    store.put([good, replace(bad, vector=3 * bad.vector)])
    store.put([replace(made(3)[2], card=replace(good.card, probes="others"))])
    faults = verify(store).faults
    assert len(faults) == 2 and "length 3.000" in faults[0] and "other probes" in faults[1]


def test_removing_by_keys(store):
    entries = made(4)
    store.put(entries)
    assert store.remove([entries[1].key, "no such key"]) == 1 and store.remove([]) == 0
    assert {row["model"] for row in store.rows()} == {"m0", "m2", "m3"}


def test_per_base_finds_the_capability_that_the_base_hides(store):
    draw = torch.Generator().manual_seed(5)
    tasks, bases = torch.randn(4, 512, generator=draw), 5 * torch.randn(3, 512, generator=draw)
    entries = []
    for base in range(3):
        for task in range(4):
            one = entry(f"b{base} t{task}", bases[base] + tasks[task])
            entries.append(replace(one, card=replace(one.card, base=f"b{base}")))
    store.put(entries)
    query = entries[1].fingerprint()
    plain = by_fingerprint(store, query, Asked(without=(entries[1].key,))).hits[0].model
    found = by_fingerprint(store, query, Asked(without=(entries[1].key,), per_base=True))
    assert plain.startswith("b0") and {hit.model for hit in found.hits[:2]} == {"b1 t1", "b2 t1"}
    alone = Fingerprint(query.vector, replace(query.card, base="another"))
    with pytest.raises(StoreError, match="3 models of the base another"):
        by_fingerprint(store, alone, Asked(per_base=True))


def test_cells_are_searched_approximately_and_the_recall_is_told(store):
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(16, 512, generator=draw)
    store.put([entry(f"m{n}", centres[n % 16] + 0.5 * torch.randn(512, generator=draw)) for n in range(600)])
    assert not store.approximate() and arrange(store) is None
    recall = arrange(store, smallest=500)
    query = store.entries("model = 'm7'")[0].fingerprint()
    found = by_fingerprint(store, query)
    assert recall is not None and recall > 0.9 and not found.exact and found.recall == recall
    assert found.hits[0].model == "m7"
    # Rows that were added after the cells were made are found too.
    store.put([entry("late", torch.ones(512))])
    assert store.nearest(torch.ones(512), limit=1)[0]["model"] == "late"


def test_clusters_find_their_number_whatever_the_order():
    draw = torch.Generator().manual_seed(2)
    centres = torch.randn(5, 512, generator=draw)
    truth = torch.arange(75) % 5
    rows = centres[truth] + 0.3 * torch.randn(75, 512, generator=draw)
    found = clusters(rows)
    mixed = torch.randperm(75, generator=draw)
    again = clusters(rows[mixed])
    assert found.count == 5 and found.silhouette > 0.5
    assert len({(int(t), c) for t, c in zip(truth, found.labels, strict=True)}) == 5
    assert [found.labels[n] for n in mixed] == list(again.labels)


def test_one_cloud_is_one_cluster_and_two_rows_are_too_few():
    rows = 5 * torch.eye(512)[0] + torch.randn(60, 512, generator=torch.Generator().manual_seed(3))
    assert clusters(rows).count == 1
    with pytest.raises(StoreError, match="at least 3"):
        clusters(rows[:2])


def test_near_duplicates_are_pairs_of_one_kind(store):
    one, other, third = made(3)
    twin = renamed(entry("twin", one.vector + 1e-3 * other.vector), identity=one.identity)
    foreign = entry("foreign", one.vector, architecture="another")
    store.put([one, other, third, twin, foreign])
    pairs = near_duplicates(store)
    assert [pair.models for pair in pairs] == [("m0", "twin")] and pairs[0].same_weights


def test_an_outline_follows_what_others_write(store):
    store.put(made(2))
    other = open_store(store.place)
    assert (other.outline().count, other.outline().kinds) == (2, {False})
    change = made(3, seed=5)[2]
    store.put([renamed(change, card=replace(change.card, base="b"))])
    assert (other.outline().count, other.outline().kinds) == (3, {False, True})
    assert other.outline().whole == {"fingerprint"}


def test_a_hit_says_what_a_listing_says(store):
    store.put([renamed(one, licence="mit", scores={"t": 0.5}) for one in made(3)])
    listed = {row["key"]: row for row in store.rows()}
    for hit in store.nearest(made(1)[0].vector):
        assert {name: value for name, value in hit.items() if name != "similarity"} == listed[hit["key"]]
