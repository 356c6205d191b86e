from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from tests.texts import PROBES
from umaf.cli import main
from umaf.errors import ModelError, NumericalError, StoreError, TaskError
from umaf.extraction import extract, load_answered
from umaf.index import (
    Ask,
    Query,
    add,
    add_outputs,
    answers_of,
    by_model,
    by_task,
    collect,
    default_probes,
    knowledge,
    likely_bases,
    make_space,
    make_store,
    open_store,
    query_vector,
    try_found,
    verify,
)
from umaf.index.told import read_told
from umaf.index.trial import asks_on, hear
from umaf.index.unlabelled import worths
from umaf.models import open_model
from umaf.readout import label_scores


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words, code=0):
        with pytest.raises(SystemExit) as end:
            main(["index", *(str(word) for word in words)])
        shown = capsys.readouterr()
        assert end.value.code == code, shown.err
        return shown.err if code else json.loads(shown.out) if "--json" in words else shown.out

    return run


@pytest.fixture
def folder(tmp_path, pico):
    """Two models and a changed copy of one that names it as its base, with a card."""
    root = tmp_path / "models"
    for name in ("llama", "gpt2"):
        shutil.copytree(pico(name), root / name)
    model = open_model(root / "llama")
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.net.save_pretrained(root / "deep" / "tuned")
    model.tokenizer.save_pretrained(root / "deep" / "tuned")
    card = f"---\nlicense: mit\nbase_model: {root / 'llama'}\n---\n# Tuned\n\nSays whether a film is good.\n"
    (root / "deep" / "tuned" / "README.md").write_text(card)
    (root / "notes").mkdir()
    return root


@pytest.fixture
def probes(tmp_path):
    file = tmp_path / "probes.txt"
    file.write_text("\n".join(PROBES))
    return file


def test_folders_lists_and_names_are_collections(folder, tmp_path):
    found = collect([str(folder)])
    assert [one.name for one in found] == ["deep/tuned", "gpt2", "llama"]
    assert found[0].licence == "mit" and found[0].base == str(folder / "llama") and found[1].base is None
    (tmp_path / "list.txt").write_text(f"# mine\n{folder / 'gpt2'} {folder / 'llama'}\norg/model\n")
    listed = collect([str(tmp_path / "list.txt"), "org/model"])
    assert [(one.place, one.base) for one in listed] == [
        (str(folder / "gpt2"), str(folder / "llama")),
        ("org/model", None),
    ]
    (tmp_path / "list.jsonl").write_text(json.dumps({"model": "org/a", "scores": {"t": 1}, "licence": "mit"}))
    assert collect([str(tmp_path / "list.jsonl")])[0].scores == {"t": 1.0}


def test_collections_that_are_none_say_so(folder, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"modle": "a"}')
    (tmp_path / "three.txt").write_text("a b c")
    (tmp_path / "none.txt").write_text("\n# nothing\n")
    for name, words in {
        "bad.jsonl": "cannot be read",
        "three.txt": "3 words",
        "none.txt": "names no model",
    }.items():
        with pytest.raises(StoreError, match=words):
            collect([str(tmp_path / name)])
    with pytest.raises(StoreError, match="no model lies in it"):
        collect([str(folder / "notes")])
    with pytest.raises(ModelError, match="no such folder"):
        collect(["./nowhere"])


def test_a_query_to_the_hub_gives_its_ids(monkeypatch):
    asked = []

    def list_models(self, *, search, limit):
        asked.append((search, limit))
        return [type("Info", (), {"id": name})() for name in (["org/a", "org/b"] if search else [])]

    monkeypatch.setattr("huggingface_hub.HfApi.list_models", list_models)
    assert [one.place for one in collect(["hub:tiny bert"], limit=7)] == ["org/a", "org/b"]
    assert asked == [("tiny bert", 7)]
    with pytest.raises(StoreError, match="no model that matches"):
        collect(["hub:"])


def test_a_build_is_incremental_and_a_broken_model_stops_nothing(folder, tmp_path):
    store = make_store(tmp_path / "store", make_space(PROBES, extractor="pca"))
    (folder / "gpt2" / "model.safetensors").write_bytes(b"not weights")
    first = add(store, collect([str(folder)]))
    assert first.added == ("deep/tuned", "llama") and list(first.failed) == ["gpt2"] and not first.known
    again = add(store, collect([str(folder / "llama")]))
    assert not again.added and again.known == ("llama",) and len(store) == 2
    # The numbers are those of `extract`, and other weights at the same place are another model.
    wanted = extract(open_model(folder / "llama"), PROBES)
    kept = next(one for one in store.entries() if one.model == "llama")
    assert torch.allclose(kept.vector, wanted.vector[0], atol=1e-6)
    assert kept.card == replace(wanted.card, model="llama")
    shutil.copy(folder / "deep" / "tuned" / "model.safetensors", folder / "llama" / "model.safetensors")
    assert add(store, collect([str(folder / "llama")])).added == ("llama",) and len(store) == 3


def test_answers_do_not_depend_on_the_order_of_labels_and_refuse_nonsense():
    table = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(knowledge(table), knowledge(table[:, [2, 0, 3, 1]]), atol=1e-6)
    assert float(knowledge(torch.ones(20, 4)).norm()) == 0
    other = knowledge(torch.rand(20, 4, generator=torch.Generator().manual_seed(1)))
    assert float(knowledge(table) @ other) < 0.9
    with pytest.raises(NumericalError, match="softmax"):
        knowledge(-table)


def test_a_labelled_query_is_nearest_to_who_answers_like_its_labels():
    probes = [f"{word} {thing}" for word in ("good", "bad") for thing in ("film", "book", "music", "town")]
    tone = torch.tensor([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 4)
    topic = torch.eye(4).repeat(2, 1)
    by_tone = query_vector(Query(("a good day", "a bad day"), ("1", "0")), probes)
    by_topic = query_vector(
        Query(("the film", "the book", "the music", "the town"), ("f", "b", "m", "t")), probes
    )
    assert float(by_tone @ knowledge(tone)) > float(by_tone @ knowledge(topic)) + 0.3
    assert float(by_topic @ knowledge(topic)) > float(by_topic @ knowledge(tone)) + 0.3
    with pytest.raises(TaskError, match="2 texts and 1 labels"):
        Query(("a", "b"), ("x",))


def test_the_default_probes_are_fixed_and_train_nothing():
    from umaf.tasks.door import load_task

    assert default_probes() == default_probes() and len(default_probes()) >= 100
    shown = {e.text for name in ("made/sentiment", "made/topic") for e in load_task(name).train}
    assert not shown & set(default_probes())


def test_the_route_expert_trains_the_reader_and_needs_labels(folder, tmp_path):
    store = make_store(tmp_path / "store", make_space(PROBES))
    add(store, collect([str(folder / "llama"), str(folder / "gpt2")]))
    reader = open_model(folder / "gpt2")
    query = Query(("the film was good", "the film was bad"), ("good", "bad"), "tone")
    before = {name: value.clone() for name, value in reader.net.state_dict().items()}
    found = by_task(store, query, route="expert", reader=reader)
    assert {hit.model for hit in found.hits} == {"llama", "gpt2"} and found.by == "answers"
    assert all(torch.equal(before[name], value) for name, value in reader.net.state_dict().items())
    for wrong, words in ({"route": "expert"}, "no reader"), ({"route": "none"}, "No way to search"):
        with pytest.raises(TaskError, match=words):
            by_task(store, query, **wrong)


def test_a_model_is_found_by_name_key_place_or_weights(folder, tmp_path):
    store = make_store(tmp_path / "store", make_space(PROBES, extractor="pca"))
    add(store, collect([str(folder)], base=None))
    shutil.copytree(folder / "llama", tmp_path / "copy")
    for name in ("llama", str(folder / "llama"), str(tmp_path / "copy")):
        assert [hit.model for hit in by_model(store, name).hits] == ["gpt2"]
    # Not stored, so it is fingerprinted now; with a base it is compared with changes only.
    shutil.copytree(folder / "deep" / "tuned", tmp_path / "new")
    (tmp_path / "new" / "README.md").unlink()
    store.remove([one.key for one in store.entries("model = 'deep/tuned'")])
    assert {hit.model for hit in by_model(store, str(tmp_path / "new")).hits} == {"llama", "gpt2"}
    add(store, collect([str(tmp_path / "new")]))
    hints = likely_bases(store)
    assert {(hint.model, hint.base) for hint in hints} == {("new", "llama"), ("llama", "new")}


def test_the_command_line_from_build_to_verify(run, folder, probes, tmp_path):
    built = run("build", "store", folder, "--probes", probes, "--json")
    assert len(built["added"]) == 3 and built["entries"] == 3
    assert run("build", "store", folder, "--json")["known"] == built["added"]
    assert "0 added, 3 known already" in run("add", "store", folder / "gpt2", folder)
    hits = run("search", "store", "--model", "llama", "--json")["hits"]
    assert [hit["model"] for hit in hits] == ["gpt2"]
    assert run("search", "store", "--words", "good film", "--json")["hits"][0]["model"] == "deep/tuned"
    shown = run("search", "store", "--text", "the film was good", "--text", "the music was bad")
    assert "answers" in shown and "exact" in shown
    (tmp_path / "task.jsonl").write_text(
        "\n".join(
            json.dumps({"text": f"the film was {word}", "label": word}) for word in ("good", "bad", "kind")
        )
    )
    assert len(run("search", "store", "--task", "task.jsonl", "--json")["hits"]) == 3
    outputs = [[0.9, 0.1] if n % 2 else [0.2, 0.8] for n in range(len(PROBES))]
    (tmp_path / "box.json").write_text(json.dumps({"name": "box", "outputs": outputs, "scores": {"t": 0.5}}))
    assert run("add", "store", "--outputs", "box.json", "--json")["added"] == ["box"]
    assert run("search", "store", "--model", "box", "--json")["by"] == "answers"
    listed = {row["model"]: row for row in run("list", "store", "--json")}
    assert set(listed) == {"box", "deep/tuned", "gpt2", "llama"} and listed["box"]["scores"] == {"t": 0.5}
    assert "licence" in run("list", "store", "--where", "licence = 'mit'")
    assert run("cluster", "store", "--json")["count"] >= 1
    assert run("verify", "store", "--json") == {"entries": 4, "faults": []}
    assert run("export", "store", "all.jsonl", "--json")["written"] == 4
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 4
    assert run("export", "store", "texts.jsonl", "--probes", "--json")["written"] == len(PROBES)
    run("export", "store", "prints", "--where", "architecture = 'gpt2'")
    (file,) = (tmp_path / "prints").iterdir()
    assert run("search", "store", "--fingerprint", file, "--json")["hits"][0]["model"] == "gpt2"
    assert run("remove", "store", "box", "gpt2", "--json") == {"removed": 2, "entries": 2}
    assert open_store("store").space.probes == make_space(PROBES).probes


def test_as_many_are_tried_as_was_asked_whatever_is_shown(run, folder, probes, tmp_path):
    for name in ("llama", "gpt2", "deep/tuned"):
        write_card(folder / name, [("tone", ("good", "bad"))])
    run("build", "store", folder, "--probes", probes)
    rows = [{"text": f"the film was {word}", "label": word} for word in ("good", "bad")]
    (tmp_path / "task.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = ("search", "store", "--task", "task.jsonl", "--try", "3", "--limit", "1", "--json")
    texts = (
        "search",
        "store",
        "--text",
        "a good film",
        "--text",
        "bad music",
        "--limit",
        "1",
        "--try",
        "2",
        "--json",
    )
    for words, count in ((task, 3), (texts, 2)):
        found = run(*words)
        assert len(found["hits"]) == 1 and f"; {count} tried" in found["by"]
        assert found["hits"][0]["tried"] is not None


def test_mistakes_on_the_command_line_are_one_sentence(run, folder, probes, tmp_path):
    assert "no store at" in run("search", "nowhere", "--model", "x", code=1)
    run("build", "store", folder / "gpt2", "--probes", probes)
    for words, part in (
        (("search", "store"), "needs one of"),
        (("search", "store", "--model", "gpt2", "--where", "x = 1"), "condition cannot be understood"),
        (("search", "store", "--model", "gpt2", "--metric", "cosin"), "Did you mean"),
        (("search", "store", "--task", "nowhere.txt"), "no query at"),
        (("remove", "store", "nobody"), "holds no nobody"),
        (("build", "store", folder / "gpt2", "--normalisation", "raw"), "take normalisation"),
        (("add", "store", folder / "gpt2", "--engine", "slurm"), "local, ray"),
        (("add", "store"), "got neither"),
        (
            ("search", "store", "--model", "gpt2", "--try", "3"),
            "does not use --try, which goes with --task, --text",
        ),
        (("search", "store", "--text", "a film", "--base", "gpt2"), "does not use --base"),
        (("search", "store", "--words", "film", "--metric", "kl"), "does not use --metric"),
        (("search", "store", "--task", "a.txt", "--per-base"), "does not use --per-base"),
    ):
        shown = run(*words, code=1)
        assert part in shown and len(shown.strip().splitlines()) == 1, shown
    assert "no model lies in it" in run("build", "new", tmp_path / "store", code=1)
    assert not (tmp_path / "new").exists()
    (tmp_path / "box.json").write_text(json.dumps({"name": "box", "outputs": [[0.5, 0.5]]}))
    assert "one row of scores" in run("add", "store", "--outputs", "box.json", code=1).replace("\n", " ")


def write_card(folder, asks):
    rows = "".join(f"  - {{cue: {cue}, labels: [{', '.join(labels)}]}}\n" for cue, labels in asks)
    (folder / "README.md").write_text(f"---\numaf:\n  asks:\n{rows}---\n# A model\n")


def test_cards_and_lists_say_what_a_model_answers(folder, tmp_path):
    write_card(folder / "llama", [("tone", ("good", "bad")), ("topic", ("film", "music"))])
    found = {one.name: one for one in collect([str(folder)])}
    assert found["llama"].asks == (Ask("tone", ("good", "bad")), Ask("topic", ("film", "music")))
    assert found["gpt2"].asks == ()
    (tmp_path / "list.jsonl").write_text(json.dumps({"model": "org/a", "labels": ["yes", "no"], "cue": "so"}))
    assert collect([str(tmp_path / "list.jsonl")])[0].asks == (Ask("so", ("yes", "no")),)
    (tmp_path / "list.jsonl").write_text(json.dumps({"model": "org/a", "labels": "yes"}))
    with pytest.raises(StoreError, match="two words or more"):
        collect([str(tmp_path / "list.jsonl")])


def test_models_meet_by_what_their_labels_mean(folder, tmp_path):
    """Who shares words is near, a card that says more is read again, and a query of words finds who has them."""
    store = make_store(tmp_path / "store", make_space(PROBES))
    write_card(folder / "gpt2", [("tone", ("good", "bad"))])
    assert len(add(store, collect([str(folder)])).added) == 3
    write_card(folder / "llama", [("tone", ("good", "bad"))])
    assert add(store, collect([str(folder / "llama")])).added == ("llama",) and len(store) == 3
    entries = {one.model: one for one in store.entries()}
    assert (
        entries["llama"].card.words == ("tone: good", "tone: bad") and entries["deep/tuned"].card.words == ()
    )
    assert float(entries["llama"].vector @ entries["gpt2"].vector) > 0.3
    assert abs(float(entries["llama"].vector @ entries["deep/tuned"].vector)) < 0.2
    texts = ("a good film", "a bad film", "good music", "bad music")
    query = Query(texts, ("good", "bad", "good", "bad"), "tone")
    found = by_task(store, query)
    assert found.by == "words, then answers"
    assert {hit.model for hit in found.hits[:2]} == {"llama", "gpt2"} and len(found.hits) == 3
    assert by_task(store, Query(texts, ("a", "b", "a", "b"))).by == "answers"
    with pytest.raises(TaskError, match="two labels or more"):
        by_task(store, Query(texts), route="words")
    assert verify(store).faults == ()


def test_a_trial_ranks_by_what_is_achieved(folder, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", make_space(PROBES))
    for name in ("llama", "gpt2"):
        write_card(folder / name, [("tone", ("good", "bad"))])
    add(store, collect([str(folder / "llama"), str(folder / "gpt2")]))
    add_outputs(
        store, "box", torch.rand(len(PROBES), 2, generator=torch.Generator().manual_seed(0)).softmax(-1)
    )
    query = Query(("a good film", "a bad film", "good music"), ("good", "bad", "good"), "tone")
    found = by_task(store, query)
    tried = try_found(store, found, query, many=3)
    assert (
        tried.by == f"{found.by}; 2 tried" and tried.hits[-1].model == "box" and tried.hits[-1].tried is None
    )
    for hit in tried.hits[:2]:
        scores = label_scores(open_model(folder / hit.model), query.texts, ("good", "bad"), "tone")
        assert hit.tried == pytest.approx(float((scores.argmax(1) == torch.tensor([0, 1, 0])).float().mean()))
    assert tried.hits[0].tried >= tried.hits[1].tried and [hit.rank for hit in tried.hits] == [1, 2, 3]
    silent = try_found(store, found, Query(query.texts), many=2)
    said = {
        one.model: hear(open_model(one.place), Query(query.texts), PROBES, asks_on(one))
        for one in store.entries()
        if one.place
    }
    names = sorted(said)
    wanted = dict(zip(names, worths(dict(enumerate(said[name] for name in names))).values(), strict=True))
    assert {hit.model: pytest.approx(hit.tried) for hit in silent.hits[:2]} == wanted
    assert silent.hits[2].model == "box" and silent.hits[0].tried >= silent.hits[1].tried
    with pytest.raises(TaskError, match="one model or more"):
        try_found(store, found, query, many=0)


def test_answers_come_back_in_the_order_of_the_texts(pico):
    model = open_model(pico("llama"))
    texts = ["a film", "the music of the town was good and the book was bad", "good", "the town was bad"]
    whole = answers_of(model, texts, "so", batch_size=3)
    each = torch.cat([answers_of(model, [text], "so") for text in texts])
    assert torch.allclose(whole, each, atol=1e-5)


def passes_of(model, run):
    """Count passes and readings of the tokenizer while something runs."""
    counts = {"passes": 0, "texts": 0}
    own = type(model.tokenizer).__call__

    def count(*_):
        counts["passes"] += 1

    def read(tokenizer, texts, *given, **more):
        counts["texts"] += len(texts) if isinstance(texts, list) else 0
        return own(tokenizer, texts, *given, **more)

    hook = model.net.register_forward_pre_hook(count)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(model.tokenizer), "__call__", read)
            run()
    finally:
        hook.remove()
    return counts


@pytest.mark.parametrize("asks", [(), (Ask("tone", ("good", "bad")),)])
def test_a_fingerprint_reads_each_probe_once_and_a_base_once_for_all(pico, asks):
    model, base = open_model(pico("llama")), open_model(pico("llama"))
    with torch.no_grad():
        next(model.net.parameters()).add_(0.01)
    space, compute = make_space([*PROBES, "a film " * 90]), load_answered()
    compute.space.places(space.texts)
    counts = passes_of(model, lambda: read_told(model, space, compute, told=asks))
    count = len(space.texts)
    assert counts == {"passes": -(-count // 32), "texts": count}
    found, _ = read_told(model, space, compute, told=asks, base=base)
    assert found.card.truncated == 1
    with torch.no_grad():
        next(model.net.parameters()).add_(0.01)
    again = passes_of(base, lambda: read_told(model, space, compute, told=asks, base=base))
    assert again["passes"] == 0
