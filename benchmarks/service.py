"""The service under load, and the map in a browser.

    python benchmarks/service.py [--records 110000] [--seconds 10] [--folder DIR]

Curates so many functions of real files (``scale_corpus.py``; kept in ``--folder`` for the next
time), serves them, and asks: explain, search by a text, whether a text is there already, and a
range of a shard, from 1, 8 and 32 clients of another process. Searches are asked of the recipe's
flat index and of the same curation with ``index.kind: auto``. For each: requests a second, median
and 99th percentile. Then whole shards through nginx, once as its own files and once as the service
has it send them, where nginx is installed. Then the map of all points in Chromium: seconds until it
is drawn, and of one movement.
"""

import argparse
import contextlib
import json
import multiprocessing
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import scale_corpus
from rounds import header
from scale import LIGHT, ROOT

import shardwright

CLIENTS = (1, 8, 32)
SHARDWRIGHT = str(Path(sys.executable).with_name("shardwright"))
RANGE = 1_000_000
"""Bytes of a ranged download."""
GOAL_SEARCH, GOAL_SENDFILE = 0.050, 0.7


@dataclass(frozen=True)
class Request:
    """One request that a client sends."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def message(self) -> bytes:
        """As it is sent."""
        headers = (*self.headers, ("Host", "127.0.0.1"), ("Content-Length", str(len(self.body))))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(": ".join(one) for one in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def curated(folder: Path, records: int, index: str) -> Path:
    """The curation with a kind of index, made once."""
    output = folder / f"{index}-{records}"
    if not (output / "croissant.json").exists():
        source = folder / f"source-{records}"
        if not source.exists():
            scale_corpus.make(source, records)
        settings = (
            *("name=service", "source.kind=parquet", 'source.include=["**/*.parquet"]'),
            f"index.kind={index}",
        )
        command = [SHARDWRIGHT, "curate", str(ROOT / "recipes" / "code.yaml")]
        command += ["--input", str(source), "--output", str(output)]
        command += [part for value in (*settings, *LIGHT) for part in ("--set", value)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output


@contextlib.contextmanager
def served(output: Path, *more: str) -> Iterator[tuple[str, int, psutil.Process]]:
    """The service in a process of its own: host, port, process."""
    command = [SHARDWRIGHT, "serve", str(output), "--port", "0", "--rate", "0", *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[0]
        host, _, port = address.removeprefix("http://").partition(":")
        try:
            yield host, int(port), psutil.Process(process.pid)
        finally:
            process.terminate()


def requests(output: Path) -> dict[str, list[Request]]:
    """What is asked, by kind; each request another one."""
    rows = shardwright.open(output).sql(
        "SELECT record_id, content FROM records USING SAMPLE 400 ROWS (reservoir, 7)"
    )
    ids, texts = rows["record_id"].to_pylist(), rows["content"].to_pylist()
    base = f"/api/curations/{output.name}"
    kind = (("Content-Type", "application/json"),)
    shards = json.loads((output / "shards" / "_manifest.json").read_text())["files"]
    largest = max(shards, key=lambda file: file["bytes"])
    rng = random.Random(0)

    def sent(path: str, body: object) -> Request:
        return Request("POST", f"{base}/{path}", json.dumps(body).encode(), kind)

    def ranged() -> Request:
        start = rng.randrange(max(1, largest["bytes"] - RANGE))
        span = (("Range", f"bytes={start}-{start + RANGE - 1}"),)
        return Request("GET", f"/data/{output.name}/shards/{largest['path']}", headers=span)

    return {
        "explain": [Request("GET", f"{base}/records/{record_id}") for record_id in ids],
        "search": [sent("neighbours", {"item": {"text": text}, "k": 10}) for text in texts],
        "presence": [
            sent("presence", {"items": [{"text": text, "language": "Python"}]}) for text in texts
        ],
        "range of 1 MB": [ranged() for _ in range(400)],
    }


def load(
    host: str, port: int, asked: list[Request], clients: int, seconds: float, out: Any
) -> None:
    """Sends requests from so many threads, and puts the seconds that each took into ``out``."""
    ends = time.perf_counter() + seconds

    messages = [one.message for one in asked]

    def client(number: int, found: list[float]) -> None:
        rng, buffer = random.Random(number), bytearray(2**20)
        with socket.create_connection((host, port), timeout=120) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.perf_counter() < ends:
                message = rng.choice(messages)
                started = time.perf_counter()
                connection.sendall(message)
                answer(connection, buffer)
                found.append(time.perf_counter() - started)

    times: list[list[float]] = [[] for _ in range(clients)]
    threads = [
        threading.Thread(target=client, args=(number, own)) for number, own in enumerate(times)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put([spent for own in times for spent in own])


def answer(connection: socket.socket, buffer: bytearray) -> None:
    """Reads one answer to its end, with as little work as there is: the cores are the service's."""
    have = b""
    while (end := have.find(b"\r\n\r\n")) < 0:
        have += connection.recv(65536)
    head = have[:end].lower()
    if not head.startswith((b"http/1.1 200", b"http/1.1 206")):
        raise RuntimeError(head.decode())
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    left = length - (len(have) - end - 4)
    while left > 0:
        left -= connection.recv_into(buffer, min(left, len(buffer)))


def measured(
    host: str, port: int, asked: list[Request], clients: int, seconds: float
) -> tuple[float, float, float]:
    """Requests a second, and the median and 99th percentile of their seconds."""
    out = multiprocessing.get_context("spawn").Queue()
    arguments = (host, port, asked, clients, seconds, out)
    process = multiprocessing.get_context("spawn").Process(target=load, args=arguments)
    process.start()
    times = sorted(out.get())
    process.join()
    return len(times) / seconds, statistics.median(times), times[int(0.99 * (len(times) - 1))]


def api(output: Path, other: Path, seconds: float) -> Iterator[str]:
    """Lines of the table of requests; of the other curation searches alone."""
    yield "| request | clients | requests/s | p50 ms | p99 ms | |"
    yield "|---|---|---|---|---|---|"
    with served(output, str(other)) as (host, port, process):
        kinds = requests(output) | {"search, `auto`": requests(other)["search"]}
        for name, asked in kinds.items():
            measured(host, port, asked, 1, 8.0)  # what is loaded at the first request
            for clients in CLIENTS:
                rate, middle, late = measured(host, port, asked, clients, seconds)
                goal = ""
                if name.startswith("search") and clients == 8:
                    goal = f"p99 at most 50 ms: {'hit' if late <= GOAL_SEARCH else '**missed**'}"
                yield (
                    f"| {name} | {clients} | {rate:,.0f} | {1000 * middle:.1f} "
                    f"| {1000 * late:.1f} | {goal} |"
                )
        held = process.memory_info().rss
        yield f"\nMemory of the service after all of it: {held / 1e6:,.0f} MB."


_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /plain/ {{ alias {output}/shards/; }}
    location /internal/{name}/shards/ {{ internal; alias {output}/shards/; }}
    location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_set_header Host 127.0.0.1;
      proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def downloads(output: Path, seconds: float) -> Iterator[str]:
    """Lines on whole shards: nginx alone, and nginx told by the service."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        yield "Downloads through nginx: not measured, nginx is not installed."
        return
    shards = json.loads((output / "shards" / "_manifest.json").read_text())["files"]
    largest = max(shards, key=lambda file: file["bytes"])
    with (
        tempfile.TemporaryDirectory() as name,
        served(output, "--sendfile", "/internal") as (_, behind, _),
    ):
        port = behind + 1
        text = _NGINX.format(
            folder=name, output=output.resolve(), name=output.name, port=port, behind=behind
        )
        Path(name, "nginx.conf").write_text(text)
        with subprocess.Popen([nginx, "-c", f"{name}/nginx.conf", "-p", name]) as process:
            time.sleep(1)
            rates: dict[str, list[float]] = {"nginx": [], "service": []}
            paths = {
                "nginx": f"/plain/{largest['path']}",
                "service": f"/data/{output.name}/shards/{largest['path']}",
            }
            for _ in range(3):
                for who, path in paths.items():
                    rate = measured("127.0.0.1", port, [Request("GET", path)], 4, seconds / 2)[0]
                    rates[who].append(rate * largest["bytes"] / 1e6)
            process.terminate()
    middle = {who: statistics.median(found) for who, found in rates.items()}
    ratio = middle["service"] / middle["nginx"]
    yield (
        f"Whole shards of {largest['bytes'] / 1e6:.0f} MB, 4 clients: nginx {middle['nginx']:,.0f} "
        f"MB/s, told by the service {middle['service']:,.0f} MB/s: {ratio:.2f} "
        f"(at least {GOAL_SENDFILE}: {'hit' if ratio >= GOAL_SENDFILE else '**missed**'})."
    )


def browser(output: Path) -> Iterator[str]:
    """Lines on the map in Chromium."""
    program = shutil.which("chromium")
    if program is None:
        yield "The map: not measured, Chromium is not installed."
        return
    from playwright.sync_api import sync_playwright

    report = (output / "report" / "index.html").resolve()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        started = time.perf_counter()
        page.goto(report.as_uri())
        page.wait_for_selector(".map[data-ready=true]")
        drawn = time.perf_counter() - started
        first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        points = page.evaluate("JSON.parse(document.querySelector('.map-data').textContent).count")
        moved = page.evaluate(
            """async () => {
              const chart = echarts.getInstanceByDom(document.querySelector(".map-plot"));
              const spent = [];
              for (let i = 0; i < 30; i++) {
                const started = performance.now();
                const done = new Promise((resolve) => chart.on("finished", resolve));
                chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, start: i, end: 60 + i });
                await done;
                chart.off("finished");
                spent.push(performance.now() - started);
              }
              return spent;
            }"""
        )
        chromium.close()
    yield (
        f"Map of {points:,} points ({report.stat().st_size / 1e6:.1f} MB of report): first paint "
        f"{first / 1000:.2f} s, map drawn after {drawn:.2f} s, a movement "
        f"{statistics.median(moved):.0f} ms (median), {sorted(moved)[-2]:.0f} ms at most but one; "
        "software rendering."
    )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=110_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, help="where the curation is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        output, other = (curated(folder, given.records, kind) for kind in ("flat", "auto"))
        print("\n".join(header()), "\n", flush=True)
        for lines in (
            api(output, other, given.seconds),
            downloads(output, given.seconds),
            browser(output),
        ):
            for line in lines:
                print(line, flush=True)


if __name__ == "__main__":
    main()
