"""The loaders that ``loader.py`` compares; each run is a process of its own.

    python benchmarks/loader_readers.py TASK READER KIND FOLDER WHERE WORKERS VALUE

prints a line of JSON. Every loader shuffles, gives batches of equal size through torch's or its own
DataLoader, and keeps its workers from epoch to epoch.
"""

import io
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from loader_data import PAYLOAD
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

BATCH = 64
IN_MEMORY = "torch's loader, samples in memory"
Sample = dict[str, Any]


def decoded(sample: Sample) -> Sample:
    """The picture of a sample as pixels ``(h, w, 3)``, and whose they are."""
    with Image.open(io.BytesIO(sample["image"])) as picture:
        pixels = np.array(picture.convert("RGB"))
    return {"record_id": sample["record_id"], "pixels": torch.from_numpy(pixels)}


def plain(sample: Sample) -> Sample:
    """The sample as it is."""
    return sample


def loader(dataset: Any, workers: int, **options: Any) -> DataLoader[Any]:
    """Torch's loader; without a batch size of its own it would not collate."""
    return DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=workers,
        persistent_workers=workers > 0,
        **options,
    )


def shardwright(folder: Path, where: str, transform: Any, workers: int, window: int = 8) -> Any:
    """Ours. In place, all shards are hashed before the first epoch, once for all workers."""
    from shardwright import dataset

    remote = {"cache": tempfile.mkdtemp(dir=folder)} if where else {}
    opened = dataset(
        f"{where}/mds" if where else folder / "mds",
        batch_size=BATCH,
        transform=transform,
        window=window,
        **remote,
    )
    if not where:
        opened.check()
    return loader(opened, workers)


def streaming(folder: Path, where: str, transform: Any, workers: int) -> Any:
    """mosaicml-streaming on the same files."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()

    class Transformed(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return transform(super().__getitem__(at))

    local = str(folder / "mds" / "shards" / "train")
    places = {"local": local}
    if where:
        os.environ["S3_ENDPOINT_URL"] = where
        places = {"remote": "s3://mds/shards/train", "local": tempfile.mkdtemp(dir=folder)}
    dataset = Transformed(**places, shuffle=True, batch_size=BATCH)
    for stream in dataset.streams:
        # Forked workers would share the connection that fetched the index, and mix up its answers.
        stream._downloader.clean_up()
    return loader(dataset, workers)


def litdata(folder: Path, where: str, transform: Any, workers: int) -> Any:
    """Litdata on its own format."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    options: dict[str, Any] = {}
    place = str(folder / "litdata")
    if where:
        place = "s3://litdata"
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        options["storage_options"] = {"endpoint_url": where, "region_name": "us-east-1"} | keys
        options["cache_dir"] = tempfile.mkdtemp(dir=folder)
        # Its client refuses addresses without TLS, and has no option for it.
        cast(dict[str, Any], downloader._OBSTORE_CLIENT_OPTIONS)["allow_http"] = True
    if transform is not plain:
        options["transform"] = transform
    return StreamingDataLoader(
        StreamingDataset(place, shuffle=True, **options),
        batch_size=BATCH,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _merged(item: Sample, payload: str, transform: Any) -> Sample:
    data = next(item[name] for name in ("txt", "jpg") if name in item)
    return transform(
        json.loads(item["json"]) | {payload: data.decode() if payload == "content" else data}
    )


def webdataset(folder: Path, where: str, transform: Any, workers: int) -> Any:
    """Webdataset, with its shuffle of 1,000 samples."""
    from webdataset import WebDataset

    names = [path.name for path in sorted((folder / "tar").iterdir())]
    base = f"{where}/tar" if where else str(folder / "tar")
    payload = PAYLOAD[folder.name]
    files = WebDataset([f"{base}/{name}" for name in names], shardshuffle=len(names))
    samples = files.shuffle(1_000).map(partial(_merged, payload=payload, transform=transform))
    return loader(samples, workers)


def datasets(folder: Path, where: str, transform: Any, workers: int) -> Any:
    """Parquet by Hugging Face's datasets, streamed, with its shuffle of 1,000 samples.

    By default the shuffle takes them from ten files at a time, which leaves too few files for two
    workers and takes longer.
    """
    import datasets as library

    library.disable_progress_bars()
    names = [path.name for path in sorted((folder / "parquet").iterdir())]
    base = f"{where}/parquet" if where else str(folder / "parquet")
    samples = library.load_dataset(
        "parquet",
        data_files={"train": [f"{base}/{name}" for name in names]},
        split="train",
        streaming=True,
    ).shuffle(seed=0, buffer_size=1_000, max_buffer_input_shards=1)
    if transform is not plain:
        samples = samples.map(transform, remove_columns=["path", "format", "image"])
    return loader(samples, workers)


class RowGroups(IterableDataset[Any]):
    """Parquet by pyarrow: row groups in random order, the rows of each shuffled."""

    def __init__(self, folder: Path, transform: Any) -> None:
        self._files, self._transform = sorted(folder.iterdir()), transform
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        random = np.random.default_rng(self._epoch)
        self._epoch += 1
        for number in random.permutation(len(self._files))[first::step]:
            file = pq.ParquetFile(self._files[number])
            for group in random.permutation(file.num_row_groups):
                table = file.read_row_group(group)
                rows = table.take(random.permutation(table.num_rows)).to_pylist()
                yield from map(self._transform, rows)


def pyarrow(folder: Path, where: str, transform: Any, workers: int) -> Any:
    """Parquet by pyarrow alone."""
    if where:
        raise SystemExit("reads no store over HTTP by itself")
    return loader(RowGroups(folder / "parquet", transform), workers)


class InMemory(Dataset[Any]):
    """Samples that are in memory already: what a loader takes with nothing to read."""

    def __init__(self, folder: Path, transform: Any) -> None:
        import pyarrow.parquet as pq

        columns = ["record_id", PAYLOAD[folder.name]]
        self._samples = pq.read_table(folder / "parquet", columns=columns).to_pylist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._transform(self._samples[index])


def memory(folder: Path, where: str, transform: Any, workers: int) -> Any:
    """No reader at all: the same samples out of memory through torch's loader."""
    return loader(InMemory(folder, transform), workers, shuffle=True)


READERS: dict[str, Callable[..., Any]] = {
    "shardwright": shardwright,
    "shardwright, window=2": partial(shardwright, window=2),
    "mosaicml-streaming": streaming,
    "litdata": litdata,
    "webdataset": webdataset,
    "Parquet, datasets": datasets,
    "Parquet, pyarrow": pyarrow,
}
IMPORTED = {
    "shardwright": ("shardwright.shards.dataset", "fsspec.implementations.http"),
    "mosaicml-streaming": ("streaming", "boto3.s3.transfer"),
    "litdata": ("litdata", "boto3.s3.transfer", "obstore.store"),
    "webdataset": ("webdataset",),
    "Parquet, datasets": ("datasets", "pyarrow.dataset", "fsspec.implementations.http"),
}
"""What a reader imports, where that shall not be timed."""


def rates(reader: str, kind: str, folder: Path, workers: int, epochs: int) -> dict[str, Any]:
    """Samples a second of each epoch but the first; and how many each gave."""
    transform = decoded if kind == "jpeg" else plain
    if reader == "decoding alone":
        return _decoding(folder, max(workers, 1), epochs)
    given = (READERS | {IN_MEMORY: memory})[reader](folder, "", transform, workers)
    found, counts = [], []
    for _ in range(epochs + 1):
        started, count = time.perf_counter(), 0
        for batch in given:
            count += len(batch["record_id"])
        found.append(count / (time.perf_counter() - started))
        counts.append(count)
    return {"rates": found[1:], "samples": counts}


def _decode_all(pictures: list[bytes], barrier: Any) -> None:
    barrier.wait()
    for picture in pictures:
        decoded({"image": picture, "record_id": ""})
    barrier.wait()


def _decoding(folder: Path, processes: int, epochs: int) -> dict[str, Any]:
    """Processes that decode what is in their memory, and nothing else."""
    import pyarrow.parquet as pq

    pictures = pq.read_table(folder / "parquet", columns=["image"])["image"].to_pylist()
    found = []
    for _ in range(epochs + 1):
        barrier = multiprocessing.Barrier(processes + 1)
        parts = [pictures[number::processes] for number in range(processes)]
        children = [multiprocessing.Process(target=_decode_all, args=(p, barrier)) for p in parts]
        for child in children:
            child.start()
        barrier.wait()
        started = time.perf_counter()
        barrier.wait()
        found.append(len(pictures) / (time.perf_counter() - started))
        for child in children:
            child.join()
    return {"rates": found[1:], "samples": [len(pictures)] * (epochs + 1)}


def waits(reader: str, folder: Path, where: str, workers: int, speed: float) -> dict[str, Any]:
    """How long a consumer of ``speed`` bytes a second waits for batches of one epoch.

    The clock starts before the loader is made, with its library imported; the first batch is a wait
    like any other.
    """
    payload = PAYLOAD[folder.name]
    for module in IMPORTED[reader.partition(", window")[0]]:
        import_module(module)
    started = time.perf_counter()
    given = iter(READERS[reader](folder, where, plain, workers))
    waited, first, count = 0.0, 0.0, 0
    asked = started
    for batch in given:
        waited += time.perf_counter() - asked
        first = first or waited
        count += len(batch[payload])
        time.sleep(sum(map(len, batch[payload])) / speed)
        asked = time.perf_counter()
    total = time.perf_counter() - started
    return {"share": waited / total, "first": first, "samples": [count]}


def resume(reader: str, kind: str, folder: Path, workers: int) -> dict[str, Any]:
    """Seconds from a checkpoint of the middle of an epoch to the first batch, in a new process."""
    transform = decoded if kind == "jpeg" else plain
    from shardwright import dataset

    if reader == "shardwright":
        first = dataset(folder / "mds", batch_size=BATCH, verify="size")
        cursor = first.cursor(first.steps.steps // 2 * BATCH)
        started = time.perf_counter()
        given = dataset(folder / "mds", batch_size=BATCH, transform=transform)
        given.resume(cursor)
        next(iter(loader(given, workers)))
        return {"seconds": time.perf_counter() - started}
    make = READERS[reader]
    from streaming import StreamingDataLoader, StreamingDataset

    if reader == "mosaicml-streaming":
        local = str(folder / "mds" / "shards" / "train")
        rows = len(StreamingDataset(local=local, batch_size=BATCH))
        started = time.perf_counter()
        opened = make(folder, "", transform, workers).dataset
        opened.load_state_dict(opened.state_dict(rows // 2 // BATCH * BATCH, True))
        next(iter(StreamingDataLoader(opened, batch_size=BATCH, num_workers=workers)))
        return {"seconds": time.perf_counter() - started}
    state = None
    running = make(folder, "", transform, workers)
    half = len(running) // 2
    for number, _ in enumerate(running, 1):
        if number == half:
            state = running.state_dict()
            break
    del running
    started = time.perf_counter()
    given = make(folder, "", transform, workers)
    given.load_state_dict(state)
    next(iter(given))
    return {"seconds": time.perf_counter() - started}


def order_memory(shards: int, samples: int) -> dict[str, Any]:
    """What the order of an epoch over so many samples takes, and a million places of it."""
    from shardwright.shards.sampling import Plan, Split, Steps, World

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    even = samples // shards
    split = Split((even,) * (shards - 1) + (samples - even * (shards - 1),), "0" * 64)
    order = split.order(1)
    plan = Plan(Steps(split.samples, 8, 1_024), World(3, 8, 1, 2))
    made = time.perf_counter() - started
    block = 16_384
    started = time.perf_counter()
    for first in range(0, 64 * block, block):
        order.at(plan.steps.places(plan.positions(first, first + block)))
    per_second = 64 * block / (time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"megabytes": (peak - before) * 1024 / 1e6, "seconds": made, "rate": per_second}


def main() -> None:
    """Runs one task."""
    task, reader, kind, folder, where, workers, value = sys.argv[1:]
    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    place = Path(folder)
    if task == "rates":
        found = rates(reader, kind, place, int(workers), int(value))
    elif task == "waits":
        found = waits(reader, place, where, int(workers), float(value))
    elif task == "resume":
        found = resume(reader, kind, place, int(workers))
    else:
        found = order_memory(int(reader), int(value))
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
