import ast
import base64
import itertools
import random
import re
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest

from shardwright.errors import UserError
from shardwright.quality.corruptions import corrupt_text, corruptions, registry, trees
from shardwright.quality.corruptions.edits import apply, choose
from shardwright.quality.corruptions.registry import chosen_places
from shardwright.quality.language import detect_language
from shardwright.quality.syntax import count_errors, parse

KINDS = corruptions("code")
NAMES = list(KINDS)
SYNTAX = [name for name in NAMES if KINDS[name].group == "syntax"]
CRAWL = [name for name in NAMES if KINDS[name].group == "crawl"]
SOUND = [name for name in NAMES if KINDS[name].parseable]
TREES = [name for name in NAMES if KINDS[name].languages is not None]
PACKAGES = Path(sysconfig.get_path("purelib"))


def readable(file):
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        return False
    return 200 < len(text) < 12_000 and "\0" not in text


def sample(files, count):
    found = sorted(file for file in files if file.is_file())
    random.Random(0).shuffle(found)
    return [file for file in found[: 3 * count] if readable(file)][:count]


def parses(data, language):
    if language == "Python":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                ast.parse(data)
        except (SyntaxError, ValueError):
            return False
        return True
    root = parse(data, language)
    return root is not None and not root.has_error


STDLIB = [
    file
    for file in Path(sysconfig.get_path("stdlib")).glob("**/*.py")
    if not {"site-packages", "test", "tests", "lib2to3"} & set(file.parts)
]
FILES = {
    (language, str(file)): file.read_bytes()
    for language, files in {
        "Python": sample(STDLIB, 200),
        "JavaScript": sample(PACKAGES.glob("**/*[!n].js"), 30),
        "C++": sample((PACKAGES / "torch/include/c10").glob("**/*.h"), 50),
    }.items()
    for file in files
    if detect_language(str(file), file.read_text()) == language
}
FILES |= {
    ("Go", "a.go"): b"""package a

import "fmt"

// Load reads rows.
func Load(path string, count int) (int, error) {
	total := 0
	for i := 0; i < count; i++ {
		if path == "" || total > 10 {
			return 0, fmt.Errorf("no path %s", path)
		}
		total += rows[i] * 2
		fmt.Println(total, path)
		log(total)
	}
	return total, nil
}
""",
    ("Java", "A.java"): b"""class A {
    private int size = 1;

    int load(String path, int count) {
        int total = 0;
        for (int i = 0; i < count; i++) {
            if (path == null || total > 10) {
                return size;
            }
            total += rows[i] * 2;
            log(total, path);
            log("done");
        }
        return total;
    }
}
""",
    ("Rust", "a.rs"): b"""fn load(path: &str, count: usize) -> usize {
    let mut total = 0;
    for i in 0..count {
        if path == "" || total > 10 {
            return total;
        }
        total += rows[i] * 2;
        log(total, path);
        log("done", 1);
    }
    total
}
""",
    ("C", "a.c"): b"""int load(const char *path, int count) {
    int total = 0;
    for (int i = 0; i < count; i++) {
        if (!path || total > 10) {
            return 0;
        }
        total += rows[i] * 2;
        log(total, path);
        log("done", 1);
    }
    return total;
}
""",
    ("TypeScript", "a.ts"): b"""function load(path: string, count: number): number {
    let total: number = 0;
    for (let i = 0; i < count; i++) {
        if (!path || total > 10) {
            return 0;
        }
        total += rows[i] * 2;
        log(total, path);
        log("done", 1);
    }
    return total;
}
""",
}


def outcomes(name, text, language, dose=1.0, seeds=60):
    found = {corrupt_text(name, text.encode(), language, seed, dose) for seed in range(seeds)}
    return {None if data is None else data.decode() for data in found}


# kind, language, text, and everything that any seed makes of it
LITERAL = [
    ("remove_closing_brackets", "Python", "f(a)\n", {"f(a\n"}),
    ("remove_closing_brackets", "Go", "func a() {}\n", {"func a( {\n"}),
    ("break_keywords", "Python", "if a:\n    b\n", {*(f"{w} a:\n    b\n" for w in (
        "i", "f", "iif", "iff", "fi", "uf", "of", "ig", "id"))} - {"of a:\n    b\n"}),
    ("break_keywords", "JavaScript", "do {} while (0);\n", None),
    ("unterminate_strings", "Python", "a = 'b'\n", {"a = 'b\n"}),
    ("unterminate_strings", "Python", 'a = """b"""\n', {'a = """b\n'}),
    ("unterminate_strings", "Go", "package a\nvar b = `c`\n", {"package a\nvar b = `c\n"}),
    ("unterminate_strings", "C", "char *a = \"b\";\n", {'char *a = "b;\n'}),
    ("break_indentation", "Python", "a\nb\n", {"a\n b\n", "a\n  b\n", "a\n   b\n"}),
    ("break_indentation", "Python", "if a:\n    b\n", {None}),
    ("break_indentation", "Python", "if a:\n  b\n  c\n", {
        f"if a:\n  b\n{w}c\n" for w in (" ", "   ", "    ", "     ")}),
    ("flip_conditions", "Python", "a == b\n", {"a != b\n"}),
    ("flip_conditions", "Python", "a < b <= c\n", {"a >= b > c\n"}),
    ("flip_conditions", "Python", "a is  not b\n", {"a is b\n"}),
    ("flip_conditions", "Python", "a is b or c in d\n", {"a is not b and c not in d\n"}),
    ("flip_conditions", "Python", "for a in b: pass\n", {None}),
    ("flip_conditions", "Python", "x = not(a)\n", {"x = (a)\n"}),
    ("flip_conditions", "Python", "while a: b\n", {"while not a: b\n"}),
    ("flip_conditions", "Java", "class A { { if (a.b()) c = !d && e; } }\n",
        {"class A { { if (!a.b()) c = d || e; } }\n"}),
    ("flip_conditions", "C++", "int f() { if (a) return b >= c; }\n",
        {"int f() { if (!a) return b < c; }\n"}),
    ("flip_conditions", "C++", "std::vector<int> a;\n", {None}),
    ("flip_conditions", "JavaScript", "if ('a' in b) c;\n", {None}),
    ("flip_conditions", "JavaScript", "a === b;\n", {"a !== b;\n"}),
    ("flip_conditions", "Go", "package a\nfunc f() { if ok { } }\n",
        {"package a\nfunc f() { if !ok { } }\n"}),
    ("flip_conditions", "Rust", "fn f() { if a.b() { } }\n", {"fn f() { if !a.b() { } }\n"}),
    ("swap_operators", "Python", "a = b + c * d\n", {"a = b - c / d\n"}),
    ("swap_operators", "Python", "a += b\n", {"a -= b\n"}),
    ("swap_operators", "Python", "a = 'b' + c\n", {None}),
    ("swap_operators", "Python", "a: int | None = 1\n", {None}),
    ("swap_operators", "C", "int a = b*c;\n", {"int a = b/c;\n"}),
    ("swap_operators", "C", "int a = b**c;\n", {None}),
    ("swap_operators", "C", "int a = b << 1 & c;\n", {"int a = b >> 1 | c;\n"}),
    ("swap_operators", "Go", "package a\nfunc f() { a -= b }\n",
        {"package a\nfunc f() { a += b }\n"}),
    ("shift_offsets", "Python", "a[i]\n", {"a[i + 1]\n", "a[i - 1]\n"}),
    ("shift_offsets", "Python", "a[1]\n", {"a[0]\n", "a[2]\n"}),
    ("shift_offsets", "Python", "a[0]\n", {"a[1]\n"}),
    ("shift_offsets", "Python", "a[:-1]\n", {"a[:-2]\n"}),
    ("shift_offsets", "Python", "a['b'], List[Foo], dict[str]\n", {None}),
    ("shift_offsets", "Python", "range(5)\n", {"range(4)\n", "range(6)\n"}),
    ("shift_offsets", "Python", "a: list[T] = b\n", {None}),
    ("shift_offsets", "Java", "class A { int b = c[i + 1]; }\n",
        {"class A { int b = c[i + 0]; }\n", "class A { int b = c[i + 2]; }\n"}),
    ("shift_offsets", "C", "int f() { for (;i < n;) {} }\n",
        {"int f() { for (;i < n + 1;) {} }\n", "int f() { for (;i < n - 1;) {} }\n"}),
    ("shift_offsets", "C", "int f() { for (int i = 0; ; ) {} }\n",
        {"int f() { for (int i = 1; ; ) {} }\n"}),
    ("shift_offsets", "Rust", "fn f() { a[i]; }\n",
        {"fn f() { a[i + 1]; }\n", "fn f() { a[i - 1]; }\n"}),
    ("shift_offsets", "Rust", "fn f() { for _ in 0..n {} }\n",
        {"fn f() { for _ in 1..n + 1 {} }\n", "fn f() { for _ in 1..n - 1 {} }\n"}),
    ("shift_offsets", "Go", "package a\nvar b = c[:2]\n",
        {"package a\nvar b = c[:1]\n", "package a\nvar b = c[:3]\n"}),
    ("swap_arguments", "Python", "f(a, *b, c=d)\n", {None}),
    ("swap_arguments", "Python", "f(a, b, c=d)\n", {"f(b, a, c=d)\n"}),
    ("swap_arguments", "Python", "f(a, a)\n", {None}),
    ("swap_arguments", "Python", "class A(b, c): pass\n", {None}),
    ("swap_arguments", "Java", "class A { int b = c(d, e); }\n",
        {"class A { int b = c(e, d); }\n"}),
    ("swap_arguments", "Go", "package a\nvar b = make([]int, c)\n", {None}),
    ("drop_returns", "Python", "def f():\n    return a\n",
        {"def f():\n    return\n", "def f():\n    pass\n"}),
    ("drop_returns", "Python", "def f():\n    a\n    return a\n",
        {"def f():\n    a\n    return\n", "def f():\n    a\n"}),
    ("drop_returns", "Python", "def f():\n    return\n    return\n", {
        "def f():\n    pass\n    pass\n"}),
    ("drop_returns", "Python", "def f(): a; return b\n",
        {"def f(): a; return\n", "def f(): a; pass\n"}),
    ("drop_returns", "C", "int f() { if (a) return 1; }\n",
        {"int f() { if (a) return; }\n", "int f() { if (a) ; }\n"}),
    ("drop_returns", "C", "int f() {\n    return 1;\n}\n",
        {"int f() {\n    return;\n}\n", "int f() {\n}\n"}),
    ("drop_returns", "Rust", "fn f() -> i32 { a + b }\n", {"fn f() -> i32 { a + b; }\n"}),
    ("drop_returns", "Go", "package a\nfunc f() int { return 1 }\n",
        {"package a\nfunc f() int { return }\n", "package a\nfunc f() int {  }\n"}),
    ("duplicate_statements", "Python", "if a:\n    b()\n    c()\n", {None}),
    ("shuffle_statements", "Python", "if a:\n  b\n  c\n  d\n", {
        f"if a:\n  {x}\n  {y}\n  {z}\n"
        for x, y, z in ("bdc", "cbd", "cdb", "dbc", "dcb")}),
    ("shuffle_statements", "Java", "class A {\n {\n  b();\n  c();\n }\n}\n", {None}),
    ("shuffle_statements", "Python", "if a:\n  b\n  b\n  b\n", {None}),
    ("shuffle_statements", "Rust", "fn f() {\n  a();\n  b();\n  c\n}\n", {None}),
    ("meaningless_names", "Python", "import a\nclass B:\n    c = 1\nd(e=1)\n", {None}),
    ("merge_lines", None, "one", {None}),
    ("repeat_boilerplate", None, "a\nb\n", {None}),
    ("html_wrap", None, " \n", {None}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "language", "text", "expected"),
    [case for case in LITERAL if case[3] is not None],
)
def test_what_each_kind_makes_of_little(name, language, text, expected):
    assert outcomes(name, text, language) == expected


def test_duplicates_are_whole_lines_with_their_indentation():
    text = "if a:\r\n  b(\r\n   1)\r\n  c = 2\r\n  d\r\n"
    expected = {
        text.replace(line, line + f"\r\n  {line}" * times)
        for line in ("b(\r\n   1)", "c = 2", "d")
        for times in (1, 2)
    }
    assert outcomes("duplicate_statements", text, "Python", dose=0.2) == expected
    java = "class A {\n {\n  int b;\n  c();\n  d();\n }\n}\n"
    found = outcomes("duplicate_statements", java, "Java", dose=0.2)
    assert found == {java.replace(s, s + f"\n  {s}" * n) for s in ("c();", "d();") for n in (1, 2)}


def test_keywords_are_mistyped():
    (line,) = {"while (a) {}\n"}
    for found in outcomes("break_keywords", line, "JavaScript"):
        assert found.endswith(" (a) {}\n")
        assert not found.startswith("while ")
        assert 4 <= len(found.split()[0]) <= 6


@pytest.mark.parametrize("language", ["Python", "JavaScript"])
def test_names_are_renamed_together(language):
    lines = {
        "Python": "def f(count):\n    self.count = count + g.count\n    return count\n",
        "JavaScript": "function f(count) { a.count = count + 1; return count; }\n",
    }
    for name in ("invalid_names", "meaningless_names"):
        for found in outcomes(name, lines[language], language, seeds=100):
            new = re.search(r"f\((.*?)\)", found)[1]
            kept = lines[language].replace(".count", ".\0").replace("count", new)
            assert found == kept.replace("\0", "count")
            if name == "invalid_names":
                assert re.sub(r"[^a-z]", "", new) == "count"
                assert not new.isidentifier()
            else:
                assert new.isidentifier()
                assert not re.search(rf"\b{new}\b", lines[language])


def test_a_new_name_stands_nowhere_in_the_file():
    names = " ".join(f"{letter}, foo{letter}, bar;" for letter in "abcdefghijkmnpq")
    text = f"function f(count) {{ {names} }}\n"
    for found in outcomes("meaningless_names", text, "JavaScript"):
        new = re.search(r"f\((.*?)\)", found)[1]
        assert not re.search(rf"\b{new}\b", text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("Python", "from a import b\nb = 1\n"),
        ("Python", "f(b=1)\nb = 1\n"),
        ("Python", "def f(self, _): pass\n"),
        ("Java", "class A { int b; void f(int b) { this.b = b; } }\n"),
        ("JavaScript", "function f(b) { return {b}; }\n"),
        ("JavaScript", "export const b = 1;\n"),
        ("C", "int b;\n"),
        ("Go", "package a\nvar B = 1\n"),
        ("Rust", "fn f() { let Some(A) = b; }\n"),
    ],
)
def test_names_that_others_know_stay(language, text):
    assert outcomes("meaningless_names", text, language) == {None}


def test_cutting_leaves_a_beginning_that_ends_in_a_word():
    for name in ("a.go", "A.java"):
        (language, text) = next((key[0], data) for key, data in FILES.items() if key[1] == name)
        cuts = {corrupt_text("cut_mid_token", text, language, seed) for seed in range(50)}
        assert len(cuts) > 15
        for cut in cuts:
            assert text.startswith(cut)
            assert 0.3 * len(text) < len(cut) < 0.9 * len(text)
            assert re.search(rb"\w\Z", cut)
            assert re.match(rb"\w", text[len(cut) :])


def test_characters_are_misread():
    assert outcomes("mojibake", "é \u2013 漢", None) <= {
        "Ã© â€“ æ¼¢",
        "Ã© â\x80\x93 æ¼¢",
        "ÃƒÂ© Ã¢â\u201a¬â€œ Ã¦Â¼Â¢",
        "Ã\x83Â© Ã¢Â\x80Â\x93 Ã¦Â¼Â¢",
    }
    found = outcomes("mojibake", 'a < "b" - c', "C")
    assert "a &lt; &quot;b&quot; - c" in found
    assert "a < â€œbâ€\x9d â€“ c" in found
    assert outcomes("mojibake", "a = b", None) == {None}


def test_lines_are_merged_or_broken():
    text = "".join(f"    value = compute(value, {i})\n" for i in range(5))
    for found in outcomes("merge_lines", text, "Python"):
        assert found.count("\n") < 5
        assert found.replace(" ", "").replace("\n", "") == text.replace(" ", "").replace("\n", "")
    line = "word " * 60
    for found in outcomes("merge_lines", line, None):
        assert found.replace("\n", "") == line
        lengths = {len(part) for part in found.split("\n")[:-1]}
        assert len(lengths) == 1
        assert lengths < {40, 60, 64, 72, 76, 78, 80}


def test_conflicts_hold_the_original_between_their_marks():
    text = "".join(f"line = {i}\n" for i in range(40))
    found = outcomes("conflict_marks", text, "Python", seeds=200)
    labels = set()
    for conflict in found:
        one, other = re.search(
            r"^<<<<<<< [^\n]+\n(.*?)^=======\n(.*?)^>>>>>>> [^\n]+\n", conflict, re.M | re.S
        ).groups()
        base = re.search(r"^\|{7} [^\n]+\n(.*)", one, re.M | re.S)
        one = one if base is None else one[: base.start()]
        marks = r"^<<<<<<< .*?^>>>>>>> [^\n]+\n"
        rest = [re.sub(marks, lambda _, s=side: s, conflict, flags=re.M | re.S) for side in
                (one, other)]  # fmt: skip
        assert text in rest
        assert one != other
        labels.add(re.search(r"^>>>>>>> (.*)", conflict, re.M)[1])
    assert len(labels) > 80


def test_blobs_are_encoded_bytes_of_many_sizes():
    sizes = set()
    for found in outcomes("embed_base64", "first\nsecond\n", "Python", dose=0.1, seeds=80):
        blob = found.replace("first\n", "").replace("second\n", "")
        encoded = max(re.findall(r"[\w+/=-]+", blob.replace("\n", "")), key=len)
        assert base64.b64decode(encoded[: len(encoded) // 4 * 4], altchars=b"-_", validate=False)
        sizes.add(len(encoded))
    assert len(sizes) > 60
    assert min(sizes) < 600
    assert max(sizes) > 6000


def test_a_stretch_is_repeated():
    text = "a\nb\nc\n\nd\n"
    for found in outcomes("repeat_boilerplate", text, None):
        assert 5 <= found.count("a\nb\nc\n") <= 41
        assert re.sub(r"\n?a\nb\nc\n", "", found, count=0).strip() == "d"


def test_placeholders_have_many_styles():
    data = FILES["Java", "A.java"]
    found = [corrupt_text("template_residue", data, "Java", seed) for seed in range(60)]
    marks = [
        rb"\{\{ ?cookiecutter",
        rb"<%= @?\w",
        rb"\$\{\w",
        rb"@[A-Z_]+@",
        rb"%\(\w+\)s",
        rb"TODO",
    ]
    for mark in marks:
        assert 1 <= sum(re.search(mark, text) is not None for text in found) < 50
    assert all(b"%%" not in text for text in found)


def test_pages_keep_the_lines():
    text = b"if a < b:\n    c\n"
    marked = 0
    for seed in range(40):
        found = corrupt_text("html_wrap", text, "Python", seed, 1.0)
        marked += b"a &lt; b" in found
        assert b"if a < b:" in found or b"if a &lt; b:" in found
        assert re.search(rb"    c\b", found)
    assert 5 < marked < 35


def test_no_string_gives_the_generator_away():
    """Nothing that was put in, line by line, comes in most of the files damaged by a kind."""
    data = FILES["C", "a.c"]
    for name in CRAWL:
        lines = set(data.splitlines())
        added = []
        for seed in range(60):
            found = corrupt_text(name, data, "C", seed, 0.3)
            added.append({line.strip() for line in found.splitlines()} - lines - {b"======="})
        common = {line: sum(line in other for other in added) for other in added for line in other}
        own = {line.strip() for line in lines} | {b""}
        assert max((n for line, n in common.items() if line not in own), default=0) < 40, name


@pytest.mark.parametrize("name", NAMES)
def test_real_files(name):
    """Deterministic, another text, UTF-8, and parseable or not as the kind says."""
    kind = KINDS[name]
    clean = broken = done = 0
    for number, ((language, path), data) in enumerate(FILES.items()):
        if kind.languages is not None and language not in kind.languages:
            assert corrupt_text(name, data, language, 1) is None
            continue
        if name not in SYNTAX and language == "Python" and number % 4:
            continue  # a quarter of them, for the kinds that take long
        found = corrupt_text(name, data, language, 1)
        if found is None:
            continue
        done += 1
        found.decode()
        assert found != data
        if number % 10 == 0:
            assert corrupt_text(name, data, language, 1) == found
        if kind.group == "crawl" or not parses(data, language):
            continue
        clean += 1
        broken += not parses(found, language)
        assert not kind.parseable or parses(found, language), path
    assert done > 20
    if name in SYNTAX:
        assert broken >= LEAST_BROKEN[name] * clean, (broken, clean)


LEAST_BROKEN = {
    "remove_closing_brackets": 0.99,
    "invalid_names": 0.97,
    "break_keywords": 0.85,
    "unterminate_strings": 0.97,
    "break_indentation": 1.0,
    "cut_mid_token": 0.97,
}


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_doses(name):
    seeds_differ = grown = 0
    for language, path in [("Python", None), ("Java", "A.java"), ("JavaScript", None)]:
        texts = [
            data for key, data in FILES.items() if key[0] == language and path in (None, key[1])
        ]
        for data in texts[:10]:
            places = [chosen_places(name, data, language, 3, dose) for dose in (0.01, 0.4, 1.0)]
            counts = [len(found) for found in places]
            assert counts == sorted(counts)
            assert set(places[0]) <= set(places[1]) <= set(places[2])
            grown += counts[0] < counts[2]
            found = {corrupt_text(name, data, language, seed, 0.3) for seed in range(4)}
            seeds_differ += len(found) > 2
            if counts[0]:
                assert counts[0] <= 1 + 0.02 * len(data.splitlines())
    assert seeds_differ > 2
    assert grown > 0 or name == "cut_mid_token"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "data", [b"", b"a = 1\0\0\1 == c\n", b"\x89PNG\r\n\x1a\n", b"\xff\xfe\xfa = 1\n", b"\n\n"]
)
def test_nothing_to_damage(name, data):
    for language in ("Python", "C", None):
        assert corrupt_text(name, data, language, 0) is None


@pytest.mark.parametrize("name", NAMES)
def test_line_ends_stay(name):
    for key in [("Go", "a.go"), ("Java", "A.java"), *list(FILES)[:3]]:
        data = re.sub(rb"\r?\n", b"\r\n", FILES[key])
        for seed in range(4):
            found = corrupt_text(name, data, key[0], seed, 1.0)
            if found is not None:
                assert not re.search(rb"(?<!\r)\n|\r(?!\n)", found.removesuffix(b"\r"))


@pytest.mark.parametrize("name", TREES)
def test_a_file_that_the_parser_does_not_get_through(name, monkeypatch):
    data = FILES["Java", "A.java"] * 20
    registry._source.cache_clear()  # what the test before found out
    assert corrupt_text(name, data, "Java", 0) is not None or name == "break_indentation"
    monkeypatch.setattr("shardwright.quality.syntax._FREE_STEPS", 1)
    monkeypatch.setattr("shardwright.quality.syntax._BYTES_PER_STEP", 10**6)
    registry._source.cache_clear()
    assert corrupt_text(name, data, "Java", 0) is None


def test_damage_that_does_not_parse_is_undone(monkeypatch):
    data = b"a = 1\n" * 9
    kind, _ = registry._kinds()["swap_operators"]
    bad = ((6 * 4, 6 * 4, b") ("),)
    places = [((6 * i, 6 * i + 1, b"b"),) for i in range(9) if i != 4] + [bad]
    monkeypatch.setitem(registry._kinds(), "swap_operators", (kind, lambda *_: places))
    found = chosen_places("swap_operators", data, "Python", 0, 1.0)
    assert found == places[:8]
    assert corrupt_text("swap_operators", data, "Python", 0, 1.0).count(b"b = 1") == 8


def test_files_with_errors_get_no_more_of_them():
    data = FILES["C", "a.c"] + b"int ) = 3;\n" + FILES["C", "a.c"]
    for name in SOUND:
        found = corrupt_text(name, data, "C", 0, 1.0)
        assert found is not None
        assert count_errors(parse(found, "C")) <= count_errors(parse(data, "C"))


def test_greater_doses_take_the_same_places_and_more():
    generator = random.Random(0)
    for _ in range(200):
        starts = [generator.randrange(40) for _ in range(12)]
        places = [((start, start + generator.randrange(8), b"x"),) for start in starts]
        taken = [choose(places, dose / 20) for dose in range(1, 21)]
        for fewer, more in itertools.pairwise(taken):
            assert more[: len(fewer)] == fewer
        for one in range(len(taken[-1])):
            for other in range(one):
                (a, b, _), (c, d, _) = taken[-1][one][0], taken[-1][other][0]
                assert a >= d or c >= b
        counted = sum(stop - start for ((start, stop, _),) in taken[-1])
        assert len(apply(b"." * 50, taken[-1])) == 50 - counted + len(taken[-1])


def test_edits_at_one_point():
    assert apply(b"abc", [((1, 2, b"X"),), ((1, 1, b"-"),), ((1, 1, b"+"),), ((3, 3, b"!"),)]) == (
        b"a-+Xc!"
    )


def test_the_catalogue():
    assert list(KINDS) == list(corruptions("code"))
    assert {kind.group for kind in KINDS.values()} == {"syntax", "content", "crawl"}
    assert all(kind.parseable == (kind.group == "content") for kind in KINDS.values())
    assert all(name == kind.name and kind.modality == "code" for name, kind in KINDS.items())
    assert {kind.name for kind in KINDS.values() if kind.languages == frozenset({"Python"})} == {
        "break_indentation"
    }
    assert set().union(*(KINDS[name].languages for name in TREES)) == trees.LANGUAGES


def test_unknown_names_and_doses():
    with pytest.raises(UserError, match=r"flip_coins.*flip_conditions"):
        corrupt_text("flip_coins", b"a", None, 0)
    with pytest.raises(UserError, match="modality 'sound'"):
        corruptions("sound")
    for dose in (0.0, -1.0, 1.1):
        with pytest.raises(UserError, match="dose"):
            corrupt_text("html_wrap", b"a", None, 0, dose)


def test_what_is_damaged_stays_text():
    """Names, comments and strings of several bytes a character; damaged once and once more."""
    text = (
        "größe = 1\nд = größe + 2\n名前 = [größe, д]\n\n\ndef ändern(名前, д):\n"
        "    if д == 3 and 名前[0] > 2:\n        return 'schön — “ja”'\n    # ünïcödé 🎉\n"
        "    return 名前[д]\n"
    ).encode() * 3
    kinds = corruptions("code")
    once = [corrupt_text(kind, text, "Python", seed, 0.7) for kind in kinds for seed in range(6)]
    assert sum(each is not None for each in once) > 60
    for data in filter(None, once[::3]):
        assert data.decode() != text.decode()
        for kind in ("invalid_names", "cut_mid_token", "meaningless_names"):
            (corrupt_text(kind, data, "Python", 1, 0.7) or b"").decode()
    for data in filter(None, once):
        data.decode()


def test_nothing_heavy_is_loaded():
    code = (
        "import sys, shardwright.quality.corruptions as c; c.corruptions('code');"
        "print(*[m for m in ('tree_sitter', 'numpy', 'torch', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
