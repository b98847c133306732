import random
import sysconfig
import threading
import tokenize
from pathlib import Path

import pytest

from shardwright.quality import syntax
from shardwright.quality.language import detect_language
from shardwright.quality.syntax import measure_syntax, strip_comments

STDLIB = [
    file
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py"))
    if not {"site-packages", "test", "tests", "lib2to3"} & set(file.parts)
]
SAMPLE = random.Random(0).sample(STDLIB, 200)

# language: a text with one comment, and what is left of it
COMMENTED = {
    "Bash": (b"#!/bin/sh\necho a # b\n", b"echo a\n"),
    "C": (b"int a; /* b */ int c;\n", b"int a;  int c;\n"),
    "C#": (b"class A { // b\n}\n", b"class A {\n}\n"),
    "C++": (b"int a;\n// b\nint c;\n", b"int a;\nint c;\n"),
    "CSS": (b"/* b */\na { color: red; }\n", b"a { color: red; }\n"),
    "Go": (b"package a // b\n", b"package a\n"),
    "HTML": (b"<p>a</p><!-- b -->\n", b"<p>a</p>\n"),
    "Java": (b"/** b */\nclass A {}\n", b"class A {}\n"),
    "JavaScript": (b'let a = "// no"; // b\n', b'let a = "// no";\n'),
    "PHP": (b"<?php\n# b\n$a = 1;\n", b"<?php\n$a = 1;\n"),
    "Python": (b'a = "# no"  # b\n', b'a = "# no"\n'),
    "Ruby": (b"a = 1\n=begin\nb\n=end\n", b"a = 1\n"),
    "Rust": (b"/// b\nfn a() {}\n", b"fn a() {}\n"),
    "TypeScript": (b"const a: number = 1; // b\n", b"const a: number = 1;\n"),
}
GOOD = {
    **{language: text for language, (text, _) in COMMENTED.items()},
    "JSON": b'{"a": [1, 2.5, null]}\n',
}


@pytest.mark.parametrize("language", GOOD)
def test_each_grammar_reads_its_language(language):
    measured = measure_syntax(GOOD[language], language)
    assert measured["syntax_error_share"] == 0.0
    if language in ("CSS", "HTML", "JSON"):
        assert measured["comment_share"] is None
    else:
        assert 0.1 < measured["comment_share"] < 0.8


@pytest.mark.parametrize("language", GOOD)
def test_each_grammar_finds_errors(language):
    broken = GOOD[language] + b"\n}{ <a ]) = [[ ?? ((\n"
    assert measure_syntax(broken, language)["syntax_error_share"] > 0


@pytest.mark.parametrize("language", COMMENTED)
def test_comments_are_stripped(language):
    text, rest = COMMENTED[language]
    assert strip_comments(text, language) == rest
    assert strip_comments(rest, language) == rest


def test_languages_have_the_names_of_detect_language():
    names = "sh c cs cpp css go html java js json php py rb rs ts tsx jsx"
    assert {detect_language(f"a.{name}", "") for name in names.split()} == set(syntax._GRAMMARS)


@pytest.mark.parametrize("language", [None, "Text", "Haskell"])
def test_languages_without_grammar(language):
    assert measure_syntax(b"{- a -} b", language) == {
        "comment_share": None,
        "syntax_error_share": None,
    }
    assert strip_comments(b"{- a -} b", language) == b"{- a -} b"


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0),
        ("x = 1\n", 0),
        ("# é\n# ü\n", 6 / 8),
        ('"""doc"""\nx = 1\n', 9 / 16),
        ('# a\n"""d"""\n', 10 / 12),
        ('def f():\n    """漢字"""\n    "no"\n', 8 / 31),
        ('class A:\n    # a\n    "b"\n', 6 / 25),
        ('x = "no"\n"no"\n', 0),
        ('if x:\n    "no"\n', 0),
        ("#\r\nx\r\n", 1 / 6),
    ],
)
def test_comment_share_of_python(text, share):
    assert measure_syntax(text.encode(), "Python")["comment_share"] == share


@pytest.mark.parametrize(
    ("text", "language", "count"),
    [
        (b"x = 1 $ 2\n", "Python", 2),
        (b"def f(:\n    pass\n", "Python", 1),  # a parenthesis is missing
        (b"a = 1\nb = (2\nc = 3\n", "Python", 4),
        (b"int f() { return 1 }\n", "C", 1),  # a semicolon is missing
        (b"int f() { return 1; } // $ $\n", "C", 0),
    ],
)
def test_bytes_that_fit_no_rule(text, language, count):
    assert measure_syntax(text, language)["syntax_error_share"] == count / len(text)


@pytest.mark.parametrize("comment", [b"", b"/* a */", b"/* a longer one */"])
def test_comments_within_errors_are_no_errors(comment):
    text = b"int f( { %s\n = ;;; (\n" % comment
    assert round(measure_syntax(text, "C")["syntax_error_share"] * len(text)) == 8


def test_one_brace_too_many_condemns_no_file():
    good = b"".join(
        b"int f%d(int a) { if (a) { return %d; } return a; }\n" % (i, i) for i in range(50)
    )
    assert measure_syntax(good, "C")["syntax_error_share"] == 0
    assert 0 < measure_syntax(good[: len(good) // 2] + b"}" + good, "C")["syntax_error_share"] < 0.1


def test_prose_is_no_code():
    prose = b"Copyright of this; all rights, where there (are any: reserved] for 'us\n" * 20
    for language in ("C", "C#", "C++", "Go", "Java", "JavaScript", "Python", "Rust"):
        assert measure_syntax(prose, language)["syntax_error_share"] > 0.15


def test_both_grammars_of_typescript():
    cast = b"let a = <number>b;\n"
    element = b"let a = <A b={1}>c</A>;\n"
    for text in (cast, element):
        assert measure_syntax(text, "TypeScript")["syntax_error_share"] == 0
    assert strip_comments(b"let a = <A>{/* b */}</A>;\n", "TypeScript") == b"let a = <A>{ }</A>;\n"


def test_the_standard_library_has_no_errors_until_it_is_broken():
    for file in SAMPLE:
        data = file.read_bytes()
        assert measure_syntax(data, "Python")["syntax_error_share"] == 0, file
        if data.strip():
            broken = data + b"\n)]}\n"
            assert measure_syntax(broken, "Python")["syntax_error_share"] > 0, file


def tokens(file):
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING)
    return [(t.type, t.string) for t in tokenize.tokenize(file.readline) if t.type not in skipped]


def test_stripping_leaves_the_tokens(tmp_path):
    stripped = tmp_path / "stripped.py"
    for file in SAMPLE[:60]:
        data = file.read_bytes()
        stripped.write_bytes(strip_comments(data, "Python"))
        with file.open("rb") as before, stripped.open("rb") as after:
            assert tokens(after) == tokens(before), file


@pytest.mark.parametrize(
    ("text", "rest", "language"),
    [
        (b"int/**/a;", b"int a;", "C"),
        (b"f(/* a */x);", b"f( x);", "C"),
        (b"f( /* a */ x);", b"f(  x);", "C"),
        (b"  /* a */ /* b */ // c\nx;\n", b"x;\n", "C"),
        (b"x; /* a\n b */\ny;\n", b"x;\ny;\n", "C"),
        (b"/* a */ x;\n", b" x;\n", "C"),
        (b"x = 1\t # a\r\ny\r\n", b"x = 1\r\ny\r\n", "Python"),
        (b"x = 1\n\n# a\n\n# b", b"x = 1\n\n\n", "Python"),
        (b"# a", b"", "Python"),
        (b"#a\n#b\n", b"", "Python"),
        ("s = 'é'  # ü\n".encode(), "s = 'é'\n".encode(), "Python"),
        (b'def f():\n    """Doc."""  # a\n', b'def f():\n    """Doc."""\n', "Python"),
        (b"/// a\n//! b\nfn c() {} // d\n", b"fn c() {}\n", "Rust"),
    ],
)
def test_what_comments_leave(text, rest, language):
    assert strip_comments(text, language) == rest


def test_a_file_that_takes_too_many_steps_is_not_measured(monkeypatch):
    data = b"x = [1, 2, 3]  # a\n" * 200
    assert measure_syntax(data, "Python")["syntax_error_share"] == 0
    monkeypatch.setattr(syntax, "_FREE_STEPS", 10)
    monkeypatch.setattr(syntax, "_BYTES_PER_STEP", 1000)
    assert measure_syntax(data, "Python") == {"comment_share": None, "syntax_error_share": None}
    assert strip_comments(data, "Python") == data


def test_steps_do_not_run_away():
    table = b"key value: other\n" * 8000
    assert measure_syntax(table, "CSS")["syntax_error_share"] is None


def test_real_files_take_few_steps(monkeypatch):
    monkeypatch.setattr(syntax, "_FREE_STEPS", 20)
    monkeypatch.setattr(syntax, "_BYTES_PER_STEP", 50)
    for file in SAMPLE:
        assert measure_syntax(file.read_bytes(), "Python")["syntax_error_share"] == 0, file


def test_threads_agree():
    texts = [file.read_bytes() for file in SAMPLE[:30]]
    expected = [measure_syntax(text, "Python") for text in texts]
    found = {}

    def measure(number):
        found[number] = [measure_syntax(text, "Python") for text in texts]

    threads = [threading.Thread(target=measure, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4
