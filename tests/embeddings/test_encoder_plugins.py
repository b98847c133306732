"""Encoders that packages add: their scheme, their package's version, and what is refused."""

import sys

import numpy as np
import pytest
from pretended import pretend

from shardwright.embeddings.encoder import ENTRY_POINTS, encode_stream, load_encoder
from shardwright.errors import UserError

GOOD = {"modality": "code", "device": "cpu", "dtype": "float32", "batch_size": 4}


class Lengths:
    """The length as a direction in the plane."""

    name, dimension, fingerprint = "own:lengths", 2, "00"

    def __init__(self):
        self.description = {"model": self.name}

    def encode(self, batch):
        angles = np.array([len(text) for text in batch], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


class Ahead(Lengths):
    def encode_stream(self, batches):
        for batch in list(batches):
            yield -self.encode(batch)


def load(model, *, modality, device, dtype, batch_size):
    if model != "own:lengths":
        raise UserError(f"embedding.model {model!r} is unknown: use own:lengths")
    return Lengths()


def load_ahead(model, *, modality, device, dtype, batch_size):
    return Ahead()


@pytest.fixture
def packages(monkeypatch):
    """Installs packages: name of an entry point, what it loads, and of which package."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Lengths.__module__])

    def install(*points):
        pretend(monkeypatch, __name__, ENTRY_POINTS, points)

    return install


def test_a_scheme_finds_its_factory(packages):
    packages(("own", "load", "acme 1.0"), ("broken", "nothing", "other 1.0"))
    found = load_encoder("own:lengths", **GOOD)
    assert (found.name, found.dimension) == ("own:lengths", 2)
    assert found.encode(["", "a"])[0].tolist() == [1, 0]
    assert found.description == {"model": "own:lengths", "package": "acme 1.0"}
    with pytest.raises(UserError, match="'own:other' is unknown: use own:lengths"):
        load_encoder("own:other", **GOOD)


def test_the_version_of_the_package_enters_the_fingerprint(packages):
    prints = []
    for package in ("acme 1.0", "acme 1.1", "acme 1.0"):
        packages(("own", "load", package))
        prints.append(load_encoder("own:lengths", **GOOD).fingerprint)
    assert prints[0] == prints[2] != prints[1]
    assert Lengths.fingerprint not in prints


def test_streams_are_its_own_where_it_has_them(packages):
    packages(("own", "load", "acme 1.0"), ("ahead", "load_ahead", "acme 1.0"))
    batches = [["a"], ["bb", ""]]
    plain = list(encode_stream(load_encoder("own:lengths", **GOOD), batches))
    ahead = list(encode_stream(load_encoder("ahead", **GOOD), batches))
    assert [len(rows) for rows in plain] == [1, 2]
    for one, other in zip(plain, ahead, strict=True):
        np.testing.assert_array_equal(one, -other)


@pytest.mark.parametrize(
    ("points", "model", "message"),
    [
        ([("own", "load", "acme 1.0")], "mine:x", "'mine:x' is unknown: .*preset:NAME, own, or"),
        ([("builtin", "load", "acme 1.0")], "builtin:hashing", r"'builtin' .*Shardwright's own"),
        ([("preset", "load", "acme 1.0")], "preset:clip", r"'preset' of .*\(acme 1.0: .*own"),
        (
            [("own", "load", "acme 1.0"), ("own", "load_ahead", "other 2.0")],
            "own:lengths",
            r"\(acme 1.0: .*\) and .*\(other 2.0: .*\) have one name",
        ),
        (
            [("own", "nothing", "acme 1.0")],
            "own:lengths",
            r"'own' of 'shardwright.encoders' \(acme 1.0: .*cannot be imported \(AttributeError: ",
        ),
    ],
)
def test_what_is_refused(packages, points, model, message):
    packages(*points)
    with pytest.raises(UserError, match=message):
        load_encoder(model, **GOOD)


def test_another_packages_fault_is_no_matter(packages):
    packages(("preset", "load", "acme 1.0"), ("own", "nothing", "acme 1.0"))
    assert load_encoder("builtin:hashing", **GOOD).name == "builtin:hashing"
