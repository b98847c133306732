"""Each step on literal texts, and what normalising twice gives."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.quality.normalise import STEPS, normalised

TEXTS = st.lists(st.sampled_from([b"x", b"y", b" ", b"\t", b"\n", b"\r", b"\r\n"])).map(b"".join)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"\n", b""),
        (b"\r\n\r\n", b""),
        (b"a", b"a\n"),
        (b"a\n", b"a\n"),
        (b"a\n\n\n", b"a\n"),
        (b"a\r\nb\rc\nd\r\n", b"a\nb\nc\nd\n"),
        (b"a\r\r\nb", b"a\n\nb\n"),
        (b" a \r\n\r\n b", b" a \n\n b\n"),
    ],
)
def test_line_ends(data: bytes, expected: bytes) -> None:
    assert normalised(data, ["line_ends"], None) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"  \n\t\n", b""),
        (b"a", b"a"),
        (b"a \t\f\v", b"a"),
        (b"  a  b  \r\nc\t\n", b"  a  b\r\nc\n"),
        (b"a \rb", b"a\rb"),
        (b"a\n  \n b\n\n \t\n", b"a\n\n b\n"),
        ("é\xa0\n".encode(), "é\xa0\n".encode()),
    ],
)
def test_trailing_space(data: bytes, expected: bytes) -> None:
    assert normalised(data, ["trailing_space"], None) == expected


@pytest.mark.parametrize(
    ("data", "language", "expected"),
    [
        (b"# one\nx = 1  # two\n\ny = '# no'\n    # three\n", "Python", b"x = 1\n\ny = '# no'\n"),
        (b"# one\r\nx = 1  # two\r\ny = 2\r\n", "Python", b"x = 1\r\ny = 2\r\n"),
        (b"/* a\n * b */\nint x; /* c */ int y;\n// d\n", "C", b"int x;  int y;\n"),
        (b"# one\nx = 1\n", None, b"# one\nx = 1\n"),
    ],
)
def test_comments(data: bytes, language: str | None, expected: bytes) -> None:
    assert normalised(data, ["comments"], language) == expected


@pytest.mark.parametrize(
    ("language", "mark"), [("Python", b"#"), ("C", b"//"), ("Java", b"//"), ("JavaScript", b"//")]
)
def test_a_comment_ends_at_a_carriage_return(language: str, mark: bytes) -> None:
    data = b"x = 1 " + mark + b" one\ry = 2\r"
    assert normalised(data, ["comments"], language) == b"x = 1\ny = 2\n"


def test_steps_have_one_order() -> None:
    data = b"x = 1 # one\t \r\n  \r\n# two \r\n \r"
    for steps in itertools.permutations(STEPS):
        assert normalised(data, steps, "Python") == b"x = 1\n"
    assert normalised(data, ["line_ends", "comments"], "Python") == b"x = 1\n  \n \n"
    assert normalised(data, [], "Python") == data


@given(TEXTS, st.sets(st.sampled_from(["line_ends", "trailing_space"])))
def test_twice_is_once(data: bytes, steps: set[str]) -> None:
    once = normalised(data, sorted(steps), None)
    assert normalised(once, sorted(steps), None) == once


@given(TEXTS)
def test_only_blanks_and_line_ends_go(data: bytes) -> None:
    made = normalised(data, ["line_ends", "trailing_space"], None)
    lines = [line.rstrip() for line in data.splitlines()]
    assert b"".join(lines) == b"".join(made.splitlines())
    assert made == b"" or made.endswith((b"x\n", b"y\n"))
    assert b"\r" not in made


def test_an_unknown_step_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'case' is no step .* comments, trailing_space, line_en"):
        normalised(b"", ["line_ends", "case"], None)
