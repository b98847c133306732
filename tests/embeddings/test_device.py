"""What ``auto | cpu | cuda`` means with and without a GPU."""

import subprocess
import sys

import pytest
import torch

from shardwright.embeddings.device import resolve_device
from shardwright.errors import UserError


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [resolve_device(d) for d in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(
        UserError, match=r"clusters\.device is cuda, but torch sees no GPU: use cpu"
    ):
        resolve_device("cuda", "clusters.device")


def test_with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [resolve_device(d) for d in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]


def test_unknown_device():
    with pytest.raises(UserError, match="device is 'tpu': use auto, cpu or cuda"):
        resolve_device("tpu")


def test_the_cpu_is_had_without_torch():
    code = (
        "import sys; from shardwright.embeddings.device import resolve_device\n"
        "resolve_device('cpu'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
