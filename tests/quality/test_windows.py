"""Windows of texts and pictures: what they cover, and how many there are."""

import io
import string

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from shardwright.quality.windows import MOST_WINDOWS, WINDOW_CHARACTERS, image_windows, text_windows

TEXT = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from(["\n", "\r\n", "\r", ""])), max_size=30
).map(lambda lines: "".join("x" * size + end for size, end in lines))


@given(TEXT)
@example("")
@example("\n")
@example("no end")
@example("\r\n" * 3000)
@example("x" * WINDOW_CHARACTERS * MOST_WINDOWS)
@example("x" * (WINDOW_CHARACTERS * MOST_WINDOWS + WINDOW_CHARACTERS // 4))
def test_windows_cover_a_text(text):
    windows = text_windows(text)
    assert 1 <= len(windows) <= MOST_WINDOWS
    assert all(windows) or windows == [""]
    assert max(map(len, windows)) <= WINDOW_CHARACTERS + WINDOW_CHARACTERS // 4
    if len(windows) < MOST_WINDOWS:
        assert "".join(windows) == text
    place = 0
    for window in windows:  # in order, and none twice
        place = text.index(window, place) + len(window)
    if text:
        assert text.startswith(windows[0])
        assert text.endswith(windows[-1])


def lines(count, width):
    return [f"{i:06d} {string.ascii_letters[: width - 8]}\n" for i in range(count)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_windows_end_where_lines_do(end):
    text = "".join(line.replace("\n", end) for line in lines(120, 50))
    windows = text_windows(text)
    assert "".join(windows) == text
    assert len(windows) == round(len(text) / WINDOW_CHARACTERS)
    assert all(window.endswith(end) for window in windows)
    assert all(len(window) > WINDOW_CHARACTERS - 60 for window in windows[:-1])


def test_many_windows_are_thinned_evenly():
    text = "".join(lines(4000, 50))
    windows = text_windows(text)
    assert len(windows) == MOST_WINDOWS
    starts = np.array([text.index(window) for window in windows])
    assert starts[0] == 0
    steps = np.diff(starts)
    assert steps.max() - steps.min() <= 2 * WINDOW_CHARACTERS
    assert text.endswith(windows[-1])


def test_a_long_line_is_cut():
    line = "".join(string.ascii_letters[i % 52] for i in range(3 * WINDOW_CHARACTERS))
    assert text_windows(line + "\n") == [
        line[:WINDOW_CHARACTERS],
        line[WINDOW_CHARACTERS : 2 * WINDOW_CHARACTERS],
        line[2 * WINDOW_CHARACTERS :] + "\n",
    ]


@pytest.mark.parametrize("rest", [0, 1, WINDOW_CHARACTERS // 4 - 1, WINDOW_CHARACTERS // 4])
def test_a_short_rest_belongs_to_the_window_before_it(rest):
    whole = "a" * (WINDOW_CHARACTERS - 1) + "\n"
    windows = text_windows(whole + "b" * rest)
    if rest < WINDOW_CHARACTERS // 4:
        assert windows == [whole + "b" * rest]
    else:
        assert windows == [whole, "b" * rest]


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("size", [(4, 4), (4, 5), (5, 4), (37, 91), (64, 64)])
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_four_quarters_are_the_picture(size, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    quarters = image_windows(encoded(pixels, kind))
    assert len(quarters) == 4
    top, bottom = (np.hstack([decoded(q) for q in row]) for row in (quarters[:2], quarters[2:]))
    np.testing.assert_array_equal(np.vstack([top, bottom]), pixels)
    sizes = {decoded(quarter).shape[:2] for quarter in quarters}
    assert all(abs(2 * h - size[0]) <= 1 and abs(2 * w - size[1]) <= 1 for h, w in sizes)


@pytest.mark.parametrize("size", [(1, 1), (3, 80), (80, 3)])
def test_a_tiny_picture_stays_whole(size):
    data = encoded(np.zeros((*size, 3), np.uint8))
    assert image_windows(data) == [data]


def test_quarters_of_a_grey_picture():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    quarters = image_windows(encoded(grey))
    np.testing.assert_array_equal(decoded(quarters[3])[..., 0], grey[4:, 4:])
