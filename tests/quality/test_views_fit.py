import random
import subprocess
import sys

import numpy as np
import pytest

from shardwright.quality.views import Views, fit, fold_of, summaries

WORDS = ("total", "count", "offset", "length", "index", "value", "result", "buffer", "limit")


def source(seed):
    pick = random.Random(seed)
    a, b, c = pick.sample(WORDS, 3)
    return (
        f"def measure_{a}({b}, {c}):\n    if {b} is None:\n        return 0\n"
        f"    {a} = {b} + {pick.randrange(9)}\n    for i in range(0, {c}):\n"
        f"        {a} += {b}[i]\n    return {a}\n"
    ).encode()


FILES = [(f"repository{i % 17}", source(i), "Python") for i in range(90)]
FITTED = fit(FILES)


def test_damage_shows():
    clean = source(1000)
    plants = {
        "choice_comparison": (b"is None", b"is not None"),
        "choice_index": (b"[i]", b"[i - 1]"),
        "choice_number": (b"range(0", b"range(77"),
        "lint_unreachable": (b"        return 0\n", b"        return 0\n        g()\n"),
        "syntax_errors": (b"):\n", b"\n"),
        "cloze": (b"for i in", b"for in in"),
        "tree_inner": (b"    for", b"    lambda: 0\n    for"),
    }
    before = FITTED.measure(clean, "Python", 0)
    for name, (old, new) in plants.items():
        assert clean.count(old) == 1 or name == "syntax_errors"
        after = FITTED.measure(clean.replace(old, new), "Python", 0)
        assert after[name] > before[name], name


def test_no_file_is_judged_by_a_model_that_has_read_it():
    odd = b"zyx = (wvu ^ tsr) if not qpo else nml\n" * 30
    key = "odd"
    with_it = fit([*FILES, *[(key, odd, "Python")] * 5])
    own = fold_of(key, 2)
    values = FITTED.measure(odd, "Python", own)
    assert with_it.measure(odd, "Python", own) == values
    assert with_it.measure(odd, "Python", 1 - own)["cloze"] < values["cloze"] / 2


def test_the_order_of_files_changes_nothing(tmp_path):
    FITTED.save(tmp_path / "one.npz")
    fit(FILES[::-1]).save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_saved_views_measure_the_same(tmp_path):
    FITTED.save(tmp_path / "views.npz")
    again = Views.load(tmp_path / "views.npz")
    assert again.folds == 2
    for _, data, language in FILES[:5]:
        assert again.measure(data, language, 1) == FITTED.measure(data, language, 1)


def test_every_view_has_its_value():
    values = FITTED.measure(FILES[0][1], "Python", 0)
    assert tuple(values) == FITTED.names
    assert all(value is None or isinstance(value, float) for value in values.values())


def test_without_models_there_is_lint_and_without_a_grammar_nothing():
    go = FITTED.measure(b"package a\nfunc f() int {\n\tg()\n}\n", "Go", 0)
    assert go["lint_missing_return"] > 0
    assert go["cloze"] is None
    assert set(FITTED.measure(b"a = 1", "Fortran", 0).values()) == {None}
    assert set(FITTED.measure(b"a = 1", None, 0).values()) == {None}


def test_few_files_give_no_models():
    assert not fit(FILES[:20]).models


def test_one_fold_is_refused():
    with pytest.raises(ValueError, match="2 or more"):
        fit(FILES, folds=1)


def test_folds_are_fixed():
    assert [fold_of(key, 5) for key in ("a", "b", "c")] == [fold_of(k, 5) for k in "abc"]
    assert {fold_of(str(i), 3) for i in range(50)} == {0, 1, 2}


def test_importing_is_light():
    heavy = ["torch", "pyarrow", "apache_beam", "tree_sitter"]
    code = (
        f"import sys, shardwright.quality.views; print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


def test_summaries():
    bits = np.full(640, 2.0)
    bits[100:132] = 9.0
    assert summaries.worst(np.full(640, 2.0)) == 0
    assert 6 < summaries.worst(bits) <= 7
    assert summaries.worst(bits[:63]) is None
    assert summaries.mean(bits[:2]) is None
    assert summaries.excess(np.array([1.0, 7.0])) == 5 / 7
    assert summaries.excess(bits[:0]) is None


def test_repeated_lines():
    line = b"a line of more than twenty bytes\n"
    other = line.replace(b"more", b"also")
    assert summaries.repeated_lines(line + other) == 0
    assert summaries.repeated_lines(line + other + b"  " + line + line) == 0.5
    assert summaries.repeated_lines(b"}\n}\n") is None
