"""The report in a real browser without a network: nothing is asked for, nothing complains, everything can be used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyhess as ph
from pyhess.sweep import Export

from .report_tools import failed, make_store

pytest.importorskip("plotly", reason="plotly (pyhess[report]) is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `make browser-test` sets it up")

CHROMIUM = os.environ.get("PYHESS_CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed; on Debian: apt install chromium")

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = [
        (
            {"data": data, "width": width, "depth": depth, "seed": seed},
            {"lam_lower": 0.1 * seed * width**0.5 * depth, "lam_upper": 9e3},
        )
        for data in ("xor", HOSTILE)
        for width in (2, 4, 8, 16)
        for depth in (1, 2)
        for seed in (11, 12, 13)
    ]
    cells += [({"data": HOSTILE, "width": 32, "depth": 1}, failed(error=f"broken: {HOSTILE}"))]
    cells += [({"data": "xor", "width": 32, "depth": 1}, {"time_limited": True})]
    return make_store(tmp_path_factory.mktemp("browser") / "run.db", cells, name=f"sweep {HOSTILE}", provenance={"host": HOSTILE})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, store: Path) -> Iterator[Any]:
    """The report, opened; afterwards it must not have complained nor asked for anything."""
    report = ph.report(store, store.with_suffix(".html"))
    context = browser.new_context(offline=True, accept_downloads=True, viewport={"width": 1200, "height": 900})
    complaints: list[str] = []
    asked: list[str] = []

    def watch(route: Any) -> None:
        if route.request.url.startswith(("file://", "data:", "blob:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    context.route("**/*", watch)
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    opened.goto(report.as_uri())
    opened.wait_for_selector("html[data-ready]", timeout=60_000)
    yield opened
    context.close()
    assert complaints == [] and asked == []


PLOT = "#figure-bracket-width .plot"


def state(page: Any, expression: str) -> Any:
    return page.evaluate(f"() => {{ const plot = document.querySelector('{PLOT}'); return {expression}; }}")


def visible_lines(page: Any) -> int:
    return int(page.locator(f"{PLOT} .scatterlayer .trace .lines path.js-line").count())


def test_figures_are_drawn_and_names_are_text(page: Any) -> None:
    figures = page.locator("figure").evaluate_all("all => all.map(one => one.id)")
    assert figures == ["figure-bracket-width", "figure-bracket-depth", "figure-ratio", "figure-winners", "figure-timing"]
    for ident in figures:
        assert page.locator(f"#{ident} svg.main-svg").count() >= 1
    assert page.locator("h1").inner_text() == f"sweep {HOSTILE}"
    assert page.locator("img, [onerror]").count() == 0
    assert f"broken: {HOSTILE}" in page.locator("body").inner_text()
    labels = page.locator("#figure-bracket-width select option").all_inner_texts()
    assert labels == ["xor", HOSTILE]


def test_the_panel_can_be_chosen(page: Any) -> None:
    caption = page.locator("#figure-bracket-width .caption")
    assert "25 of 25 cells have a result" in caption.inner_text() and "time limit ended 1" in caption.inner_text()
    page.select_option("#figure-bracket-width select", label=HOSTILE)
    assert "24 of 25 cells have a result; 1 failed are left out" in caption.inner_text()
    names = page.locator(f"{PLOT} .legendtext").all_text_contents()
    assert "some cells missing" in names and len(names) == 5


def test_hover_tells_the_numbers(page: Any) -> None:
    page.locator(PLOT).scroll_into_view_if_needed()
    # The second point of the first curve with markers, wherever it is on the screen.
    box = page.locator(f"{PLOT} .scatterlayer .trace .points path").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2.0, box["y"] + box["height"] / 2.0)
    page.wait_for_selector(f"{PLOT} .hoverlayer .hovertext")
    told = " ".join(page.locator(f"{PLOT} .hoverlayer .hovertext").all_text_contents())
    assert "depth 1, at 4" in told and "λ lower: 2.4" in told and "3 of 3 cells" in told


def test_the_legend_hides_and_shows_a_curve(page: Any) -> None:
    before = visible_lines(page)
    entry = page.locator(f"{PLOT} .legendtoggle").first
    entry.scroll_into_view_if_needed()
    entry.click()
    page.wait_for_function(
        f"() => document.querySelectorAll('{PLOT} .scatterlayer .trace .lines path.js-line').length < {before}"
    )
    hidden = state(page, "plot.data.filter(one => one.visible === 'legendonly').map(one => one.legendgroup)")
    assert set(hidden) == {"depth 1 lower"} and len(hidden) == before - visible_lines(page)
    page.wait_for_timeout(500)  # two quick clicks would be a double click, which means something else
    entry.click()
    page.wait_for_function(
        f"() => document.querySelectorAll('{PLOT} .scatterlayer .trace .lines path.js-line').length === {before}"
    )


@pytest.mark.parametrize("scale", ["x", "y"])
def test_scales_can_be_switched(page: Any, scale: str) -> None:
    button = page.locator(f"#figure-bracket-width button[data-scale={scale}]")
    kind, limits = f"plot._fullLayout.{scale}axis.type", f"plot._fullLayout.{scale}axis.range"
    assert state(page, kind) == "log" and button.get_attribute("aria-pressed") == "true"
    logarithmic = state(page, limits)
    button.click()
    assert state(page, kind) == "linear" and button.get_attribute("aria-pressed") == "false"
    assert state(page, limits)[1] > 10.0 * logarithmic[1]
    button.click()
    assert state(page, kind) == "log"
    assert state(page, limits) == pytest.approx(logarithmic)


def test_the_table_can_be_downloaded(page: Any, store: Path, tmp_path: Path) -> None:
    with page.expect_download() as waited:
        page.click("#download")
    download = waited.value
    assert download.suggested_filename == "run.csv"
    download.save_as(tmp_path / "run.csv")
    lines = (tmp_path / "run.csv").read_text(encoding="utf-8").splitlines()
    table = Export(store).table()
    assert len(lines) == 1 + len(table["key"]) and lines[0].split(",") == [name for name in table if name != "traceback"]
    assert sum(f"broken: {HOSTILE}" in line for line in lines) == 1


def test_nothing_overlaps_on_a_small_dark_screen(browser: Any, store: Path) -> None:
    report = ph.report(store, store.with_suffix(".html"))
    context = browser.new_context(offline=True, color_scheme="dark", viewport={"width": 480, "height": 800})
    page = context.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ground, text = (page.evaluate(f"getComputedStyle(document.documentElement).{name}") for name in ("backgroundColor", "color"))
    assert ground == "rgb(22, 25, 29)" and text == "rgb(223, 227, 232)"
    assert state(page, "plot._fullLayout.font.color") == "#dfe3e8"
    context.close()


def test_the_numbers_are_there_without_scripts(browser: Any, store: Path) -> None:
    report = ph.report(store, store.with_suffix(".html"))
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    text = page.locator("body").inner_text()
    assert "exponent" in text and "0.500" in text and "need JavaScript" in text and "25 of 25 cells have a result" in text
    assert page.locator("#download").is_hidden()
    context.close()
