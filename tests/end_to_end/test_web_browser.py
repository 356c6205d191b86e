"""The page in a real browser: load, search, compare, a small transfer, a mistake shown well, and no console errors.

Screenshots are kept in out/web. Without Chromium or Playwright these tests are skipped, and say so.
"""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.made_web import CAPABILITIES, made_store, shots
from tests.texts import PROBES
from umaf.cli.web import builds
from umaf.web.run import served
from umaf.web.settings import WebSettings

SHOTS = Path(__file__).resolve().parents[2] / "out" / "web"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
CHROMIUM = os.environ.get("UMAF_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install chromium, or name one in UMAF_CHROMIUM)")
    with playwright.sync_playwright() as running:
        # Inside a container Chromium has no sandbox of its own; it opens nothing but this page.
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """The page over made-up models, an evaluation's figures, and no job yet."""
    root = tmp_path_factory.mktemp("page")
    made_store(root / "store")
    (root / "records" / "speed").mkdir(parents=True)
    (root / "records" / "speed" / "summary.json").write_text(
        '{"search.ms": {"value": 12.5, "low": 11.0, "high": 14.0, "n": 5, "aim": "< 20"}}'
    )
    settings = WebSettings(store=str(root / "store"), records=(root / "records",), work=root / "jobs", port=0)
    with served(settings, builds()) as address:
        yield address


@pytest.fixture
def opened(browser, where):
    """Open a tab of the page; at its end the console has to be silent and nothing may have gone elsewhere."""
    pages, said = [], []

    def open_(tab, *, size="desktop", scheme="light"):
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda problem: said.append(str(problem)))
        page.on("request", lambda asked: asked.url.startswith(where) or said.append(f"asked {asked.url}"))
        page.goto(f"{where}#{tab}")
        page.wait_for_selector("[data-ready]")
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert said == []


def kept(page, name):
    """Keep a screenshot, and refuse a page that is wider than its window."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name


def test_every_tab_opens_at_every_size_light_and_dark(opened):
    for size, scheme in (("desktop", "light"), ("phone", "dark")):
        page = opened("map", size=size, scheme=scheme)
        for tab in ("map", "search", "compare", "records", "jobs", "start"):
            page.click(f"#tabs a[data-page={tab}]")
            page.wait_for_selector(f"main [data-page={tab}][data-ready]")
            assert not page.query_selector(".fault")
            unnamed = page.evaluate(
                "[...document.querySelectorAll('main input, main select, main textarea')]"
                ".filter((one) => !one.labels.length && !one.getAttribute('aria-label')).length"
            )
            assert unnamed == 0
            kept(page, f"{tab}-{size}-{scheme}")


def test_the_map_is_moved_zoomed_and_read_with_the_keyboard_alone(opened):
    page = opened("map")
    assert page.locator(".point").count() == 6
    colours = page.evaluate(
        "new Set([...document.querySelectorAll('.point')].map((one) => one.style.fill)).size"
    )
    shapes = page.evaluate(
        "new Set([...document.querySelectorAll('.point')].map((one) => one.getAttribute('d'))).size"
    )
    assert (colours, shapes) == (3, 2)
    page.locator(".point[tabindex='0']").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".card .facts")
    assert "known by" in page.inner_text(".card")
    view = page.get_attribute(".map svg", "viewBox")
    page.keyboard.press("+")
    assert page.get_attribute(".map svg", "viewBox") != view
    page.keyboard.press("0")
    before = page.evaluate("document.activeElement.dataset.key")
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.classList.contains('point')")
    assert before and page.is_visible(".tip")
    old = page.get_attribute(".point.chosen", "aria-label").split(", ")[1]
    spot = page.locator(f".point:not([aria-label*='{old}'])").first.bounding_box()
    # Another point may lie over it: whichever is hit is chosen.
    page.mouse.click(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
    page.wait_for_selector(f".point.chosen:not([aria-label*='{old}'])")
    chosen = page.get_attribute(".point.chosen", "aria-label").split(",")[0]
    page.wait_for_selector(f".card h2:text-is('{chosen}')")
    page.evaluate("scrollTo(0, 0)")
    box = page.locator(".map svg").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.wheel(0, -300)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 60, steps=3)
    page.mouse.up()
    assert page.get_attribute(".map svg", "viewBox") != view
    page.click("[aria-label='Show all']")
    assert page.get_attribute(".map svg", "viewBox") == view


def test_pasted_texts_find_a_model_and_its_card(opened):
    page = opened("search", size="phone")
    texts, labels = shots("size")
    page.fill("#texts", "\n".join(f"{text}\t{label}" for text, label in zip(texts, labels, strict=True)))
    page.click("button[type=submit]")
    page.wait_for_selector("tbody tr")
    assert "size" in page.inner_text("tbody tr:first-child th")
    page.click("tbody tr:first-child button")
    page.wait_for_selector("section.card .facts")
    kept(page, "found-phone-light")
    page.fill("#texts", "")
    page.click("button[type=submit]")
    page.wait_for_selector(".fault")
    assert "paste at least one" in page.inner_text(".fault")


def test_two_models_are_compared(opened):
    page = opened("compare", scheme="dark")
    page.select_option("[name=a]", label="bert-place (bert)")
    page.select_option("[name=b]", label="llama-place (llama)")
    page.click("button[type=submit]")
    page.wait_for_selector("text=What differs")
    assert page.locator("section.card").count() == 2
    assert "architecture" in page.inner_text("main") and len(CAPABILITIES) == 3
    kept(page, "compared-desktop-dark")


def test_a_record_is_shown_inside_the_page(opened):
    page = opened("records")
    page.click("tbody a")
    frame = page.wait_for_selector("iframe").content_frame()
    frame.wait_for_selector("h1")
    assert "What was measured" in frame.inner_text("h1") and "12.5" in frame.inner_text("body")
    kept(page, "record-desktop-light")


def test_a_transfer_is_started_watched_and_downloaded(opened, tmp_path):
    page = opened("start")
    page.fill("[name=source]", "zoo:gpt2-1m")
    page.fill("[name=target]", "/etc")
    page.fill("[name=probes]", "\n".join(PROBES))
    page.wait_for_selector("#not-yet:has-text('outside the folders')")
    kept(page, "mistake-desktop-light")
    page.fill("[name=target]", "zoo:bert-1m")
    page.fill("[name=labels]", "good,bad")
    page.fill("[name=steps]", "3")
    page.select_option("[name=route]", "distill")
    page.wait_for_selector("#command:has-text('--steps 3')")
    assert "umaf transfer" in page.inner_text("#command") and not page.query_selector("#not-yet")
    page.click("button[type=submit]")
    page.wait_for_selector(".state")
    page.wait_for_selector(".state.done", timeout=120_000)
    assert page.locator(".chart").count() >= 2
    kept(page, "job-desktop-light")
    with page.expect_download() as waiting:
        page.click("text=Download the adapter")
    waiting.value.save_as(tmp_path / "adapter.zip")
    with zipfile.ZipFile(io.BytesIO((tmp_path / "adapter.zip").read_bytes())) as archive:
        assert "adapter/adapter_model.safetensors" in archive.namelist()
    page.click("text=All jobs")
    page.wait_for_selector("text=Started here")
    kept(page, "jobs-after-desktop-light")


def test_a_merge_that_fails_says_why_in_one_sentence(opened):
    page = opened("start", size="phone", scheme="dark")
    page.click("text=merge models")
    for at, name in enumerate(("zoo:bert-1m", "zoo:gpt2-1m")):
        page.locator("[aria-label=Model]").nth(at).fill(name)
    page.locator("[aria-label=Weight]").nth(0).fill("0.5")
    page.locator("[aria-label=Weight]").nth(1).fill("0.5")
    page.wait_for_selector("#command:has-text('umaf merge')")
    page.click("summary:has-text('recipe.yml')")
    page.wait_for_selector("details pre:has-text('zoo:gpt2-1m')")
    kept(page, "merge-phone-dark")
    page.click("button[type=submit]")
    page.wait_for_selector(".state.failed", timeout=120_000)
    said = page.inner_text("p.fault")
    assert "gpt2" in said and "Traceback" not in said and said.endswith(".")
    kept(page, "failed-phone-dark")
