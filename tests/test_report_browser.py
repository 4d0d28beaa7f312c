"""The page of a run in Chromium, at a phone's width and at a desk's: every control used, every sound played.

Skipped where there is no Chromium, or no playwright to drive it: CHROMIUM=/path names one that is not on PATH.
The whole of it is done on a tiny run with hostile names, and (`full`) on a real run of ESC-10, see `real_run`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import Page

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright; pip install -e '.[browser]'")

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
SIZES = {"phone": (390, 844), "desk": (1280, 900)}


def _chromium() -> str:
    given = os.environ.get("CHROMIUM")
    found = given or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on PATH ({', '.join(NAMES)}); set CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=_chromium(), args=flags)
        yield one
        one.close()


@pytest.fixture(scope="module", params=["tiny", pytest.param("esc10", marks=pytest.mark.full)])
def page(browser: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of a tiny run with hostile names, or of a real one."""
    folder = tmp_path_factory.mktemp("page") / "run"
    if request.param == "esc10":
        return pages.real(request.getfixturevalue("real_run"), folder)
    return pages.hostile(request.getfixturevalue("finished"), folder)


@contextmanager
def _opened(browser: Any, file: Path, size: str, **more: Any) -> Iterator[tuple[Any, list[str]]]:
    width, height = SIZES[size]
    still = {"reduced_motion": "reduce"}  # a smooth scroll is still under way when the pointer comes
    context = browser.new_context(viewport={"width": width, "height": height}, **still, **more)
    context.set_default_timeout(30_000)
    shown, said = context.new_page(), []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda one: said.append(one.url) if not one.url.startswith(("file:", "data:")) else None)
    shown.goto(file.as_uri())
    yield shown, said
    context.close()


@pytest.mark.parametrize("size", SIZES)
def test_every_control_does_its_work(browser: Any, page: Page, size: str) -> None:
    with _opened(browser, page.file, size) as (shown, said):
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        _tables(shown)
        _matrix(shown, page)
        _charts(shown, page)
        _mistakes(shown, page)
        _map(shown, page)
        _opening(shown)
        assert shown.evaluate("window.bad") is None
        assert said == []


def _column(shown: Any, table: str, place: int) -> list[str]:
    texts: list[str] = shown.locator(f"{table} tbody tr").evaluate_all(
        f"rows => rows.map(row => row.cells[{place}].textContent.trim())"
    )
    return texts


def _tables(shown: Any) -> None:
    table = "#classes table"
    heads = shown.locator(f"{table} thead th")
    for place in range(heads.count()):
        before = sorted(_column(shown, table, 0))
        head = heads.nth(place)
        for wanted in ("first", "second"):
            head.locator("button").click()
            numbers = [text for text in _column(shown, table, place) if text not in ("", "–")]
            assert sorted(_column(shown, table, 0)) == before
            if head.get_attribute("data-sort") == "number" and place < heads.count() - 1:
                falling = head.get_attribute("aria-sort") == "descending"
                assert falling == (wanted == "first")
                values = [float(text.replace(",", "").partition(" to ")[0]) for text in numbers]
                assert values == sorted(values, reverse=falling)
    head = heads.first.locator("button")
    head.focus()
    shown.keyboard.press("Enter")  # by keyboard as by mouse
    assert heads.first.get_attribute("aria-sort") in ("ascending", "descending")


def _cells(shown: Any) -> dict[tuple[str, str], str]:
    """The matrix by the names of its heads, wherever they stand."""
    found: list[list[str]] = shown.evaluate(
        """() => {
          const table = document.querySelector("#matrix");
          const heads = [...table.tHead.rows[0].cells].slice(1).map(cell => cell.textContent.trim());
          return [...table.tBodies[0].rows].flatMap(row => [...row.cells].slice(1).map((cell, i) =>
            [row.cells[0].textContent.trim(), heads[i], cell.textContent.trim()]));
        }"""
    )
    return {(row, column): text for row, column, text in found}


def _matrix(shown: Any, page: Page) -> None:
    before = _cells(shown)
    assert len(before) == len(page.names) * (len(page.names) + 1)  # and a column of clips
    assert {row for row, _ in before} == set(page.names) == {column for _, column in before} - {"clips"}
    orders = set()
    for value in ("name", "recall", "clips", "similar", "class"):
        shown.select_option("#order", value)
        assert _cells(shown) == before  # no number ever leaves its classes
        rows = [text for text in _column(shown, "#matrix", 0)]
        heads = shown.locator("#matrix thead th bdi").all_inner_texts()
        assert rows == [shown.evaluate("text => text.trim()", text) for text in heads]
        orders.add(tuple(rows))
    assert len(orders) > 1
    shown.locator("#matrix thead th button").first.click()
    shown.locator("#matrix tbody th button").nth(1).click()
    assert _cells(shown) == before and shown.locator("#said").inner_text()
    shown.check("input[value=share]")
    share = _cells(shown)
    for (row, column), text in before.items():
        if text and column != "clips":
            total = int(before[row, "clips"])
            assert abs(int(share[row, column]) - 100 * int(text) / total) <= 0.5
    shown.check("input[value=count]")
    assert _cells(shown) == before


def _charts(shown: Any, page: Page) -> None:
    for chart in shown.locator("svg[data-points]").all():
        said = chart.locator("xpath=ancestor::figure").locator(".readout")
        chart.focus()
        shown.keyboard.press("End")
        assert said.inner_text().startswith(f"epoch {page.epochs}"), said.inner_text()
        shown.keyboard.press("ArrowLeft")
        assert not said.inner_text().startswith(f"epoch {page.epochs}:")
        chart.hover(position={"x": 80, "y": 60})
        assert said.inner_text().startswith("epoch")
        shown.mouse.move(1, 1)


def _mistakes(shown: Any, page: Page) -> None:
    cards = shown.locator("#cards > .card")
    whole = cards.count()
    assert whole == page.cards
    option = shown.locator("#truth option").nth(1)
    truth = str(option.get_attribute("value"))
    of_truth = [card for card in cards.all() if truth in str(card.get_attribute("data-truth")).split()]
    shown.select_option("#truth", truth)
    visible = shown.locator("#cards > .card:visible")
    assert 0 < visible.count() == len(of_truth)
    assert len(of_truth) == whole or f"{len(of_truth)} of {whole}" in shown.locator("#shown").inner_text()
    assert {card.locator(".was").inner_text() for card in visible.all()} == {option.inner_text()}
    shown.click("#all")
    assert visible.count() == whole
    shown.locator("#matrix td button").first.click()  # from a cell to its mistakes
    assert 0 < visible.count() <= whole and "taken for" in shown.locator("#said").inner_text()
    assert shown.evaluate("document.activeElement.id") == "h-mistakes"
    shown.click("#all")
    for card in cards.all():
        _played(shown, card)
    playing = "[...document.querySelectorAll('audio')].filter(one => !one.paused).length"
    assert shown.evaluate(playing) <= 1
    cards.nth(1).locator(".media").click(position={"x": 150, "y": 40})  # the picture goes there and plays
    shown.wait_for_timeout(300)
    at, length = cards.nth(1).locator("audio").evaluate("one => [one.currentTime, one.duration]")
    assert at >= 0.3 * length


def _played(shown: Any, card: Any) -> None:
    audio = card.locator("audio")
    found = audio.evaluate(
        """one => new Promise(resolve => {
          one.addEventListener("timeupdate", () => one.currentTime > 0.05 && resolve([one.duration, null]));
          one.addEventListener("ended", () => resolve([one.duration, null]));
          one.addEventListener("error", () => resolve([0, one.error.message]));
          one.play().catch(error => resolve([0, String(error)]));
        })"""
    )
    assert found[1] is None and found[0] > 0.2
    width = card.locator("img").evaluate("one => one.complete && one.naturalWidth")
    assert width > 10


def _map(shown: Any, page: Page) -> None:
    said = shown.locator("#point")
    mark = shown.locator("#atlas g use:not(.ring)").first
    key = mark.get_attribute("data-key")
    shown.locator("#atlas").focus()
    shown.keyboard.press("ArrowRight")
    assert key in said.inner_text()
    shown.keyboard.press("ArrowLeft")
    assert key not in said.inner_text()
    mark.hover(force=True)
    assert key in said.inner_text()
    button = shown.locator("[data-show]").nth(1)
    button.click()
    assert (
        button.get_attribute("aria-pressed") == "true" and shown.locator("#atlas g.away").count() == len(page.names) - 1
    )
    button.click()
    assert shown.locator("#atlas g.away").count() == 0
    wrong = shown.locator("[data-point]").last
    wrong.focus()
    assert wrong.locator(".id").inner_text() in said.inner_text()
    before = said.inner_text()
    shown.locator("[data-point]").first.click()
    assert said.inner_text() != before


def _opening(shown: Any) -> None:
    for details in shown.locator("details").all():
        if details.get_attribute("open") is None:
            details.locator("summary").click()
        assert details.get_attribute("open") is not None
    for button in shown.locator(".copy").all():
        button.click()
        shown.wait_for_function("button => button.textContent !== 'Copy'", arg=button.element_handle())
    for link in shown.locator("nav a").all():
        link.click()
        assert shown.evaluate("location.hash") == link.get_attribute("href")


def test_the_keyboard_reaches_everything(browser: Any, page: Page) -> None:
    with _opened(browser, page.file, "desk") as (shown, said):
        shown.keyboard.press("Tab")
        assert shown.evaluate("document.activeElement.className") == "skip"
        wanted = shown.evaluate(
            "[...document.querySelectorAll('a, button, select, input:checked, audio, summary, [tabindex=\"0\"]')]"
            ".filter(one => one.checkVisibility()).length"
        )
        shown.evaluate("window.reached = new Set(); document.addEventListener('focusin', e => reached.add(e.target))")
        for _ in range(6 * wanted):  # a player has several controls inside
            shown.keyboard.press("Tab")
        missed = shown.evaluate(
            "[...document.querySelectorAll('a, button, select, input:checked, audio, summary, [tabindex=\"0\"]')]"
            ".filter(one => one.checkVisibility() && !reached.has(one)).map(one => one.outerHTML.slice(0, 90))"
        )
        assert missed == [] and said == []


@pytest.mark.parametrize("size", SIZES)
def test_without_javascript_all_is_there_but_the_sorting(browser: Any, page: Page, size: str) -> None:
    with _opened(browser, page.file, size, java_script_enabled=False) as (shown, said):
        assert shown.locator("#matrix td[data-count]").count() > 4
        assert shown.locator("audio").count() == page.cards
        assert shown.locator("#order").is_hidden() and shown.locator(".copy").first.is_hidden()
        assert shown.locator("#classes tbody tr").count() == len(page.names)
        assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_both_themes_and_prints(browser: Any, page: Page, scheme: str) -> None:
    with _opened(browser, page.file, "desk", color_scheme=scheme) as (shown, said):
        colour = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(colour.split("(")[1].split(",")[0]) > 128) == (scheme == "light")
        shown.emulate_media(media="print")
        assert shown.locator("nav").is_hidden() and shown.locator("audio").first.is_hidden()
        assert shown.locator("#matrix").is_visible() and said == []
