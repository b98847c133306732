import numpy as np
import pytest

from shardwright.quality.views import tokens


def names(stream):
    return tokens.classes(stream).tolist()


P, B, N, D, S, L, C = range(7)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("Python", b"x = f('a b') # no\n", [N, P, N, B, S, B, L]),
        ("Python", b'"""doc\nstring"""\n\n\ny', [S, L, N]),
        ("Python", b"a // 2", [N, P, P, D]),
        ("Python", b"rb'a' + u\"b\" + abc'd'", [S, P, S, P, N, S]),
        ("Python", b" \t x \x0c\r\n  ", [N, L]),
        ("C", b"a /* x\n y */ += 0x1F; // end", [N, P, D, P]),
        ("Go", b"a := `raw\n`", [N, P, S]),
        ("Rust", b"fn f<'a>(x: &'a str) -> char { 'b' }", None),
        ("JavaScript", b"a === b ?? c", [N, P, N, P, N]),
        (None, "é = 1".encode(), [N, P, D]),
        ("Java", b'"open', [P, N]),
        ("Java", b"", []),
    ],
)
def test_classes_of_tokens(language, text, expected):
    found = names(tokens.lex(text, language))
    if expected is None:
        assert S in found
        assert found.count(B) == 4
    else:
        assert found == expected


def test_comments_leave_nothing():
    one = tokens.lex(b"int a; // the b\nint c;", "Java")
    two = tokens.lex(b"int a;\nint c;", "Java")
    assert one.tolist() == two.tolist()


def test_line_ends_tell_the_change_of_indentation_alone():
    def ends(text):
        stream = tokens.lex(text, "Python")
        return stream[tokens.classes(stream) == L].tolist()

    deeper, back = ends(b"a\n  b\nc")
    assert ends(b"a\n      b\nc") == [deeper, back]
    assert ends(b"a\n\tb\n\n\nc") == [deeper, back]
    same = ends(b"a\nb")[0]
    assert len({same, deeper, back}) == 3


def test_long_numbers_and_strings_are_told_by_shape():
    def tell(text):
        return tokens.lex(text, "Python").tolist()

    assert tell(b"12345") == tell(b"98765")
    assert tell(b"12") != tell(b"13")
    assert tell(b"'a long text of words'") == tell(b'"another text with words"')
    assert tell(b"'rb'") == tell(b'"rb"') != tell(b"'wb'")


def test_common_names_stay_and_others_become_their_shape():
    files = [b"import spam\nfoo = len(bar)", b"import eggs\nqux = len(Baz)", b"x = 1"]
    streams = [tokens.lex(text, "Python") for text in files]
    common = tokens.common_names(streams, 0.5)
    assert set(common.tolist()) == {
        int(tokens.lex(name, "Python")[0]) for name in (b"import", b"len")
    }
    one, two = (tokens.abstract(stream, common) for stream in streams[:2])
    differ = np.flatnonzero(one != two)
    assert len(differ) == 1  # Baz begins with a capital
    assert names(one).count(C) == 2
    assert tokens.abstract(streams[2], common[:0]).tolist() != streams[2].tolist()


def test_a_name_of_one_file_is_not_common():
    assert not len(tokens.common_names([tokens.lex(b"a b", "C")], 0.0))
    assert not len(tokens.common_names([], 0.5))


@pytest.mark.parametrize(
    "text", [b'"""' + b"\\a" * 20_000, b"/*" * 20_000, b"'''\"\"\"" * 5_000, b"'" * 20_001]
)
@pytest.mark.parametrize("language", ["Python", "C", "Rust"])
def test_what_has_no_end_is_read_once(text, language):
    assert len(tokens.lex(text, language)) <= len(text)
