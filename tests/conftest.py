"""Settings that every test shares."""

import functools
import os
import sys
from types import ModuleType

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tests share the cores
settings.register_profile("shardwright", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("shardwright")

_TFDS = "tensorflow_datasets"
# `verify` reads with TensorFlow Datasets too where it is installed, which takes longer than all the
# rest: it is not installed for the tests that do not ask for it.
sys.modules[_TFDS] = None  # type: ignore[assignment]


@functools.cache
def _tensorflow_datasets() -> ModuleType:
    del sys.modules[_TFDS]
    why = "tensorflow-datasets and importlib-resources are not here"
    return pytest.importorskip(_TFDS, reason=why)  # type: ignore[no-any-return]


@pytest.fixture
def tfds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """TensorFlow Datasets, which `verify` finds while a test has this."""
    module = _tensorflow_datasets()
    sys.modules[_TFDS] = None  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, _TFDS, module)
    return module
