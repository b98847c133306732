"""The doctor's checks of the kernels: they pass for right kernels and name what is wrong."""

import numpy as np
import pytest
import torch

from shardwright import kernels
from shardwright.pipelines import doctor, kernel_checks
from shardwright.pipelines.kernel_checks import (
    check_kernels,
    compile_without_device,
    devices,
    hard_rows,
    pair_values,
)

KERNELS = ("nearest", "topk", "pairs_above", "group_max")


@pytest.mark.parametrize("device", devices())
def test_all_kernels_agree(device):
    checks = list(check_kernels(device))
    assert [check.fault for check in checks] == [""] * 13
    names = [f"{kernel} {metric}" for metric in ("cosine", "dot", "l2") for kernel in KERNELS]
    assert [check.name for check in checks] == [*names, "kernel_sum"]


def test_rows_are_hard():
    x = hard_rows()
    assert (np.linalg.norm(x, axis=1) == 0).sum() == 2
    cosines = pair_values(x, x, "cosine")
    off = cosines[~np.eye(len(x), dtype=bool)]
    assert (off == 1).sum() > 300
    # float64 tells neighbours from copies, float32 does not
    assert ((off < 1) & (off > 1 - 2.0**-25)).sum() > 100
    assert (off[(off < 1) & (off > 0.999)] < 1 - 1e-15).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_index_that_is_off_by_one_row_is_found(monkeypatch, kernel):
    right = getattr(kernels, kernel)

    def wrong(*args, **options):
        index, *rest = right(*args, **options)
        index = index.clone()
        index[len(index) // 2] += 1
        return index, *rest

    monkeypatch.setattr(kernels, kernel, wrong)
    faults = {check.name for check in check_kernels("cpu") if check.fault}
    assert faults == {f"{kernel} {metric}" for metric in ("cosine", "dot", "l2")}


@pytest.mark.parametrize("kernel", [*KERNELS, "kernel_sum"])
def test_a_value_that_is_off_is_found(monkeypatch, kernel):
    right = getattr(kernels, kernel)

    def wrong(*args, **options):
        *rest, value = right(*args, **options)
        return *rest, value * (1 + 1e-7)

    monkeypatch.setattr(kernels, kernel, wrong)
    faults = [check for check in check_kernels("cpu") if check.fault]
    assert {check.name.split()[0] for check in faults} == {kernel}
    assert all("off by" in check.fault for check in faults)


def test_ties_that_go_to_a_later_row_are_found(monkeypatch):
    right = kernels.nearest

    def last_of_ties(x, c, metric):
        index, value = right(x, c.flip(0), metric)
        return len(c) - 1 - index, value

    monkeypatch.setattr(kernels, "nearest", last_of_ties)
    faults = [check for check in check_kernels("cpu") if check.fault]
    assert {check.name for check in faults} == {f"nearest {m}" for m in ("cosine", "dot", "l2")}


def test_an_error_of_a_kernel_is_a_line_of_the_doctor(monkeypatch):
    def broken(*args):
        raise RuntimeError("no binary for sm_12\nmore")

    monkeypatch.setattr(kernels, "topk", broken)
    lines, healthy = doctor.examine()
    assert not healthy
    failed = [line for line in lines if "FAILED" in line]
    assert len(failed) == 3 * len(devices())
    assert failed[0] == f"{'topk cosine':<24} cpu: FAILED: RuntimeError: no binary for sm_12"


def test_without_a_device_the_compiler_is_tried(monkeypatch):
    pytest.importorskip("cuda.bindings.nvrtc")
    assert compile_without_device().endswith("compiles sm_90a")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(kernel_checks, "check_kernels", lambda device: ())
    lines, _ = doctor.examine()
    assert lines[-1].startswith(f"{'cuda':<24} no device; NVRTC ")
    assert lines[-1].endswith(" compiles sm_90a: ok")

    def refused():
        raise RuntimeError("NVRTC cannot compile rows.cu for sm_90a:\nrows.cu(1): error")

    monkeypatch.setattr(kernel_checks, "compile_without_device", refused)
    lines, healthy = doctor.examine()
    assert lines[-1].endswith("FAILED: NVRTC cannot compile rows.cu for sm_90a:")
    assert not healthy

    def absent():
        raise ImportError

    monkeypatch.setattr(kernel_checks, "compile_without_device", absent)
    assert "no NVRTC" in doctor.examine()[0][-1]
