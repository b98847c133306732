"""What a stage took: energy by counters that wrap or are missing, and what Prometheus reads."""

import json
import mmap
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import common
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardwright.errors import DataError, UserError
from shardwright.metadata.layout import Layout
from shardwright.pipelines import energy, memory
from shardwright.pipelines.energy import Counter, Energy, Meter, find_counters
from shardwright.pipelines.memory import watched
from shardwright.pipelines.progress import StageMetrics
from shardwright.pipelines.prometheus import tell_prometheus

NOTHING = StageMetrics(
    stage="ingest",
    records=100,
    bytes=5_000,
    shuffled=0,
    written=700,
    parts=2,
    reused=0,
    seconds=1.5,
    rejects=3,
    cached=0,
    peak_bytes=10_000,
    device=None,
    energy=Energy({}, None),
)
SPENT = Energy({"package-0": 12.5}, 0.1)
STAGES = [NOTHING, replace(NOTHING, stage="embed", cached=40, device="cpu", energy=SPENT)]


def counter(name: str, *values: float, wraps: float | None = None) -> Counter:
    found = iter(values)
    return Counter(name, lambda: next(found), wraps)


def test_energy_is_the_difference_and_a_counter_may_wrap() -> None:
    meter = Meter((counter("a", 10.0, 12.5), counter("b", 99.0, 1.0, wraps=100.0)))
    assert meter.energy() == Energy({"a": 2.5, "b": 2.0}, None)


def test_carbon_is_of_what_the_user_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(energy.INTENSITY, "360")
    assert Meter((counter("a", 0.0, 10_000.0),)).energy().grams_co2e == pytest.approx(1.0)
    assert Meter(()).energy() == Energy({}, None)  # unknown, not nothing
    monkeypatch.setenv(energy.INTENSITY, "much")
    with pytest.raises(UserError, match="SHARDWRIGHT_GRAMS_CO2E_PER_KWH=much"):
        Meter(()).energy()


def test_packages_of_processors_are_read_and_their_parts_are_not(tmp_path: Path) -> None:
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core"}
    for zone, name in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("262143328850\n")
        (tmp_path / zone / "energy_uj").write_text("5000000\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()  # not for this user
    meter = Meter(find_counters(tmp_path)[:1])
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1000000\n")
    assert meter.energy().joules == {"package-0": pytest.approx(262143.32885 - 4.0)}


def read(text: str) -> dict[tuple[str, ...], float]:
    labels = ("curation", "stage", "counter")
    return {
        (one.name, *(one.labels[name] for name in labels if name in one.labels)): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_a_file_that_prometheus_reads(tmp_path: Path) -> None:
    tell_prometheus(str(tmp_path / "run.prom"), 'my "set"', STAGES)
    found = read((tmp_path / "run.prom").read_text())
    assert found["shardwright_stage_records", 'my "set"', "ingest"] == 100
    assert found["shardwright_stage_rejects", 'my "set"', "ingest"] == 3
    assert found["shardwright_stage_cached", 'my "set"', "embed"] == 40
    assert found["shardwright_stage_joules", 'my "set"', "embed", "package-0"] == 12.5
    assert not [key for key in found if key[0].endswith("joules") and key[2] == "ingest"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.prom"]


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server in the place of a push gateway; what was put there."""
    put: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            put.append((self.path, body.decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", put
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_push_gateway(gateway: tuple[str, list[tuple[str, str]]]) -> None:
    address, put = gateway
    tell_prometheus(address, "set", STAGES)
    [(path, text)] = put
    assert path == "/metrics/job/shardwright"
    assert read(text)["shardwright_stage_seconds", "set", "embed"] == 1.5
    with pytest.raises(DataError, match=r"--prometheus http://127\.0\.0\.1:9: "):
        tell_prometheus("http://127.0.0.1:9", "set", STAGES)


def test_a_curation_tells_what_it_did(tmp_path: Path) -> None:
    source = common.copy_sources(tmp_path / "in", 12)
    (source / "empty.py").write_bytes(b"\xff\xfe\x00binary\x00")
    target = tmp_path / "run.prom"
    stages = ("ingest", "embed")
    options = {"stages": stages, "prometheus": str(target)}
    recipe = common.recipe("code", source)
    common.curate(recipe, tmp_path / "out", **options)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    of = {stage["stage"]: stage for stage in metrics["stages"]}
    assert of["embed"]["device"] == "cpu"
    assert of["ingest"]["device"] is None
    found = read(target.read_text())
    for stage in stages:
        for name in ("records", "rejects", "cached", "parts"):
            key = (f"shardwright_stage_{name}", recipe.name, stage)
            assert found[key] == of[stage][name], key
    with pytest.raises(UserError, match="no such folder"):
        common.curate(
            common.recipe("code", source), tmp_path / "o", prometheus=f"{tmp_path}/none/run.prom"
        )


def test_bytes_written_are_those_of_the_files_that_a_run_makes(tmp_path: Path) -> None:
    source = common.copy_sources(tmp_path / "in", 12)
    output = tmp_path / "out"
    recipe = common.recipe("code", source)

    def written() -> dict[str, int]:
        text = (output / "metrics.json").read_text()
        return {stage["stage"]: stage["written"] for stage in json.loads(text)["stages"]}

    common.curate(recipe, output, stages=("ingest", "duplicates"))
    layout = Layout(output)
    first = written()
    tables = [manifest for manifest in layout.manifests() if manifest.origin.stage == "ingest"]
    files = [path for manifest in tables for path in manifest.folder.iterdir()]
    assert first["ingest"] == sum(path.stat().st_size for path in files)
    assert first["duplicates"] > 0
    common.curate(recipe, output, stages=("ingest", "duplicates"))
    assert written() == {"ingest": 0, "duplicates": 0}


def test_bytes_shuffled_are_those_that_workers_leave_for_others(tmp_path: Path) -> None:
    source = common.copy_sources(tmp_path / "in", 12)
    common.curate(common.recipe("code", source), tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    shuffled = {stage["stage"]: stage["shuffled"] for stage in metrics["stages"]}
    assert shuffled["ingest"] == shuffled["embed"] == shuffled["prune"] == 0
    assert shuffled["duplicates"] > 0


def test_the_most_that_was_held_counts_children_and_no_mapped_files(tmp_path: Path) -> None:
    many = 150_000_000
    with watched() as peak:
        before = peak.bytes
        command = f"import time; held = b'1' * {many}; print(flush=True); time.sleep(30)"
        child = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        ends = time.monotonic() + 60
        while peak.bytes - before < many and time.monotonic() < ends:
            time.sleep(memory.SAMPLE_SECONDS)
        child.kill()
        child.communicate()
    assert many <= peak.bytes - before < 2 * many
    (tmp_path / "file").write_bytes(b"1" * many)
    with watched() as peak, (tmp_path / "file").open("rb") as file:
        before = peak.bytes
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped.find(b"2") == -1
            time.sleep(3 * memory.SAMPLE_SECONDS)
    assert peak.bytes - before < many // 2
