"""What can be known of the CUDA kernels without a card: the compiler's report and its code."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import triton
from cuda.bindings import nvrtc

from shardwright.kernels import device

PORTABLE = ["portable.cu", "rows.cu", "rbf.cu"]
BUILDS = [
    *[(source, "sm_80") for source in PORTABLE],
    *[(source, "sm_90a") for source in ["hopper.cu", *PORTABLE]],
    *[(source, "sm_100") for source in PORTABLE],
]
KERNELS = {
    "portable.cu": [
        f"scan_{keep}{bias}" for keep in ["best", "several", "all"] for bias in ["", "_bias"]
    ],
    "hopper.cu": [
        f"scan_{keep}_{width}{bias}"
        for keep in ["best", "several", "all"]
        for width in device.WIDTHS
        for bias in ["", "_bias"]
    ],
    "rows.cu": ["row_squares", "row_halves", "pair_sums"],
    "rbf.cu": ["rbf_rows"],
}


@cache
def built(source, architecture):
    return device.compile_source(source, architecture)


@cache
def machine_code(source, architecture, folder):
    """Kernel name to its SASS, by the disassembler that torch's Triton brings."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    file = folder / f"{source}.{architecture}.cubin"
    file.write_bytes(built(source, architecture).code)
    done = subprocess.run([tool, "-sass", file], capture_output=True, text=True, check=True)
    sections = re.split(r"\s+Function : (\w+)\n", done.stdout)[1:]
    return dict(zip(sections[::2], sections[1::2], strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cubins")


@pytest.mark.parametrize(("source", "architecture"), BUILDS)
def test_compiles_without_spills(source, architecture):
    report = built(source, architecture).report
    assert sorted(re.findall(r"Function properties for (\w+)", report)) == sorted(KERNELS[source])
    usage = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", report)
    assert usage == [("0", "0", "0")] * len(KERNELS[source])
    assert "warning" not in report.lower()  # C7508, C7510: setmaxnreg ignored, wgmma in series


@pytest.mark.parametrize("kernel", KERNELS["hopper.cu"])
def test_the_hopper_path_uses_hopper(kernel, folder):
    code = machine_code("hopper.cu", "sm_90a", folder)[kernel]
    width = kernel.split("_")[2]
    assert len(re.findall(rf"HGMMA\.64x{width}x16\.F32 ", code)) == 4  # a slice of 64 numbers
    assert "UTMALDG.2D.MULTICAST" in code
    assert {"USETMAXREG.DEALLOC", "USETMAXREG.TRY_ALLOC"} <= set(
        re.findall(r"USETMAXREG\.[A-Z_]+", code)
    )
    assert not re.search(r"\b(LDL|STL)\b", code)  # nothing of the accumulators left registers


@pytest.mark.parametrize("kernel", KERNELS["portable.cu"])
def test_the_portable_path_uses_tensor_cores(kernel, folder):
    code = machine_code("portable.cu", "sm_80", folder)[kernel]
    assert "HMMA.16816.F32" in code
    assert "LDGSTS" in code
    assert "LDSM" in code
    assert not re.search(r"\b(LDL|STL)\b", code)


@pytest.mark.parametrize("kernel", ["row_squares", "pair_sums", "rbf_rows"])
def test_float64_is_never_contracted(kernel, folder):
    # a fused multiply-add would round once where the CPU rounds twice
    source = "rbf.cu" if kernel == "rbf_rows" else "rows.cu"
    for architecture in ["sm_80", "sm_90a", "sm_100"]:
        code = machine_code(source, architecture, folder)[kernel]
        assert "DADD" in code
        assert "DMUL" in code
        assert "DFMA" not in code


def test_a_broken_source_is_reported_with_its_line(tmp_path, monkeypatch):
    for path in device.SOURCES.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source = tmp_path / "rows.cu"
    source.write_text(source.read_text().replace("double sum[8] = {};", "double sum[8] = {}", 1))
    monkeypatch.setattr(device, "SOURCES", tmp_path)
    with pytest.raises(RuntimeError, match=r"(?s)cannot compile rows.cu for sm_80.*rows.cu\(\d+\)"):
        device.compile_source("rows.cu", "sm_80")


def test_binaries_are_kept_by_source_architecture_and_compiler(tmp_path, monkeypatch):
    first = device.cached_binary("rows.cu", "sm_80", tmp_path)
    assert first.report
    again = device.cached_binary("rows.cu", "sm_80", tmp_path)
    assert again == device.Binary(first.code, "")
    device.cached_binary("rows.cu", "sm_90a", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(nvrtc, "nvrtcVersion", lambda: (nvrtc.nvrtcResult.NVRTC_SUCCESS, 1, 2))
    assert device.cached_binary("rows.cu", "sm_80", tmp_path).report
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(UserWarning, match="cannot be kept"):
        binary = device.cached_binary("rows.cu", "sm_80", blocked / "cache")
    assert binary.code == built("rows.cu", "sm_80").code
