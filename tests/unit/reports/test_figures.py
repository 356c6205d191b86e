from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from umaf.errors import ConfigError, OutputError
from umaf.evaluation.statistics import Interval
from umaf.evaluation.summary import Figure as Number
from umaf.reports.bars import BarStyle, grouped_bars
from umaf.reports.figures import fingerprint_map, recovery_bars, similarity_heatmap
from umaf.reports.save import inline_svg, save_figure
from umaf.reports.theme import INK, short

RANDOM = np.random.default_rng(0)
SCORES = {
    "tense": {"oracle": Interval(0.9, 0.85, 0.95, 200), "bare": Interval(0.5, 0.4, 0.6, 200)},
    "topic": {"bare": Interval(0.3, float("nan"), float("nan"), 1), "solve": Number(None)},
}


def _square(size: int) -> np.ndarray:
    table = RANDOM.normal(size=(size, 8))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return table @ table.T


def _figures():
    kinds = [f"capability {i % 11}" for i in range(24)]
    return {
        "map": fingerprint_map(RANDOM.normal(size=(24, 512)), kinds, [f"a{i % 5}" for i in range(24)]),
        "small": similarity_heatmap(_square(4), ["a", "b", "c", "d"]),
        "large": similarity_heatmap(_square(40), [f"model {i}" for i in range(40)]),
        "bars": recovery_bars(SCORES, chance={"tense": 0.5}),
    }


@pytest.mark.parametrize("name", ["map", "small", "large", "bars"])
def test_saved_as_png_and_svg(tmp_path: Path, name: str):
    png, svg = save_figure(_figures()[name], tmp_path / "figures", name)
    with Image.open(png) as image:
        assert image.width == 900
    tree = ElementTree.parse(svg)
    assert tree.getroot().tag.endswith("svg")
    assert "prefers-color-scheme" in svg.read_text()
    assert svg.stat().st_size < 400_000
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_the_same_data_give_the_same_bytes(tmp_path: Path):
    for place in ("a", "b"):
        save_figure(recovery_bars(SCORES), tmp_path / place, "bars")
    assert (tmp_path / "a" / "bars.svg").read_bytes() == (tmp_path / "b" / "bars.svg").read_bytes()
    assert (tmp_path / "a" / "bars.png").read_bytes() == (tmp_path / "b" / "bars.png").read_bytes()


def test_saving_where_a_file_lies_is_refused(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError):
        save_figure(recovery_bars(SCORES), tmp_path / "taken", "bars")


def test_inline_svg_takes_the_pages_colours_and_keeps_ids_apart():
    drawing = inline_svg(_figures()["small"], prefix="f1")
    assert drawing.startswith("<svg") and drawing.endswith("</svg>")
    assert INK not in drawing and "var(--ink)" in drawing
    assert "http" not in drawing
    ids = re.findall(r'\bid="([^"]+)"', drawing)
    assert ids and all(one.startswith("f1-") for one in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', drawing)
    assert set(used) <= set(ids)


def test_text_in_a_figure_stays_text():
    name = '<script>alert("$x_1$")</script>'
    drawing = inline_svg(recovery_bars({name: SCORES["tense"]}), prefix="f")
    assert "<script" not in drawing and "&lt;script&gt;" in drawing
    assert "$x_1$" in drawing


@pytest.mark.parametrize("name", ["_hidden", "模型", "a" * 80, " ", "$\\frac{"])
def test_any_name_can_be_drawn(tmp_path: Path, name: str):
    save_figure(similarity_heatmap(np.eye(2), [name, "b"]), tmp_path, "heat")
    save_figure(fingerprint_map(np.eye(3), [name, "b", "b"], ["c", name, name]), tmp_path, "map")
    figure = grouped_bars({name: {name: Interval(0.5, 0.4, 0.6, 9)}}, style=BarStyle(name, name))
    drawing = inline_svg(figure, prefix="f")
    if name == "_hidden":
        assert drawing.count("_hidden") >= 3


def test_the_map_finds_the_direction_that_matters():
    table = np.zeros((4, 512))
    table[:, 7] = [-3, -1, 1, 3]
    axes = fingerprint_map(table, list("aabb"), list("cdcd")).axes[0]
    assert "100%" in axes.get_xlabel()
    xs = [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("None", "", None)]
    assert sorted(xs) == pytest.approx([-3, -1, 1, 3])


def test_the_heatmap_puts_like_next_to_like():
    table = np.full((4, 4), 0.1)
    np.fill_diagonal(table, 1)
    table[0, 2] = table[2, 0] = table[1, 3] = table[3, 1] = 0.9
    axes = similarity_heatmap(table, ["a", "b", "c", "d"]).axes[1]
    order = "".join(label.get_text()[0] for label in axes.get_yticklabels())
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset("ac"), frozenset("bd")}
    values = {text.get_text() for text in axes.texts}
    assert values == {"1", ".10", ".90"}


def test_similarities_above_one_and_below_zero_are_drawn():
    assert similarity_heatmap([[2.0, -3.0], [-3.0, 1.5]], ["a", "b"]).axes
    assert similarity_heatmap(np.ones((3, 3)), ["a", "b", "c"]).axes


def test_bars_keep_the_order_and_say_what_is_missing():
    axes = recovery_bars(SCORES).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["bare", "oracle", "solve"]
    words = [text.get_text() for text in axes.texts]
    assert "not measured" in words and "0.50" in words


def test_bars_below_zero_and_above_one_fit():
    bars = {"a": {"x": Interval(-0.4, -0.6, -0.2, 9), "y": Interval(1.3, 1.1, 1.5, 9)}}
    left, right = grouped_bars(bars, style=BarStyle("t", "a")).axes[0].get_xlim()
    assert left <= -0.6 and right > 1.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: fingerprint_map(np.zeros((1, 512)), ["a"], ["b"]),
        lambda: fingerprint_map(np.zeros((2, 512)), ["a"], ["b", "c"]),
        lambda: fingerprint_map(np.full((2, 4), np.nan), ["a", "b"], ["b", "c"]),
        lambda: similarity_heatmap(np.eye(3), ["a", "b"]),
        lambda: similarity_heatmap([[1, 0.5], [0.1, 1]], ["a", "b"]),
        lambda: recovery_bars({}),
        lambda: recovery_bars({"a": {}}),
    ],
)
def test_data_that_cannot_be_drawn_are_refused(call):
    with pytest.raises(ConfigError) as found:
        call()
    assert "\n" not in str(found.value)


def test_long_names_keep_both_ends():
    assert short("abcdefghij", most=7) == "abc…hij"
    assert short("a\n b") == "a b"
