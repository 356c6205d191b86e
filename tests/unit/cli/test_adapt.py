"""`umaf adapt`, `umaf chat` and `umaf serve`, from words typed to what is printed."""

from __future__ import annotations

import io
import json

import pytest

from tests.unit.dispatch.conftest import make_expert
from umaf.cli import adapt as adapt_module
from umaf.cli import main
from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.decode import Drawing
from umaf.experts.expert import save_expert
from umaf.models import open_model


def run(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


@pytest.fixture(scope="module")
def base(pico):
    return open_model(pico("llama"))


@pytest.fixture(scope="module")
def shelf(pico, base, tmp_path_factory):
    """The words that name a base and its shelf."""
    place = tmp_path_factory.mktemp("shelf")
    words = [pico("llama")]
    for name in ("good", "bad"):
        words += ["--expert", save_expert(make_expert(base, name), place / name)]
    return [*words, "--cache", place / "cache"]


@pytest.fixture(scope="module")
def adaptive(base, shelf):
    return AdaptiveModel.open(base, [shelf[2], shelf[4]], by=None)


def test_adapt_answers_each_request_and_explains(shelf, capsys):
    assert run("adapt", *shelf, "is the film good", "no", "--max-new-tokens", 6, "--explain") == 0
    out = capsys.readouterr().out
    assert out.count("the base finds ") == 2 and "first pass" in out


def test_one_request_is_answered_as_it_is_written(shelf, capsys, monkeypatch, adaptive):
    """Piece by piece; and what comes out is what a batch would have said."""
    written, inner = [], adapt_module._print
    monkeypatch.setattr(adapt_module, "_print", lambda piece: (written.append(piece), inner(piece)))
    words = ("--use", "bad", "--max-new-tokens", 30, "--explain")
    assert run("adapt", *shelf, "rain fell on", *words) == 0
    mine = adaptive.generate(["rain fell on"], drawing=Drawing(30), experts="bad")[0]
    assert written.pop() is None and "".join(written).strip() == mine.text and len(written) > 1
    reply, why = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert reply.strip() == mine.text and "asked for by name" in why and "first pass" in why


def test_adapt_gives_json_and_reads_files(shelf, capsys, tmp_path, adaptive):
    asked = tmp_path / "asked.txt"
    asked.write_text("is the film good\n\nof joy\n")
    words = ("--use", "bad=0.5", "--use", "good", "--cue", "answer", "--max-new-tokens", 6, "--json")
    assert run("adapt", *shelf, "--file", asked, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["request"] for one in found] == ["is the film good", "of joy"]
    assert found[0]["weights"] == {"good": 1.0, "bad": 0.5}
    mine = adaptive.generate(
        ["is the film good", "of joy"], cue="answer", drawing=Drawing(6), experts={"good": 1.0, "bad": 0.5}
    )
    assert [one["text"] for one in found] == [reply.text for reply in mine]


def test_adapt_by_probe_few_shot_and_classifier(shelf, capsys, tmp_path):
    for name, text in (("good", "the film was good"), ("bad", "rain fell on")):
        (tmp_path / f"{name}.txt").write_text(
            "".join(f"{text} {end}\n" for end in ("a", "b", "c", "d", "e", "f"))
        )
    shots = tmp_path / "shots.jsonl"
    shots.write_text('{"text": "is", "answer": "no"}\n\n{"text": "of", "answer": "joy"}\n')
    examples = [word for name in ("good", "bad") for word in ("--examples", f"{name}={tmp_path / name}.txt")]
    ways = (
        ["probe", *examples],
        ["few-shot", "--shots", shots, "--cue", "answer", "--iterations", 1],
        [
            "few-shot",
            "--shots",
            shots,
            "--cue",
            "answer",
            "--iterations",
            1,
            "--per",
            "layer",
            "--search",
            "cma",
        ],
    )
    for way in ways:
        assert run("adapt", *shelf, "the film was good", "--by", *way, "--max-new-tokens", 2, "--json") == 0
        why = json.loads(capsys.readouterr().out)[0]["why"]
        assert ("the probe finds good" in why) == (way[0] == "probe")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing was asked"),
        (["x", "--by", "magic"], "No dispatcher is called 'magic'"),
        (["x", "--by", "probe"], "fewer than two"),
        (["x", "--by", "few-shot"], "without shots"),
        (["x", "--by", "classifier"], "no expert trained for it"),
        (["x", "--use", "sums"], "the shelf has good, bad"),
        (["x", "--use", "good=much"], "write NAME or NAME=WEIGHT"),
        (["x", "--by", "probe", "--examples", "good"], "write NAME=FILE"),
        (["x", "--by", "probe", "--examples", "good=nowhere.txt"], "cannot be read"),
        (["x", "--max-new-tokens", 500], "Replies of 500 tokens"),
        (["rain fell " * 200], "has room for"),
    ],
)
def test_adapt_says_what_is_wrong_in_one_line(shelf, capsys, words, sentence):
    assert run("adapt", *shelf, *words) == 1
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


def test_a_reward_is_searched_for_where_one_is_named(shelf, capsys, tmp_path):
    shots = tmp_path / "shots.jsonl"
    shots.write_text('{"text": "is", "answer": "no"}\n')
    words = ["x", "--by", "few-shot", "--shots", shots, "--iterations", 1, "--max-new-tokens", 2, "--json"]
    for more, told in (([], "nats per answer"), (["--reward", "exact"], "% of them right")):
        assert run("adapt", *shelf, *words, *more) == 0
        assert told in json.loads(capsys.readouterr().out)[0]["why"]


def test_shots_that_are_none(shelf, capsys, tmp_path):
    path = tmp_path / "shots.jsonl"
    path.write_text('{"text": "is"}\n')
    assert run("adapt", *shelf, "x", "--by", "few-shot", "--shots", path) == 1
    assert "Line 1 of" in capsys.readouterr().err
    path.write_text('{"text": "half a \\ud800", "answer": "x"}\n')
    assert run("adapt", *shelf, "x", "--by", "few-shot", "--shots", path) == 1
    assert "Line 1 of" in capsys.readouterr().err


def test_texts_for_an_expert_that_is_not_there_are_told(shelf, capsys, tmp_path):
    texts = tmp_path / "texts"
    texts.write_text("is it\nso good\n")
    assert run("adapt", *shelf, "x", "--by", "prompt", "--examples", f"godo={texts}") == 1
    err = capsys.readouterr().err
    assert 'texts for "godo", but the shelf has good, bad' in err and 'Did you mean "good"' in err
    assert err.count("\n") == 1


def test_a_message_that_is_no_text_does_not_end_the_conversation(shelf, capsys, monkeypatch):
    said = io.TextIOWrapper(io.BytesIO(b"is it\n\xff\xfe\nso good\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", said)
    assert run("chat", *shelf, "--by", "none", "--max-new-tokens", 2, "--json") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and err.count("half of a character") == 1 and err.count("\n") == 1


def typed(monkeypatch, *lines):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_chat_keeps_the_conversation_and_its_experts(shelf, capsys, monkeypatch, adaptive):
    typed(
        monkeypatch,
        "is the film good",
        "/use bad",
        "yes",
        "/use sums",
        "/forget",
        "is the film good",
        "/end",
        "never",
    )
    words = ("--cue", "answer", "--by", "none", "--temperature", 0, "--max-new-tokens", 5, "--json")
    assert run("chat", *shelf, *words) == 0
    out, err = capsys.readouterr()
    said = [json.loads(line) for line in out.splitlines()]
    assert [one["experts"]["bad"] for one in said] == [0.0, 1.0, 1.0]
    first = adaptive.generate(["is the film good"], cue="answer", drawing=Drawing(5))[0].text
    assert said[0]["reply"] == first
    earlier = f"is the film good\nanswer: {first}\nyes"
    assert (
        said[1]["reply"]
        == adaptive.generate([earlier], cue="answer", drawing=Drawing(5), experts="bad")[0].text
    )
    assert (
        said[2]["reply"]
        == adaptive.generate(["is the film good"], cue="answer", drawing=Drawing(5), experts="bad")[0].text
    )
    assert 'The expert "sums" was asked for' in err


def test_chat_leaves_out_what_no_longer_fits_and_goes_on_after_a_mistake(shelf, capsys, monkeypatch):
    long = "rain fell on the hills " * 12
    typed(monkeypatch, long, long, "rain " * 300, "no", "/help")
    words = ("--by", "none", "--temperature", 0, "--max-new-tokens", 20, "--explain", "--system", "be kind")
    assert run("chat", *shelf, *words) == 0
    out, err = capsys.readouterr()
    assert "2 earlier messages no longer fit the window" in err
    assert err.count("has room for") == 1 and "/forget starts anew" in err
    assert err.count("the base alone: no expert was asked for") == 3
    assert len(out.splitlines()) >= 3


def test_serve_says_where_and_whom(shelf, capsys, monkeypatch, tmp_path):
    seen = {}

    def record(adaptive, settings, *, ready):
        seen.update(names=adaptive.shelf.names, settings=settings)
        ready("http://127.0.0.1:1/v1")

    monkeypatch.setattr("umaf.serve.run.serve", record)
    token = tmp_path / "token"
    token.write_text("a-long-enough-token\n")
    words = ("--by", "none", "--host", "0.0.0.0", "--token-file", token, "--name", "mine", "--batch", 3)
    assert run("serve", *shelf, *words) == 0
    assert seen["names"] == ("good", "bad")
    assert seen["settings"].token == "a-long-enough-token" and seen["settings"].batch == 3
    assert capsys.readouterr().out == "http://127.0.0.1:1/v1 answers as mine, with good, bad\n"


def test_serve_needs_a_token_for_other_addresses(shelf, capsys, monkeypatch):
    monkeypatch.delenv("UMAF_SERVE_TOKEN", raising=False)
    assert run("serve", *shelf, "--host", "0.0.0.0") == 1
    assert "can be reached from other machines; give a token" in capsys.readouterr().err
    monkeypatch.setenv("UMAF_SERVE_TOKEN", "short")
    assert run("serve", *shelf) == 1
    assert "8 characters" in capsys.readouterr().err
    monkeypatch.setenv("UMAF_SERVE_TOKEN", "two words of a töken")
    assert run("serve", *shelf) == 1
    assert "ASCII letters, digits and signs without spaces" in capsys.readouterr().err
    assert run("serve", *shelf, "--token-file", "nowhere") == 1
    assert "cannot be read" in capsys.readouterr().err
