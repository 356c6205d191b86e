"""`umaf report`: every kind of record, what it says of each, and what it does not understand."""

from __future__ import annotations

import json
import re
import signal

import numpy as np
import pytest

from tests.unit.reports.made_records import EVIL, MAKERS
from tests.unit.reports.test_html import Page
from umaf.cli import main
from umaf.errors import ConfigError
from umaf.evaluation.statistics import Interval
from umaf.evaluation.summary import Figure
from umaf.reports.curves import training_curves
from umaf.reports.figures import fingerprint_map
from umaf.reports.forest import forest, met
from umaf.reports.known import WORDS, find_records, identify
from umaf.reports.layers import layer_bars
from umaf.reports.pages import report
from umaf.reports.pages.page import PAGES
from umaf.reports.pages.parts import command_line
from umaf.reports.pages.weights import _norms
from umaf.reports.pareto import Offer, front, pareto_front

SAID = {
    "quickstart": ("Recovery, with 95 % intervals", "What seconds buy", "umaf quickstart"),
    "transfer": ("Gain on wanted", "Forgotten elsewhere", "it writes nothing", "umaf transfer"),
    "merged": ("Beside its parents", "What it cost elsewhere", "umaf merge recipe.yml out"),
    "evaluate": ("Sure differences", "What size buys", "umaf evaluate small large --task a"),
    "measured": ("base, by method", "make bench-merge"),
    "summary": ("2 of 3", "missed", "recovery.none"),
    "merge": ("ties", "one note", "umaf merge recipe.yml", "method: ties"),
    "adapter": ("zoo:llama-1m", "norm of the update", "PeftModel.from_pretrained"),
    "diff": ("Most changed", "umaf diff a b --json", "Only in a"),
    "monitor": ("a run", "loss is not a number at step 70", "umaf monitor run"),
    "expert": ("The expert sums", "graded/stories", "How it learned"),
    "fingerprint": ("Silhouette by capability", "t-SNE", "Whose fingerprints these are"),
}


def test_every_kind_has_a_page_and_a_test():
    assert set(WORDS) == set(MAKERS) == set(SAID) == {*PAGES, "fingerprint"}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_record_of_each_kind_becomes_a_page_without_requests(kind, tmp_path):
    place = MAKERS[kind](tmp_path)
    page, unknown = report([place], tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    read = Page(text)
    words = " ".join(" ".join(read.words).split())
    assert unknown == [] and not read.all("script") and not read.all("img") and "<script>alert" not in text
    assert not re.search(r"(src|href|action)=\"(?!#|data:)", text)
    for word in SAID[kind]:
        assert word in words, f"{word!r} is not on the page of {kind}"
    assert all(drawing.get("aria-label") for drawing in read.all("div") if drawing.get("role") == "img")


def test_several_kinds_stand_on_one_page(tmp_path):
    places = []
    for kind in ("summary", "merge", "adapter", "diff", "expert", "transfer"):
        folder = tmp_path / kind
        folder.mkdir()
        places.append(MAKERS[kind](folder))
    page, unknown = report(places, tmp_path / "all.html")
    read = Page(page.read_text(encoding="utf-8"))
    ids = [found["id"] for _, found in read.tags if "id" in found]
    assert unknown == [] and len(ids) == len(set(ids))
    assert len([one for one in read.all("div") if one.get("role") == "img"]) == 8


def test_every_drawing_is_written_as_png_and_svg(tmp_path):
    report([MAKERS["diff"](tmp_path)], tmp_path / "report.html", figures=tmp_path / "figures")
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["layers.png", "layers.svg", "modules.png", "modules.svg"]


def test_a_folder_gives_all_that_is_known_in_it_and_nothing_else(tmp_path):
    MAKERS["transfer"](tmp_path)
    MAKERS["adapter"](tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"r": 2}')
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert [one.kind for one in find_records([tmp_path])] == ["transfer", "adapter"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no record in it"):
        find_records([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", '{"foo": 1}'), ("b.json", "[1]"), ("c.json", "nonsense"), ("d.safetensors", "nonsense")],
)
def test_an_unknown_file_is_said_and_alone_is_an_error(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert identify(tmp_path / name).kind == "unknown"
    with pytest.raises(ConfigError, match="no record this version knows"):
        report([tmp_path / name], tmp_path / "report.html")
    known = MAKERS["summary"](tmp_path)
    page, unknown = report([known, tmp_path / name], tmp_path / "report.html")
    assert [one.path.name for one in unknown] == [name]
    assert f"{name} is no record this version knows" in page.read_text(encoding="utf-8")


def test_a_damaged_record_is_one_sentence(tmp_path):
    place = MAKERS["evaluate"](tmp_path)
    data = json.loads(place.read_text())
    del data["seed"]
    place.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="is not whole"):
        report([place], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    MAKERS["summary"](tmp_path)
    (tmp_path / "odd.json").write_text('{"foo": 1}')
    words = ["report", "summary.json", "odd.json", "-o", "page.html", "--figures", "figures", "--title", EVIL]
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert end.value.code == 0 and shown == {
        "page": "page.html",
        "figures": "figures",
        "not_understood": ["odd.json"],
    }
    assert EVIL not in (tmp_path / "page.html").read_text()
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr()
    assert "page.html" in said.out and "odd.json is no record" in said.err
    with pytest.raises(SystemExit) as end:
        main(["report", "nothing.json"])
    assert end.value.code == 1 and "no such file" in capsys.readouterr().err


def test_norms_of_an_adapter_are_those_of_the_product(tmp_path):
    found = _norms(identify(MAKERS["adapter"](tmp_path)))
    # A of ones [2, 4], B of k [4, 2]: every entry of B A is 2 k, sixteen of them.
    assert list(found.values()) == pytest.approx([8.0, 16.0, 24.0])


def test_the_front_is_what_nothing_beats():
    def offer(cost, value):
        return Offer(cost, Interval(value, value, value, 1))

    offers = {
        "a": offer(1, 0.5),
        "b": offer(1, 0.4),
        "c": offer(2, 0.5),
        "d": offer(3, 0.9),
        "e": offer(2, np.nan),
    }
    assert front(offers) == ["a", "d"]
    texts = [
        text.get_text()
        for text in pareto_front(offers, title="t", cost="c", score="s").legends[0].get_texts()
    ]
    assert [text.split()[-1] for text in texts] == ["a", "d"]
    with pytest.raises(ConfigError):
        pareto_front({"e": offer(2, np.nan)}, title="t", cost="c", score="s")


def test_aims_are_read_both_ways():
    assert met(Figure(2.0, aim="<= 2")) is True and met(Figure(2.0, aim="> 2")) is True
    assert met(Figure(0.5, aim="as good as before")) is None and met(Figure(None, aim=1)) is None
    with pytest.raises(ConfigError):
        forest({"a": Figure(None)}, title="none")


def test_drawings_refuse_what_they_cannot_show():
    with pytest.raises(ConfigError):
        training_curves({"loss": ([], [])}, title="none")
    with pytest.raises(ConfigError):
        layer_bars({})
    with pytest.raises(ConfigError, match="tsne four or more"):
        fingerprint_map(np.eye(3), list("abc"), list("abc"), method="tsne")


def test_neighbours_are_the_same_each_time():
    draw = np.random.default_rng(0).standard_normal((8, 16))
    places = []
    for _ in range(2):
        figure = fingerprint_map(draw, list("aabbccdd"), ["x"] * 8, method="tsne")
        places.append([line.get_xydata().tolist() for line in figure.axes[0].lines])
    assert places[0] == places[1]


def test_a_command_line_leaves_defaults_out():
    config = {
        "recipe": "r.yml",
        "out": "o",
        "dry_run": False,
        "seed": None,
        "evaluate": ["a", "b"],
        "workers": 2,
    }
    assert (
        command_line("merge", config, places=["recipe", "out"])
        == "umaf merge r.yml o --evaluate a --evaluate b"
    )
    assert (
        command_line("transfer", {"labels": [["x", "y"]], "truncate": True})
        == "umaf transfer --labels x,y --truncate"
    )
