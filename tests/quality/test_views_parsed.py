import argparse
import json
import turtle
from pathlib import Path

import pytest

from shardwright.quality.syntax import measure_syntax
from shardwright.quality.views.parsed import comment_share, read

STRING = b"'\xc3\xa9 two'"
PYTHON = [
    STRING,
    STRING + b"\n",
    b"# a\n" + STRING + b"\n",
    STRING + b"  # a\n",
    STRING + b",\n",
    STRING + b", 1\n",
    STRING + b" 'b'\n",
    STRING + b" + 'b'\n",
    b"x = " + STRING,
    b"def f(): " + STRING + b"; g()\n",
    b"def f(): g(); " + STRING,
    b"def f():\n    # a\n\n    " + STRING + b"\n    return 1\n",
    b"class A:\n    " + STRING + b"\n    def f(self):\n        " + STRING,
    b"class A():\n" + STRING,
    b"class A\n    " + STRING,
    b"class A:\n    x = 1\n    " + STRING,
    b"if a:\n    " + STRING,
    b"",
    b"def",
]
OTHERS = [
    ("Rust", b'/// \xc3\xa9\r\n//! b\nfn f() { /* c /* d */ */ g("//") } // e'),
    ("C", b"/* a */ int b; // c\n"),
    ("JavaScript", b"<!-- a\nf() // b\n"),
    ("Go", b"// a\npackage a /* b"),
    ("PHP", b"<?php # a\n// b\n/* c */ f();"),
    ("CSS", b"/* a */ b { c: d }"),
    ("JSON", b"{}"),
    ("Bash", b"#!/bin/sh\nls # a"),
    (None, b"# a"),
    ("Befunge", b"# a"),
]
FILES = [Path(module.__file__).read_bytes() for module in (argparse, json, turtle)]


@pytest.mark.parametrize(
    ("language", "text"), [*(("Python", text) for text in [*PYTHON, *FILES]), *OTHERS]
)
def test_shares_are_those_of_the_filters(language, text):
    for stop in (len(text), len(text) * 2 // 3):
        cut = text[:stop].decode(errors="ignore").encode()
        parsed, measured = read(cut, language), measure_syntax(cut, language)
        assert comment_share(parsed) == measured["comment_share"]
        if parsed.tree is None:
            assert measured["syntax_error_share"] is None
        else:
            assert parsed.errors / max(len(cut), 1) == measured["syntax_error_share"]
