import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest.bad_inputs import abyss

from shardwright.errors import UserError
from shardwright.pipelines.sections import Source
from shardwright.pipelines.sources import Input, Refusal, open_source
from shardwright.pipelines.sources.names import Globs, folder_label, shown

NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def files(uri, include=("**/*",), exclude=(), max_bytes=1000, modality="code"):
    settings = Source(kind="files", uri=str(uri), include=include, exclude=exclude)
    return open_source(settings, max_bytes, modality)


def paths(uri, **settings):
    return [unit.path for unit in files(uri, **settings).units(None)]


def tree(folder, *names):
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(name)
    return folder


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*.py", "a.py", True),
        ("**/*.py", "x/y/a.py", True),
        ("**/*.py", "x/y/A.PY", True),
        ("**/*.py", ".py", True),
        ("**/*.py", "a.pyc", False),
        ("**/*.py", "a.py/b", False),
        ("**/*.py", "line\nfeed.py", True),
        ("*.py", "a.py", True),
        ("*.py", "x/a.py", False),
        ("src/**", "src/a", True),
        ("src/**", "SRC/a/b", True),
        ("src/**", "src", False),
        ("src/**", "my/src/a", False),
        ("src/**/*.py", "src/a.py", True),
        ("src/**/test/*.py", "src/a/b/test/c.py", True),
        ("src/**/test/*.py", "src/test/c.py", True),
        ("src/**/test/*.py", "src/atest/c.py", False),
        ("**/node_modules/**", "node_modules/a", True),
        ("**/node_modules/**", "x/node_modules/y/a", True),
        ("**/node_modules/**", "x/my_node_modules/a", False),
        ("**", "anything/at all", True),
        ("**/*", "a", True),
        ("a?.py", "ab.py", True),
        ("a?.py", "a/.py", False),
        ("[ab].py", "b.py", True),
        ("[!ab].py", "b.py", False),
        ("[!ab].py", "/.py", False),
        ("[a-c].py", "b.py", True),
        ("[.py", "[.py", True),
        ("a+(b).py", "a+(b).py", True),
        ("**/*.{a}", "x.{a}", True),
    ],
)
def test_globs(pattern, path, matches):
    assert Globs((pattern,)).wants(path) is matches
    assert Globs(("**",), (pattern,)).wants(path) is not matches
    assert Globs(("*.nothing", pattern)).wants(path) is matches


@given(st.lists(st.sampled_from(["**/", "*", "?", "[", "]", "!", "^", "-", "\\", "a", "&&", "."])))
def test_any_pattern_is_taken(parts):
    with contextlib.suppress(UserError):
        assert Globs(("".join(parts),)).wants("a/b.py") in (True, False)


def test_a_pattern_that_is_no_glob():
    with pytest.raises(UserError, match=r"\[z-a\]"):
        Globs(("a.py", "[z-a]")).wants("a.py")


def test_shown_names():
    assert shown("plain/é.py") == "plain/é.py"
    assert shown(os.fsdecode(b"a\xff/\xc3\xa9")) == "a\\xff/é"
    assert shown("\ud800") == "\\xed\\xa0\\x80"


@pytest.mark.parametrize(
    ("path", "label"),
    [("a.png", None), ("cats/a.png", "cats"), ("x/cats/a.png", "cats"), ("t.tar!cats/a", "cats")],
)
def test_the_folder_is_the_label(path, label):
    assert folder_label(path) == label


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=8), st.randoms())
def test_the_order_is_that_of_the_names_whatever_the_file_system_does(tmp_path_factory, names, rng):
    """Two folders made in different orders list alike, and like the plain sorting of all names."""
    listings = []
    files_made: set[tuple[bytes, ...]] = set()
    for name in map(tuple, names):
        clear = all(taken[: len(name)] != name for taken in files_made)
        if clear and all(name[:depth] not in files_made for depth in range(len(name))):
            files_made.add(name)
    for _ in range(2):
        folder = tmp_path_factory.mktemp("order")
        order = sorted(files_made)
        rng.shuffle(order)
        for name in order:
            path = os.path.join(os.fsencode(folder), *name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb"):
                pass
        listings.append([unit.path for unit in files(folder).units(None)])
    oracle = [shown(os.fsdecode(b"/".join(name))) for name in sorted(files_made)]
    assert listings == [oracle, oracle]


def test_every_form_of_uri(tmp_path, monkeypatch):
    folder = tree(tmp_path / "my data", "a.py", "b/c.py", "b/d.txt")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file-link.py").symlink_to(folder / "a.py")
    everything = ["a.py", "b/c.py", "b/d.txt"]
    monkeypatch.chdir(tmp_path)
    for uri in (folder, f"{folder}/", "my data", "./my data", "link", "link/"):
        assert paths(uri) == everything
    assert paths(f"file://{tmp_path}/my%20data") == everything
    assert paths(f"file://localhost{tmp_path}/my%20data") == everything
    assert paths(f"{folder}/**/*.py") == ["a.py", "b/c.py"]
    assert paths(f"{folder}/*/c.*") == ["b/c.py"]
    assert paths("my*/b/*") == ["my data/b/c.py", "my data/b/d.txt"]
    assert paths(f"{folder}/**/*.py", include=["b/**"]) == ["b/c.py"]
    assert paths(folder / "a.py") == ["a.py"]
    assert paths("file-link.py") == ["file-link.py"]
    assert next(files("file-link.py").read(list(files("file-link.py").units(None)))).data == b"a.py"


def test_a_folder_named_like_a_glob_is_a_folder(tmp_path):
    assert paths(tree(tmp_path / "a[1]*", "x.py")) == ["x.py"]


@pytest.mark.parametrize("uri", ["nowhere", "nowhere/*.py", "file:///nowhere", "a\0b"])
def test_a_uri_that_names_nothing(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"source\.uri"):
        paths(uri)


def test_an_excluded_folder_is_not_even_listed(tmp_path):
    tree(tmp_path, "a.py", "x/node_modules/deep/b.py")
    unreachable = abyss(tmp_path / "x/node_modules")
    assert f"x/node_modules/{unreachable}" in paths(tmp_path)
    assert paths(tmp_path, exclude=["**/node_modules/**"]) == ["a.py"]


def test_names_that_are_shown_alike_are_told_apart_when_listed(tmp_path):
    """The first of them, in the order of their bytes, keeps the name."""
    root = os.fsencode(tmp_path)
    for name in (b"a\\xff", b"a\xff", b"b\\xff/x", b"b\xff/x", b"c\xff", b"c\\xff/x"):
        os.makedirs(os.path.dirname(root + b"/" + name), exist_ok=True)
        with open(root + b"/" + name, "wb"):
            pass
    problems = [(u.path, u.problem[0] if u.problem else None) for u in files(tmp_path).units(None)]
    assert problems == [
        ("a\\xff", None),
        ("a\\xff", "duplicate_path"),
        ("b\\xff/x", None),
        ("b\\xff/x", "duplicate_path"),
        ("c\\xff/x", None),
        ("c\\xff", None),
    ]


def test_the_state_changes_with_the_file(tmp_path):
    tree(tmp_path, "a.py")
    (before,) = files(tmp_path).units(None)
    (same,) = files(tmp_path).units(None)
    os.utime(tmp_path / "a.py", ns=(1, 1))
    (after,) = files(tmp_path).units(None)
    assert before == same
    assert before.state != after.state


def _gone(path):
    path.unlink()


def _linked(path):
    path.unlink()
    path.symlink_to("/etc/hostname")


def _piped(path):
    path.unlink()
    os.mkfifo(path)


def _foldered(path):
    path.unlink()
    path.mkdir()


def _grown(path):
    path.write_bytes(b"#" * 1001)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_gone, "unreadable"),
        (_linked, "not_regular_file"),
        (_piped, "not_regular_file"),
        (_foldered, "not_regular_file"),
        (_grown, "too_large"),
    ],
)
def test_a_file_that_changes_after_it_was_listed(tmp_path, change, reason):
    tree(tmp_path, "a.py", "b.py")
    source = files(tmp_path)
    units = list(source.units(None))
    change(tmp_path / "a.py")
    refused, fine = source.read(units)
    assert isinstance(refused, Refusal)
    assert refused.reason == reason
    assert fine == Input("b.py", b"b.py")


def test_a_file_whose_size_says_nothing_is_read_all_the_same():
    source = files("/proc/self/status", max_bytes=100_000)
    (item,) = source.read(list(source.units(None)))
    assert isinstance(item, Input)
    assert item.data.startswith(b"Name:")
    small = files("/proc/self/status", max_bytes=10)
    (item,) = small.read(list(small.units(None)))
    assert isinstance(item, Refusal)
    assert item.reason == "too_large"
