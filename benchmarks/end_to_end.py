"""The code curation against a plain script, and its memory as the input grows.

Both sides run in one go on the same files, each as its own process, in turn: the plain script
reads, hashes and writes the ``records`` Parquet (and with embedding encodes the texts and writes
the vectors) in one process; the curation does all that its recipe says, down to shards, metadata
and report. Prints seconds, ratios, and the peak memory of driver and workers together.

    python benchmarks/end_to_end.py [--files 36000] [--repeat 3] [--input FOLDER]
    python benchmarks/end_to_end.py --files 1500 --model sentence-transformers:FOLDER
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import psutil

GOALS = {"without embedding": 2.0, "with embedding": 1.3, "memory at 4x": 1.3}


def plain(folder: str, files: int, output: str, model: str | None) -> None:
    """The other side: one process, one loop, the same Parquet."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shardwright.embeddings.encoder import load_encoder
    from shardwright.metadata.schemas import CODE_RECORDS, embeddings, record_id

    paths = sorted(
        os.path.join(where, name)
        for where, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    )[:files]
    encoder = (
        load_encoder(model, modality="code", device="auto", dtype="float32", batch_size=256)
        if model
        else None
    )
    vectors = embeddings(encoder.dimension, "float32") if encoder else None
    with (
        pq.ParquetWriter(
            f"{output}/records.parquet", CODE_RECORDS, compression="zstd", compression_level=3
        ) as writer,
        pq.ParquetWriter(
            f"{output}/embeddings.parquet",
            vectors or CODE_RECORDS,
            compression="zstd",
            compression_level=3,
        ) as vector_writer,
    ):
        rows: list[dict[str, object]] = []
        size = 0

        def flush() -> None:
            batch = pa.RecordBatch.from_pylist(rows, CODE_RECORDS)
            writer.write_batch(batch)
            if encoder is not None and vectors is not None:
                matrix = encoder.encode([str(row["content"]) for row in rows])
                columns = [
                    batch.column("record_id"),
                    pa.FixedSizeListArray.from_arrays(
                        pa.array(np.ravel(matrix)), encoder.dimension
                    ),
                    pa.array([encoder.name] * len(rows)),
                    batch.column("content_sha256"),
                ]
                columns[1] = columns[1].cast(vectors.field("vector").type)
                vector_writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=vectors))

        for path in paths:
            with open(path, "rb") as file:
                data = file.read(1_000_001)
            try:
                text = data.decode()
            except UnicodeDecodeError:
                continue
            if not data or len(data) > 1_000_000 or b"\0" in data:
                continue
            name = os.path.relpath(path, folder)
            rows.append(
                {
                    "record_id": record_id("bench", name),
                    "source": "bench",
                    "path": name,
                    "modality": "code",
                    "bytes": len(data),
                    "content_sha256": hashlib.sha256(data).hexdigest(),
                    "content": text,
                    "attributes": [],
                    "language": "Python",
                    "lines": text.count("\n"),
                }
            )
            size += len(data)
            if len(rows) >= 2048 or size >= 32_000_000:
                flush()
                rows, size = [], 0
        if rows:
            flush()


def measured(command: list[str]) -> tuple[float, int]:
    """Runs a command; seconds of wall time and peak bytes (PSS) of it and its children together."""
    started = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            total = 0
            try:
                for member in [process, *process.children(recursive=True)]:
                    try:
                        total += member.memory_full_info().pss
                    except psutil.Error:
                        continue
            except psutil.Error:
                return
            peak = max(peak, total)

    thread = threading.Thread(target=watch)
    thread.start()
    _, errors = process.communicate()
    seconds = time.monotonic() - started
    done.set()
    thread.join()
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{errors.decode()}")
    return seconds, peak


def curation(folder: str, files: int, output: str, model: str | None) -> list[str]:
    """Command line of our side."""
    recipe = Path(__file__).parents[1] / "recipes" / "code.yaml"
    command = [str(Path(sys.executable).with_name("shardwright")), "curate", str(recipe)]
    command += ["--output", output, "--input", folder, "--limit", str(files)]
    command += ["--set", "source.include=['**/*.py']", "--set", "name=bench"]
    if model is None:
        command += ["--set", "embedding=null", "--set", "prune=null", "--set", "index=null"]
    else:
        command += ["--set", f"embedding.model={model}"]
    return command


def compare(folder: str, files: int, repeat: int, model: str | None) -> float:
    """Runs both sides in turn; prints each pair and returns the median ratio."""
    ratios = []
    for turn in range(repeat + 1):
        with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
            code = [sys.executable, __file__, "--plain", theirs, "--files", str(files)]
            other, other_peak = measured(
                [*code, "--input", folder, *(["--model", model] if model else [])]
            )
            own, own_peak = measured(curation(folder, files, ours, model))
        label = "warm-up" if turn == 0 else f"{own / other:5.2f}"
        print(
            f"  curation {own:6.1f} s {own_peak / 1e6:6.0f} MB   plain {other:6.1f} s "
            f"{other_peak / 1e6:6.0f} MB   ratio {label}",
            flush=True,
        )
        if turn:
            ratios.append(own / other)
    return statistics.median(ratios)


def main() -> None:
    """Runs the comparisons and the growth, and prints them against the goals."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", default=sysconfig.get_path("purelib"))
    parser.add_argument("--files", type=int, default=36_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="encoder, builtin:hashing unless named")
    known = parser.parse_args()
    if known.plain:
        plain(known.input, known.files, known.plain, known.model)
        return
    model = known.model or "builtin:hashing"
    results = {}
    if known.model is None:
        print(f"{known.files} files, without embedding:")
        results["without embedding"] = compare(known.input, known.files, known.repeat, None)
    print(f"{known.files} files, with {model.rpartition('/')[2]}:")
    results["with embedding"] = compare(known.input, known.files, known.repeat, model)
    if known.model is None:
        print("peak memory of driver and workers together:")
        peaks = []
        for files in (known.files // 4, known.files):
            with tempfile.TemporaryDirectory() as output:
                seconds, peak = measured(curation(known.input, files, output, model))
            peaks.append(peak)
            print(f"  {files:>7} files {peak / 1e6:7.0f} MB {seconds:7.1f} s", flush=True)
        results["memory at 4x"] = peaks[1] / peaks[0]
    for name, value in results.items():
        print(f"{name:<20} {value:5.2f}   goal {GOALS[name]:g}")


if __name__ == "__main__":
    main()
