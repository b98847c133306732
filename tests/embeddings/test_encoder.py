"""Looking up encoders by name, and the errors of a recipe's ``embedding`` block."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from shardwright import plugins
from shardwright.embeddings import encoder, load_encoder
from shardwright.embeddings.encoder import TorchOptions, encode_stream
from shardwright.errors import UserError

GOOD = {"modality": "code", "device": "auto", "dtype": "float32", "batch_size": 4}


@pytest.mark.parametrize(
    ("model", "modality"), [("builtin:hashing", "code"), ("builtin:descriptor", "image")]
)
def test_builtins_by_name(model, modality):
    found = load_encoder(model, modality=modality, device="cpu", dtype="float16", batch_size=1)
    assert found.name == model
    assert found.dimension == 256
    assert len(bytes.fromhex(found.fingerprint)) == 32
    assert found.description["model"] == model
    empty = found.encode([])
    assert empty.shape == (0, 256)
    assert empty.dtype == np.float32


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("builtin:hashing", {"modality": "image"}, "encodes code, not image: use builtin:descr"),
        ("builtin:descriptor", {}, "encodes image, not code: use builtin:hashing"),
        ("builtin:magic", {}, "'builtin:magic' is unknown: use builtin:hashing or"),
        ("starencoder", {}, "'starencoder' is unknown: use builtin:hashing, .*install a package"),
        ("builtin:hashing", {"device": "cuda"}, "runs on the CPU only, use auto or cpu"),
        ("builtin:hashing", {"device": "tpu"}, "device is 'tpu': use auto, cpu, cuda"),
        ("builtin:hashing", {"dtype": "int8"}, "dtype is 'int8': use float32, float16"),
        ("builtin:hashing", {"modality": "audio"}, "modality is 'audio': use code, image"),
        ("builtin:hashing", {"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ("builtin:hashing", {"options": TorchOptions(compile=True)}, "are not for builtin:hashing"),
    ],
)
def test_wrong_values_name_the_remedy(model, change, message):
    with pytest.raises(UserError, match=message):
        load_encoder(model, **(GOOD | change))


class Constant:
    """What a user's package might add."""

    name = "mine:v2"
    dimension = 2
    fingerprint = "00"

    def __init__(self, model, *, modality, device, dtype, batch_size):
        self.description = {"model": "mine"}
        self.arguments = (model, modality, device, dtype, batch_size)

    def encode(self, batch):
        return np.tile(np.float32([1, 0]), (len(batch), 1))


def test_entry_points_add_encoders(monkeypatch):
    point = EntryPoint("mine", f"{__name__}:Constant", encoder.ENTRY_POINTS)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Constant.__module__])
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    found = load_encoder("mine:v2", **GOOD)
    assert found.arguments == ("mine:v2", "code", "auto", "float32", 4)
    assert found.encode(["a", "b"]).shape == (2, 2)
    assert [len(rows) for rows in encode_stream(found, iter([["a"], [], ["b", "c"]]))] == [1, 0, 2]
    with pytest.raises(UserError, match="NAME, preset:NAME, mine, or install"):
        load_encoder("other", **GOOD)


def test_builtins_do_not_import_torch():
    script = (
        "import sys; from shardwright.embeddings import load_encoder\n"
        "for m, k in (('hashing', 'code'), ('descriptor', 'image')):\n"
        "    load_encoder('builtin:' + m, modality=k, device='auto', dtype='float32',"
        " batch_size=1)\n"
        "print([m for m in ('torch', 'faiss', 'apache_beam') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_unit_rows_are_exact_at_large_integers():
    rows = np.array([[3 << 29, 4 << 29], [0, 0], [-1, 0]], dtype=np.int64)
    assert encoder.unit_rows(rows).tolist() == [[0.6, 0.8], [0, 0], [-1, 0]]
