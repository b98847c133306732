import json
from pathlib import Path

import numpy as np
import pytest

from shardwright.quality.syntax import parse
from shardwright.quality.views import choices, ngrams, trees

SOURCES = [
    ("Python", Path(json.__file__).read_bytes()),
    ("Go", b"package a\n// c\nfunc f(x int) int {\n\tif x > 1 {\n\t\treturn x // d\n\t}\n}\n"),
    ("C", b"int f(int a) { return a + /* x */ 1; }"),
    ("Java", b"class A { void f( { } }"),
    ("Rust", b"/// a\n/// b\nfn f() { /* c */ g(1) // d\n}\n"),
]


def flat(text, language):
    return trees.flatten(text, parse(text, language))


@pytest.mark.parametrize(("language", "text"), SOURCES, ids=[name for name, _ in SOURCES])
def test_arrays_are_the_tree(language, text):
    found = []

    def visit(node, parent, elder):
        if "comment" in node.type:
            return None
        place = len(found)
        found.append([node.type, node.start_byte, node.end_byte, parent, elder, 0])
        before = -1
        for child in node.children:
            there = visit(child, place, before)
            before = before if there is None else there
        found[place][-1] = len(found) - place
        return place

    visit(parse(text, language), 0, -1)
    tree = flat(text, language)
    kinds = [tree.kind_name(node) for node in range(len(tree))]
    columns = (tree.starts, tree.ends, tree.parents, tree.elders, tree.sizes)
    rows = zip(kinds, *(column.tolist() for column in columns), strict=True)
    assert [list(row) for row in rows] == found


def test_fields():
    tree = flat(b"def f(a): pass", "Python")
    assert tree.text(int(np.flatnonzero(tree.is_field(("name",)))[0])) == b"f"
    assert {tree.field_name(node) for node in range(len(tree))} >= {"name", "body", None}


def test_events_are_nodes_and_ends():
    tree = flat(b"x = 1\n", "Python")
    labels = trees.label(tree, np.zeros(0, np.uint64))
    events, inner = trees.tree_events(tree, labels)
    parents = len(set(tree.parents[1:].tolist()))
    assert len(events.symbols) == len(tree) - 1 + parents
    assert inner.sum() == parents - 1


COMMON = np.zeros(0, np.uint64)


def chosen(text, language="Python"):
    tree = flat(text, language)
    return choices.choices(tree, trees.label(tree, COMMON))


def test_what_is_usual_is_preferred():
    usual = [
        b"if x is None:\n    return f(a, 1, 'k')\nfor i in range(0, n):\n    y = z[i] + 1\n"
        b"if not ok:\n    raise E\n"
        for _ in range(12)
    ]
    model = ngrams.train(chosen(text).events for text in usual)
    good = choices.measure_choices(model, chosen(usual[0]))
    for kind, before, after in (
        ("comparison", b"is None", b"is not None"),
        ("negation", b"not ok", b"ok"),
        ("index", b"z[i]", b"z[i - 1]"),
        ("number", b"(0, n)", b"(3, n)"),
        ("argument_order", b"(a, 1, 'k')", b"(1, a, 'k')"),
    ):
        bad = choices.measure_choices(model, chosen(usual[0].replace(before, after)))
        assert bad[kind].max() > good[kind].max() + 1, kind


def test_statements_in_the_other_order():
    block = b"def f():\n    a = open(b)\n    if a: return\n    g()\n    return a\n"
    turned = b"def f():\n    a = open(b)\n    if a: return\n    return a\n    g()\n"
    model = ngrams.train([chosen(block).events] * 10)
    good = choices.measure_choices(model, chosen(block))["statement_order"]
    bad = choices.measure_choices(model, chosen(turned))["statement_order"]
    assert good.max() < 0 < bad.max()


@pytest.mark.parametrize("text", [b"", b"\n", b"x", b"f()", b"a[0]", b"!"])
@pytest.mark.parametrize("language", ["Python", "C", "Go", "JavaScript"])
def test_small_files_have_few_choices(text, language):
    found = chosen(text, language)
    assert len(found.groups) == len(found.events.symbols)
    assert found.pairs.shape[0] == 2


def test_deep_trees():
    text = b"x = " + b"(" * 400 + b"1" + b")" * 400 + b"\n"
    tree = flat(text, "Python")
    assert tree.sizes[0] == len(tree)
    assert (tree.sizes[tree.parents[1:]] > tree.sizes[1:]).all()


def test_an_operator_is_judged_by_its_operands():
    usual = b"if x is None: pass\nif n == 0: pass\n"
    model = ngrams.train([chosen(usual).events] * 10)

    def bits(text):
        return choices.measure_choices(model, chosen(text))["comparison"][0]

    assert bits(b"if x is None: pass\n") + 1 < bits(b"if x == None: pass\n")
    assert bits(b"if n == 0: pass\n") + 1 < bits(b"if n is 0: pass\n")
