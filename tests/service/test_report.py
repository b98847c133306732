"""The report: self-contained, safe whatever the data holds, and there whatever tables are."""

import base64
import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from metadata.sample_output import build
from PIL import Image

from shardwright.errors import UserError
from shardwright.metadata.layout import Layout
from shardwright.service.rendering import source_hash, static
from shardwright.service.report import write_report
from shardwright.service.samples import thumbnail
from shardwright.service.text import block, percent, shown, size

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("reports")
    layouts = {
        "code": build(root / "code", "code"),
        "image": build(root / "image", "image"),
        "plain": build(root / "plain", "code", embedding=False),
        "nothing kept": build(root / "nothing", "code", keep=False),
    }
    found = {}
    for name, layout in layouts.items():
        path = write_report(layout)
        assert path == layout.root / "report" / "index.html"
        found[name] = path.read_text()
    return found


@pytest.mark.parametrize("name", ["code", "image", "plain", "nothing kept"])
def test_self_contained_and_well_formed(pages: dict[str, str], name: str) -> None:
    page = Page(pages[name])
    assert len(set(page.ids)) == len(page.ids)
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "form", "base")
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href"):
            value = attributes.get(key)
            assert (
                value is None
                or value.startswith(("data:image/webp;base64,", "#"))
                or value == "data:,"
            ), value
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    text = re.sub(r"<script>.*?</script>", "", pages[name], flags=re.S)
    assert "http://" not in re.sub(r"http://www\.w3\.org/\S+", "", text)


@pytest.mark.parametrize("name", ["code", "plain"])
def test_only_our_scripts_may_run(pages: dict[str, str], name: str) -> None:
    found = re.findall(r"<script>(.*?)</script>", pages[name], re.S)
    ours = [static(script) for script in ("echarts.min.js", "map.js")]
    assert found == (ours if name == "code" else [])
    hashes = [source_hash(script) for script in found]
    head = html.unescape(pages[name].partition("<style>")[0])
    policy = re.search(r'script-src ([^;"]*)', head)
    assert policy is not None
    assert policy[1].split() == (hashes or ["'none'"])


def test_numbers(pages: dict[str, str]) -> None:
    text = pages["code"]
    for value, label in (("32", "inputs seen"), ("2", "rejected"), ("3", "dropped")):
        assert f"<b>{value}</b><span>{label}</span>" in text
    assert "<b>27</b><span>kept, 84.4 %</span>" in text
    for reason in ("not_utf8", "exact_duplicate", "small_cluster", "far_from_centroid"):
        assert reason in text
    assert "threshold 0.38" in text


def test_every_picture_has_its_numbers(pages: dict[str, str]) -> None:
    figures = pages["code"].split("<figure>")[1:]
    assert len(figures) == 6
    for figure in figures:
        head, _, details = figure.partition("<details>")
        assert "<svg" in head
        assert "<table>" in details.partition("</figure>")[0]
    languages = next(f for f in figures if "Languages" in f)
    assert re.search(r'<td>\(none\)</td>\s*<td class="n">6</td>', languages)


def test_pictures_take_the_colours_of_the_page(pages: dict[str, str]) -> None:
    svg = re.search(r"<svg.*?</svg>", pages["code"], re.S)
    assert svg is not None
    assert "var(--after)" in svg.group()
    assert not re.search(r"(fill|stroke): #0[1-5]", svg.group())
    assert "prefers-color-scheme: dark" in pages["code"]


def test_thumbnails_are_small(pages: dict[str, str]) -> None:
    images = re.findall(r'src="(data:image/webp[^"]*)"', pages["image"])
    assert 5 < len(images) <= 25
    assert max(map(len, images)) < 40_000
    large = io.BytesIO()
    Image.effect_noise((1500, 900), 60).save(large, "PNG")
    shown_as = thumbnail(large.getvalue())
    assert shown_as is not None
    with Image.open(io.BytesIO(base64.b64decode(shown_as.partition(",")[2]))) as small:
        assert (small.format, max(small.size)) == ("WEBP", 176)


def test_data_cannot_leave_its_place(pages: dict[str, str]) -> None:
    assert scripts(pages["code"]) == 3  # the map's data, and what draws it
    assert "\u202e" not in pages["code"]
    assert "secret" not in pages["code"]
    assert "Acme <b>" not in pages["image"]


def scripts(text: str) -> int:
    return len(re.findall(r"<script[ >]", text))


HOSTILE = "</title></style></pre><script>alert(1)</script><img src=x onerror=y>\"'"


def test_hostile_names(tmp_path: Path) -> None:
    layout = build(tmp_path / "out", count=14)
    recipe = json.loads((layout.root / "recipe.json").read_text())
    (layout.root / "recipe.json").write_text(json.dumps(recipe | {"name": HOSTILE, "x": HOSTILE}))
    text = write_report(layout).read_text()
    Page(text)
    assert scripts(text) == 3
    assert "<img src=x" not in text
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", text.partition("<script>")[0])


def test_unfinished_output(tmp_path: Path) -> None:
    layout = build(tmp_path / "out")
    for name in ("recipe.json", "metrics.json", "shards/_manifest.json"):
        (layout.root / name).unlink()
    for name in ("decisions", "scores", "lookup", "rejects", "curated", "shards"):
        layout.drop_table(name)
        Page(write_report(layout).read_text())
    with pytest.raises(UserError):
        write_report(Layout(tmp_path))


def test_same_output_same_report(tmp_path: Path) -> None:
    layout = build(tmp_path / "out", "image", count=14)
    first = write_report(layout).read_bytes()
    assert write_report(layout).read_bytes() == first


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: shown("a\x00\u202eb"), r"a\x00\u202eb"),
        (lambda: shown("x" * 200, 10), "x" * 9 + "…"),
        (lambda: block("a\n<b>\n" + "c\n" * 50, lines=3), "a\n<b>\nc\n…"),
        (lambda: block("y" * 500, width=10), "y" * 9 + "…"),
        (lambda: size(1_234_567), "1.2 MB"),
        (lambda: percent(1, 0), "0.0 %"),
    ],
)
def test_text(make: Callable[[], str], expected: str) -> None:
    assert make() == expected
