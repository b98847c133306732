import pytest

from shardwright.quality.syntax import parse
from shardwright.quality.views import lint, trees

CLEAN = {
    "Python": b"def f(a):\n    b = a + 1\n    if b is None:\n        return 0\n    return b\n",
    "JavaScript": b"function f(a) { const b = a + 1; if (!b) { return 0; } return b; }\n",
    "TypeScript": b"function f(a: number): number { const b = a + 1; return b; }\n",
    "Java": b"class A { int f(int a) { int b = a + 1; if (b == null) { return 0; } return b; } }",
    "C": b"int f(int a) { int b = a + 1; if (b == 2) { return 0; } return b; }\n",
    "C++": b"int f(int a) { int b = a + 1; if (b == 2) { return 0; } return b; }\n",
    "Go": b"package a\nfunc f(a int) int {\n\tb := a + 1\n\tif b == nil {\n\t\treturn 0\n\t}\n"
    b"\treturn b\n}\n",
    "Rust": b"fn f(a: i32) -> i32 { let b = a + 1; if b == 2 { return 0; } b }\n",
}
# Fact, language, and a change to the clean text that plants it.
PLANTED = [
    ("read_early", "Python", b"    b = a + 1\n", b"    print(b)\n    b = a + 1\n"),
    ("read_early", "JavaScript", b"const b", b"g(b); const b"),
    ("read_early", "Java", b"int b", b"g(b); int b"),
    ("read_early", "C", b"int b", b"g(b); int b"),
    ("read_early", "Go", b"\tb :=", b"\tg(b)\n\tb :="),
    ("read_early", "Rust", b"let b", b"g(b); let b"),
    ("unused", "Python", b"    b = a + 1\n", b"    b = a + 1\n    c = b\n"),
    ("unused", "JavaScript", b"return b", b"const c = b; return b"),
    ("unused", "Java", b"return b", b"int c = b; return b"),
    ("unused", "C++", b"return b", b"int c = b; return b"),
    ("unused", "Go", b"\treturn b", b"\tc := b\n\treturn b"),
    ("unused", "Rust", b"if b", b"let c = b; if b"),
    ("redeclared", "JavaScript", b"const b = a + 1;", b"const b = a + 1; const b = a;"),
    ("redeclared", "Java", b"int b = a + 1;", b"int b = a + 1; int b = a;"),
    ("redeclared", "C", b"int b = a + 1;", b"int b = a + 1; int b = a;"),
    ("redeclared", "Go", b"\tb := a + 1\n", b"\tb := a + 1\n\tb := a\n"),
    ("unreachable", "Python", b"    return b\n", b"    return b\n    b = 2\n"),
    ("unreachable", "Java", b"return b;", b"return b; b = 2;"),
    ("unreachable", "Go", b"\treturn b\n", b"\treturn b\n\tb = 2\n"),
    ("unreachable", "C", b"return b;", b"return b; b = 2;"),
    ("unreachable", "Rust", b"return 0;", b"return 0; g();"),
    ("missing_return", "Java", b"return b;", b"g(b);"),
    ("missing_return", "Go", b"\treturn b\n", b"\tg(b)\n"),
    ("missing_return", "C", b"return b;", b"return;"),
    ("missing_return", "TypeScript", b"return b;", b"g(b);"),
    ("missing_return", "Rust", b" b }\n", b" g(b); }\n"),
    ("mixed_returns", "Python", b"return 0", b"return"),
    ("mixed_returns", "JavaScript", b"return 0", b"return"),
    (
        "empty_value",
        "Python",
        b"        return 0\n    return b\n",
        b"        b = 0\n    b = f(1)\n",
    ),
    ("same_operands", "Python", b"a + 1", b"a - a"),
    ("same_operands", "Go", b"b == nil", b"b == b"),
    ("duplicate_statement", "Python", b"    b = a + 1\n", b"    b = a + 1\n    b = a + 1\n"),
    ("duplicate_statement", "C", b"b = a + 1;", b"b; b = a + 1; b = a + 1;"),
    ("duplicate_statement", "Go", b"\tb := a + 1\n", b"\tb := a\n\tb = 3\n\tb = 3\n"),
    ("contradiction", "Python", b"return 0", b"return b.c"),
    ("contradiction", "JavaScript", b"return 0", b"return b.c"),
    ("contradiction", "Go", b"return 0", b"return b"),
    ("contradiction", "Java", b"return 0", b"return b.c()"),
]


def found(text, language):
    return lint.lint(trees.flatten(text, parse(text, language)), language)


def objections(text, language):
    facts = found(text, language)
    return {name: facts[name] for name in lint.NAMES if facts[name]}


@pytest.mark.parametrize("language", CLEAN)
def test_nothing_to_say_of_clean_code(language):
    facts = objections(CLEAN[language], language)
    assert not parse(CLEAN[language], language).has_error
    assert facts == {}


@pytest.mark.parametrize(
    ("fact", "language", "before", "after"),
    PLANTED,
    ids=[f"{fact}-{language}" for fact, language, *_ in PLANTED],
)
def test_planted_faults_are_found(fact, language, before, after):
    clean = CLEAN[language]
    assert clean.count(before) == 1
    assert found(clean.replace(before, after), language)[fact] > 0


FINE = {
    "Python": [
        b"def f():\n    for i in range(3):\n        g(i)\n",
        b"def f(xs):\n    return [x for x in xs]\n",
        b"def f():\n    global n\n    g(n)\n    n = 1\n    return n\n",
        b"def f(a):\n    try:\n        b = a\n    except E as e:\n        g(e)\n    return b\n",
        b"def get_a():\n    raise NotImplementedError\n",
        b"def f(x):\n    if x is None:\n        x = []\n    x.y = 1\n",
        b"def f():\n    a = 1\n    def g():\n        return a\n    return g\n",
        b"def f(n):\n    def g():\n        h(n)\n        n = 1\n        return n\n    return g\n",
    ],
    "Go": [
        b"package a\nfunc f() (n int, err error) {\n\tn = 1\n\tg(n)\n\treturn\n}\n",
        b"package a\nvar n int\nfunc f() {\n\tg(n)\n\tn := 1\n\tg(n)\n}\n",
        b"package a\nfunc f() int {\n\tfor {\n\t\tg()\n\t}\n}\n",
        b"package a\nfunc f() int {\n\tg()\n\tpanic(1)\n}\n",
    ],
    "Java": [
        b"class A { int f() { while (true) { g(); } } void h() { return; } abstract int k(); }"
    ],
    "C": [b"void f(int a) { if (a) return; g(a); }\nint g(void);\n"],
    "Rust": [b"fn f(a: i32) -> i32 { let b = a; match b { _ => 1 } }\nfn g() { h(); }\n"],
}


@pytest.mark.parametrize(
    ("language", "text"), [(language, text) for language, own in FINE.items() for text in own]
)
def test_what_is_fine_is_not_objected_to(language, text):
    assert objections(text, language) == {}


@pytest.mark.parametrize("text", [b"", b"\n", b"}{)(", b"return", b"x"])
@pytest.mark.parametrize("language", CLEAN)
def test_anything_can_be_looked_at(text, language):
    assert set(found(text, language)) == {*lint.NAMES, "short_names", "numbered_names"}


def test_names_that_say_little():
    facts = found(b"total = count + x1\n", "Python")
    assert (facts["short_names"], facts["numbered_names"]) == (1 / 3, 1 / 3)
