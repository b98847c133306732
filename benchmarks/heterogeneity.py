"""Speed of what the stage ``heterogeneity`` does most: a picture's statistics, and a test's deals.

Statistics: ``device_statistics.measure`` on 512 x 512 pixels out of the middle of real photographs
(``make .cache/photographs``), on one thread, in processor time: the median over photographs of the
least of a few turns. What its three larger parts take stands beside.

Deals of the MMD test, against hyppo and DataEval on the same rows: normal, of 384 dimensions, two
samples of the same size that differ a little. Ours runs at 1,000 and 10,000 rows a sample; the
others, which hold or permute whole kernel matrices, at 1,000 only. Each competitor runs in a
process of its own, on two threads, and says its seconds (kernel matrix included), its p and its
peak memory. All use the same bandwidth; each deals by its own generator, so p must agree within the
binomial error of the deals. ``--loop`` also checks our p against a plain loop over our own deals,
where it must be the same.

    python benchmarks/heterogeneity.py [--only statistics|tests] [--rows N]... [--deals N] [--loop]

The others stand in ``benchmarks/peers.txt``; what is not installed is said.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".cache" / "peers" / "bin" / "python"
PHOTOGRAPHS = ROOT / ".cache" / "photographs" / "photographs"
Rows = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Result = dict[str, Any]

SIDE = 512
TURNS = 5
MOST_MS = 5.0
"""Goal: of a picture's statistics."""
DIMENSIONS = 384
THREADS = 2
SHIFT = 0.012
"""Small enough that p is neither 0 nor 1 at 1,000 rows."""
GOAL = 5000.0
DEALS = {"ours": 5000, "ours, five bandwidths": 5000, "hyppo": 40, "dataeval": 100}
"""At 1,000 rows: as many as take some seconds."""
LARGE = 1000
"""Deals of ours at more rows."""


# --- statistics ----------------------------------------------------------------------------------


def photographs(folder: Path, count: int) -> list[Pixels]:
    """The middle 512 x 512 pixels of photographs that are larger, spread over the folder."""
    from PIL import Image

    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    found: list[Pixels] = []
    for path in paths[:: max(1, len(paths) // count)]:
        with Image.open(path) as image:
            if min(image.size) < SIDE:
                continue
            left, top = ((size - SIDE) // 2 for size in image.size)
            box = (left, top, left + SIDE, top + SIDE)
            found.append(np.array(image.convert("RGB").crop(box)))
    if not found:
        raise SystemExit(f"{folder}: no photographs; run python tests/photographs.py .cache")
    return found


def least(run: Callable[[], object]) -> float:
    """Milliseconds of the processor in the fastest of a few turns."""
    seconds = []
    for _ in range(TURNS):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return 1e3 * min(seconds)


def report_statistics(folder: Path, count: int) -> None:
    """Measures ``measure`` and its parts."""
    from PIL import Image

    from shardwright.quality.heterogeneity import pixel_blocks, pixel_edges, pixel_noise
    from shardwright.quality.heterogeneity.device_statistics import measure

    taken: dict[str, list[float]] = {}
    images = photographs(folder, count)
    for pixels in images:
        luma = np.asarray(Image.fromarray(pixels).convert("L"))
        flat = measure(pixels)["noise_flat"]
        runs: dict[str, Callable[[], object]] = {
            "all": lambda pixels=pixels: measure(pixels),
            "noise and demosaic": lambda p=pixels, y=luma: pixel_noise.measure(p, y),
            "sharpness": lambda y=luma, flat=flat: pixel_edges.measure(y, flat),
            "compression": lambda y=luma: pixel_blocks.measure(y),
        }
        for name, run in runs.items():
            taken.setdefault(name, []).append(least(run))
    print(f"\n## Statistics of a picture, {len(images)} photographs, {SIDE} x {SIDE}, one thread\n")
    print("| | ms | of the slowest | images/s |\n|---|---:|---:|---:|")
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} | {max(values):.2f} | {1e3 / middle:,.0f} |")
    verdict = "hit" if statistics.median(taken["all"]) <= MOST_MS else "**missed**"
    print(f"\n- goal of {MOST_MS:g} ms: {verdict}", flush=True)


# --- deals of the test ---------------------------------------------------------------------------


def samples(rows: int) -> tuple[Rows, Rows]:
    """Two samples float32 [rows, 384]."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, rows, DIMENSIONS), np.float32)
    return x, y + np.float32(SHIFT)


def ours(x: Rows, y: Rows, bandwidth: float, deals: int) -> float:
    """The p of the library, whose bandwidth is the same median."""
    from shardwright.quality.heterogeneity.mmd import mmd

    return mmd(x, y, permutations=deals).p_value


def ours_multiple(x: Rows, y: Rows, bandwidth: float, deals: int) -> float:
    """The p of the library with five bandwidths around the median."""
    from shardwright.quality.heterogeneity.mmd import MULTIPLE, mmd

    return mmd(x, y, factors=MULTIPLE, permutations=deals).p_value


def hyppo(x: Rows, y: Rows, bandwidth: float, deals: int) -> float:
    """The p of ``hyppo.ksample.MMD`` by permutation, on two workers."""
    from hyppo.ksample import MMD

    test = MMD(compute_kernel="rbf", gamma=1 / bandwidth)
    found = test.test(
        x.astype(np.float64), y.astype(np.float64), reps=deals, workers=THREADS, auto=False
    )
    return float(found[1])


def dataeval(x: Rows, y: Rows, bandwidth: float, deals: int) -> float:
    """The p of ``dataeval.shift.DriftMMD``; its kernel is exp(-|x - y|^2 / (2 sigma^2))."""
    from dataeval.shift import DriftMMD

    sigma = np.array([(bandwidth / 2) ** 0.5], np.float32)
    detector = DriftMMD(sigma=sigma, n_permutations=deals, device="cpu")
    return float(detector.fit(x).predict(y).details["p_val"])


COMPETITORS = {
    "ours": ours,
    "ours, five bandwidths": ours_multiple,
    "hyppo": hyppo,
    "dataeval": dataeval,
}


def run_one(name: str, rows: int, deals: int) -> Result:
    """Runs a competitor in this process."""
    from shardwright.quality.heterogeneity.mmd import median_bandwidth

    x, y = samples(rows)
    bandwidth = median_bandwidth(x, y)
    try:
        COMPETITORS[name](x[:100], y[:100], bandwidth, 20)  # imports, compiles
        began = time.perf_counter()
        p = COMPETITORS[name](x, y, bandwidth, deals)
        seconds = time.perf_counter() - began
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    except Exception as error:  # one that stops must not cost the others their figures
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:120]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"p": p, "seconds": seconds, "rate": deals / seconds, "deals": deals, "peak": peak}


def on_threads(count: int) -> dict[str, str]:
    """The environment for a process on so many threads."""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return os.environ | dict.fromkeys(limits, str(count))


def in_a_process(name: str, rows: int, deals: int) -> Result:
    """Runs a competitor in a process of its own, on two threads."""
    python = sys.executable if name.startswith("ours") or not PEERS.exists() else str(PEERS)
    command = [python, __file__, "--one", name, "--rows", str(rows), "--deals", str(deals)]
    done = subprocess.run(command, env=on_threads(THREADS), capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:120]}
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def agree(one: Result, other: Result) -> str:
    """Whether two p agree within three standard errors of their deals."""
    p = min(max((one["p"] + other["p"]) / 2, 1 / other["deals"]), 1 - 1 / other["deals"])
    error = (p * (1 - p) * (1 / one["deals"] + 1 / other["deals"])) ** 0.5
    bound = 3 * error + 1 / other["deals"]
    return "agrees" if abs(one["p"] - other["p"]) <= bound else "**differs**"


def line(name: str, found: Result, base: Result) -> str:
    """A row of the table."""
    if "missing" in found:
        return f"| {name} | not installed: {found['missing']} | | | | | |"
    if "failed" in found:
        return f"| {name} | failed: {found['failed']} | | | | | |"
    ratio, agreement = "", ""
    if "rate" in base:
        ratio = f"{base['rate'] / found['rate']:,.1f}"
        alike = found is base or "bandwidths" in name
        agreement = "" if alike else agree(base, found)
    return (
        f"| {name} | {found['deals']:,} | {found['seconds']:.2f} | {found['rate']:,.0f} | {ratio} "
        f"| {found['p']:.4f} {agreement} | {found['peak']:.2f} GB |"
    )


def report(rows: int, deals: int | None) -> None:
    """Measures all competitors at a size."""
    names = list(COMPETITORS) if rows <= 1000 else ["ours", "ours, five bandwidths"]
    print(f"\n## {rows:,} rows a sample, {DIMENSIONS} dimensions, {THREADS} threads\n")
    print("| | deals | seconds | deals/s | ours / it | p | peak memory |")
    print("|---|---|---|---|---|---|---|")
    base: Result = {}
    for name in names:
        wanted = deals or (DEALS[name] if rows <= 1000 else LARGE)
        found = in_a_process(name, rows, wanted)
        base = base or found
        print(line(name, found, base), flush=True)
    if rows == 1000 and "rate" in base:
        verdict = "hit" if base["rate"] >= GOAL else "**missed**"
        print(f"\n- goal of {GOAL:,.0f} deals a second, kernel matrix included: {verdict}")


def check_by_a_loop(rows: int, deals: int) -> None:
    """Our p against a plain float64 loop over the same deals."""
    from shardwright.quality.heterogeneity.mmd import median_bandwidth, mmd
    from shardwright.quality.heterogeneity.permutation import deals as dealt
    from shardwright.quality.heterogeneity.permutation import p_value, pool

    x, y = samples(rows)
    both = pool(x, y)
    squares = (both.rows**2).sum(axis=1)
    squared = np.maximum(squares[:, None] + squares - 2 * both.rows @ both.rows.T, 0)
    kernel = np.exp(-squared / median_bandwidth(x, y))
    np.fill_diagonal(kernel, 0)

    def estimate(first: npt.NDArray[np.bool_]) -> float:
        n, m = int(first.sum()), int((~first).sum())
        inner = kernel[np.ix_(first, first)].sum() / (n * (n - 1))
        outer = kernel[np.ix_(~first, ~first)].sum() / (m * (m - 1))
        return float(inner + outer - 2 * kernel[np.ix_(first, ~first)].mean())

    began = time.perf_counter()
    null = [
        estimate(labels) for block in dealt(both.first, both.cells, deals, 0) for labels in block
    ]
    seconds = time.perf_counter() - began
    found = mmd(x, y, permutations=deals)
    wanted = p_value(estimate(both.first), np.array(null))
    verdict = "the same" if found.p_value == wanted else "**not the same**"
    print(
        f"\n- {deals} deals of {rows:,} rows by a loop, {deals / seconds:,.0f} a second: "
        f"p {wanted} and ours {found.p_value}, {verdict}"
    )


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=["statistics", "tests"], help="one of the two")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--images", type=int, default=40, help="photographs, about")
    parser.add_argument("--rows", type=int, action="append", help="1,000 and 10,000 by default")
    parser.add_argument("--deals", type=int, default=None)
    parser.add_argument("--loop", action="store_true", help="check p against a loop too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.rows or [1000, 10_000]
    if arguments.one == "statistics":
        report_statistics(arguments.photographs, arguments.images)
        return
    if arguments.one:
        print(json.dumps(run_one(arguments.one, sizes[0], arguments.deals)))
        return
    import rounds  # not above: its torch would count as memory of every competitor

    print("\n".join(f"- {text}" for text in rounds.header()))
    print(f"- load {os.getloadavg()[0]:.1f} at the start, over {os.cpu_count()} cores", flush=True)
    if arguments.only != "tests":
        command = [sys.executable, __file__, "--one", "statistics"]
        command += ["--photographs", str(arguments.photographs), "--images", str(arguments.images)]
        subprocess.run(command, env=on_threads(1), check=True)
    if arguments.only == "statistics":
        return
    for rows in sizes:
        report(rows, arguments.deals)
    if arguments.loop:
        check_by_a_loop(min(sizes), 200)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
