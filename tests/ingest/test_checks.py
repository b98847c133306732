import subprocess
import sys

import pytest

from shardwright.quality.faults import Fault
from shardwright.quality.language import detect_language
from shardwright.quality.text import check_text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"12345", "too_large"),
        (b"\0\0\0\0\0", "too_large"),
        (b"", "empty"),
        (b"\0\xff", "binary"),
        (b"a\xff", "invalid_encoding"),
    ],
)
def test_text_is_refused_in_a_fixed_order(data, reason):
    fault = check_text(data, 4)
    assert isinstance(fault, Fault)
    assert fault.reason == reason


def test_text_comes_back_as_it_is():
    assert check_text("\ufeffé\r\n".encode(), 100) == "\ufeffé\r\n"


def test_the_offset_of_bad_text_is_named():
    fault = check_text(b"abc\xff", 100)
    assert isinstance(fault, Fault)
    assert fault.message.endswith("byte offset 3")


@pytest.mark.parametrize(
    ("path", "text", "language"),
    [
        ("a.py", "", "Python"),
        ("deep/er/a.CPP", "", "C++"),
        ("a.js", "", "JavaScript"),
        ("a.tsx", "", "TypeScript"),
        ("a.rs", "", "Rust"),
        ("a.cs", "", "C#"),
        ("a.kt", "", "Kotlin"),
        ("a.sh", "", "Bash"),
        ("a.r", "", "R"),
        ("a.sql", "", "SQL"),
        ("a.md", "", "Markdown"),
        ("a.yml", "", "YAML"),
        ("a.txt", "", "Text"),
        ("LICENSE", "", "Text"),
        ("CMakeLists.txt", "", "CMake"),
        ("folder.py/Makefile", "", "Makefile"),
        ("Dockerfile", "", "Dockerfile"),
        ("a.h", "int f(void);", "C"),
        ("a.h", "#pragma once\nnamespace x {\nclass A;\n}", "C++"),
        ("a.h", "@interface A : NSObject\n@end", "Objective-C"),
        ("a.m", "#import <x.h>\n@implementation A", "Objective-C"),
        ("a.m", "function y = f(x)\n  y = x;\nend", "MATLAB"),
        ("a.pl", "use strict;\nmy $x = 1;\n", "Perl"),
        ("a.pl", "parent(a, b).\n", "Prolog"),
        ("a.v", "module top(input a);\nendmodule", "Verilog"),
        ("a.v", "Theorem t : True.\nProof. trivial. Qed.", "Coq"),
        ("run", "#!/usr/bin/env python3\n", "Python"),
        ("run", "#!/usr/bin/env -S node --x\n", "JavaScript"),
        ("run", "#!/bin/sh", "Bash"),
        ("run", "#!/usr/bin/perl -w\n", "Perl"),
        ("nothing", "", None),
        ("nothing", " \n\n", None),
    ],
)
def test_language_by_name_shebang_and_content(path, text, language):
    assert detect_language(path, text) == language


def test_language_by_model_has_the_same_names():
    text = "import os\nimport sys\n\n\ndef main(argv):\n    return os.path.join(*argv)\n"
    assert detect_language("nothing", text) == "Python"
    assert detect_language("nothing", text) == "Python"
    assert detect_language("table.parquet#7", text) == "Python"


@pytest.mark.parametrize("name", ["a.h", "a.m", "a.pl", "a.v", "a.pm"])
@pytest.mark.parametrize("filler", ["\n", " ", "class ", "a(", "public ", "#"])
@pytest.mark.timeout(60)
def test_telling_languages_apart_takes_no_hostile_time(name, filler):
    detect_language(name, filler * (200_000 // len(filler)))


def test_checks_and_local_listing_do_not_import_beam(tmp_path):
    (tmp_path / "a.py").write_text("a = 1\n")
    code = f"""
import sys
from shardwright.pipelines.sections import Limits, Source
from shardwright.pipelines.sources import open_source
from shardwright.pipelines.ingest import ingest
source = open_source(Source(kind="files", uri={str(tmp_path)!r}), 100, "code")
batches = list(ingest(source, list(source.units(None)), source_name="s", modality="code",
                      limits=Limits()))
assert batches[0][1].num_rows == 1
assert not [name for name in sys.modules if name.startswith(("apache_beam", "torch", "magika"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
