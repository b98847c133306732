"""What ``auto | cpu | cuda`` means with and without a GPU."""

import os
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


def test_each_process_takes_a_card_of_its_own(tmp_path):
    code = (
        "from shardwright.embeddings.device import claim_gpu\n"
        "print(claim_gpu(2), flush=True); input()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    def started():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)
        return process, int(process.stdout.readline())

    first, second, third = started(), started(), started()
    assert (first[1], second[1]) == (0, 1)
    assert third[1] == third[0].pid % 2, "all are taken"
    for process, _ in (first, third):
        process.kill()
        process.wait()
    again, card = started()
    assert card == 0, "what a dead process held is free"
    for process in (second[0], again):
        process.kill()
        process.wait()
