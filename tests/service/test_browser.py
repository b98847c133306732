"""Reports and pages in a real Chromium: what people do with them, and what hostile data cannot."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from service.command import command
from service.hostile import HOSTILE

from shardwright.metadata.layout import Layout
from shardwright.service.report import write_report

pytest_plugins = ("service.served",)
pytestmark = pytest.mark.browser
SCREENSHOTS = common.ROOT / ".cache" / "screenshots"
WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program is not None, "make test-browser installs Debian's chromium"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def watched(chromium: Browser, home: str, **options: object) -> Iterator[Page]:
    """A page that may say nothing on its console and ask nobody but its home."""
    said: list[str] = []
    asked: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(message.text)

    context = chromium.new_context(**{"viewport": WIDE} | options)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert said == []
    assert [one for one in asked if not one.startswith((home, "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def report(code_folder: Path) -> str:
    return write_report(Layout(code_folder)).as_uri()


@pytest.fixture(scope="module")
def address(code_folder: Path, image_folder: Path) -> Iterator[str]:
    program = [sys.executable, "-m", "shardwright.pipelines.cli"]
    line = command(program, [str(code_folder), str(image_folder)], "127.0.0.1", 0)
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield process.stderr.readline().split()[0]
        process.terminate()


def ready(page: Page) -> None:
    page.wait_for_selector(".map[data-ready=true]")


def no_serious_faults(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_report(chromium: Browser, report: str, scheme: str, viewport: dict[str, int]) -> None:
    with watched(chromium, "file:", color_scheme=scheme, viewport=viewport, offline=True) as page:
        page.goto(report)
        ready(page)
        no_serious_faults(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= viewport["width"]
        kind = "phone" if viewport is PHONE else "wide"
        page.screenshot(path=SCREENSHOTS / f"report-{kind}-{scheme}.png", full_page=True)


def test_report_on_paper_and_without_scripts(chromium: Browser, report: str) -> None:
    with watched(chromium, "file:", java_script_enabled=False) as page:
        page.goto(report)
        assert page.locator(".map-still img").is_visible()
        assert not page.locator(".map-plot").is_visible()
    with watched(chromium, "file:") as page:
        page.goto(report)
        ready(page)
        page.emulate_media(media="print")
        assert page.locator(".map-still").is_visible()
        page.screenshot(path=SCREENSHOTS / "report-paper.png", full_page=True)


def test_map(chromium: Browser, report: str) -> None:
    with watched(chromium, "file:") as page:
        page.goto(report)
        ready(page)
        plot = page.locator(".map-plot")
        plot.scroll_into_view_if_needed()
        places = page.evaluate(
            """() => {
              const chart = echarts.getInstanceByDom(document.querySelector(".map-plot"));
              const series = chart.getOption().series;
              return series.flatMap((one, i) => [0].map(() =>
                chart.convertToPixel({ seriesIndex: i }, [one.data[0], one.data[1]])));
            }"""
        )
        box = plot.bounding_box()
        assert box is not None
        x, y = places[0]
        page.mouse.move(box["x"] + x, box["y"] + y)
        tip = page.locator(".map-plot > div:last-child")
        expect(tip).to_contain_text("outcome: ")
        page.mouse.click(box["x"] + x, box["y"] + y)
        expect(page.locator(".map-told")).to_contain_text("outcome: ")
        before = page.screenshot(clip=box)
        plot.focus()
        page.keyboard.press("+")
        page.keyboard.press("ArrowLeft")
        assert page.screenshot(clip=box) != before
        page.get_by_role("button", name="All").click()
        colours = page.get_by_label("Colour by").locator("option").all_inner_texts()
        assert {"outcome", "cluster", "scip"} <= set(colours)
        for colour in colours:
            page.get_by_label("Colour by").select_option(label=colour)
            page.screenshot(path=SCREENSHOTS / f"map-{colour}.png", clip=box)
        page.mouse.wheel(0, -400)


def test_pages(chromium: Browser, address: str) -> None:
    with watched(chromium, address) as page:
        page.goto(address)
        no_serious_faults(page)
        page.get_by_role("link", name="code", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("code")
        no_serious_faults(page)
        page.screenshot(path=SCREENSHOTS / "page-curation.png", full_page=True)
        for name in ("Records", "Clusters", "Duplicates", "Map", "Search", "Query", "Compare"):
            page.get_by_role("navigation").get_by_role("link", name=name).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
            if name == "Map":
                ready(page)
            no_serious_faults(page)
            page.screenshot(path=SCREENSHOTS / f"page-{name.lower()}.png", full_page=True)
            if name != "Compare":
                continue
            page.get_by_label("to").select_option("code")
            page.get_by_role("button", name="Compare").click()
            expect(page.get_by_text("same: ")).to_be_visible()


def test_from_a_reason_to_a_record(chromium: Browser, address: str) -> None:
    with watched(chromium, address) as page:
        page.goto(f"{address}/c/code")
        page.get_by_role("link", name="near_duplicate").click()
        page.locator("td a").first.click()
        expect(page.get_by_text("representative")).to_be_visible()
        no_serious_faults(page)
        page.get_by_role("link", name="what is near it").click()
        expect(page.get_by_role("heading", name="Is it there already?")).to_be_visible()
        expect(page.locator("td", has_text=re.compile("^exact$")).first).to_be_visible()


def test_search_and_query(chromium: Browser, address: str, image_folder: Path) -> None:
    with watched(chromium, address) as page:
        page.goto(f"{address}/c/code/search")
        page.get_by_label("Code to look for").fill("<b>import os</b>\nprint('&lt;')\n")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("No: no record is a copy")).to_be_visible()
        assert page.get_by_label("Code to look for").input_value().startswith("<b>import os</b>")
        assert page.locator(".sample").count() == 12
        page.goto(f"{address}/c/images/search")
        page.get_by_label("Image to look for").set_input_files(
            next(
                path
                for path in sorted((image_folder.parent / "in").glob("*.png"))
                if path.stem[0] != "<"
            )
        )
        page.get_by_role("button", name="Search").click()
        expect(page.locator("td", has_text=re.compile("^exact$")).first).to_be_visible()
        page.screenshot(path=SCREENSHOTS / "page-search-image.png", full_page=True)
        page.goto(f"{address}/c/code/query")
        page.get_by_label("SQL").fill(
            "SELECT path, content FROM records ORDER BY bytes DESC LIMIT 7"
        )
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_text("7 rows.")).to_be_visible()
        no_serious_faults(page)


def test_map_leads_to_a_record(chromium: Browser, address: str) -> None:
    with watched(chromium, address) as page:
        page.goto(f"{address}/c/code/map")
        ready(page)
        x, y = page.evaluate(
            """() => {
              const chart = echarts.getInstanceByDom(document.querySelector(".map-plot"));
              const data = chart.getOption().series[0].data;
              return chart.convertToPixel({ seriesIndex: 0 }, [data[0], data[1]]);
            }"""
        )
        page.locator(".map-plot").click(position={"x": x, "y": y})
        page.get_by_role("link", name="the whole record").click()
        expect(page.get_by_role("heading", name="Its story")).to_be_visible()


def test_keyboard_alone(chromium: Browser, address: str) -> None:
    with watched(chromium, address) as page:
        page.goto(f"{address}/c/code/records")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        seen = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
        assert any("<select" in one for one in seen)
        assert any("/records/" in one for one in seen)


def test_hostile_records_do_nothing(chromium: Browser, address: str, report: str) -> None:
    with watched(chromium, address) as page:
        for name in HOSTILE:
            piece = re.split(r"[/\n]", name)[0][:12]
            page.goto(f"{address}/c/code/records")
            page.get_by_label("path holds").fill(piece)
            page.get_by_role("button", name="Show").click()
            page.locator("td a").first.click()
            expect(page.get_by_role("heading", name="Its story")).to_be_visible()
            assert page.title() not in ("1", "run")
            assert page.locator("main script, main [onmouseover], main img[src='x']").count() == 0
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= WIDE["width"]
        page.screenshot(path=SCREENSHOTS / "page-hostile.png", full_page=True)
    with watched(chromium, "file:") as page:
        page.goto(report)
        ready(page)
        assert page.locator("[onmouseover], [onerror], [onload]").count() == 0
        assert "\u202e" not in page.content()
