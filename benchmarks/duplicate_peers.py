"""The competitors of ``benchmarks/duplicates.py``, each in a process of its own.

``python benchmarks/duplicate_peers.py NAME FOLDER WORK`` runs a function of this module on a folder
of numbered files and writes what it gives, JSON, to ``WORK/NAME.json``: ``pairs`` of numbers, or
the numbers that are ``removed``. A competitor that is not installed gives ``missing``, and one that
stops gives ``failed``, so that it does not cost the others their figures.
"""

import json
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.7
NGRAM = 5
RADIUS = 4
WORKERS = 2
SIZE = 256
HOT = 256
"""As the stage ``duplicates`` has them: places of a sketch, records of a key compared in full."""

Result = dict[str, Any]
Signed = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]


def numbered(folder: Path) -> list[Path]:
    """The files of a folder; their names are their places in the list."""
    return sorted(folder.iterdir())


def shardwright_pairs(folder: Path, _: Path) -> Result:
    """Near pairs of code by the library, as the stage finds them."""
    return _near_code(folder, HOT)


def shardwright_all_pairs(folder: Path, _: Path) -> Result:
    """The same, with all pairs of every key."""
    return _near_code(folder, 2**32)


def _near_code(folder: Path, most: int) -> Result:
    """Sketches, bands, candidates, true Jaccard."""
    from shardwright.quality.candidates import pairs_of
    from shardwright.quality.minhash import band_keys, banding
    from shardwright.quality.shingles import jaccards

    with multiprocessing.Pool(WORKERS) as pool:
        signed = pool.map(_sign, numbered(folder), chunksize=64)
    groups = _equal([values.tobytes() or None for values, _ in signed])
    sets = [signed[group[0]][0] for group in groups]
    bands = banding(THRESHOLD, SIZE)
    keys = band_keys(np.stack([signed[group[0]][1] for group in groups]), bands)
    a, b, _hot = pairs_of(keys.ravel(), np.repeat(np.arange(len(sets)), bands.bands), most)
    sizes = np.array([len(values) for values in sets])
    may = np.minimum(sizes[a], sizes[b]) >= THRESHOLD * np.maximum(sizes[a], sizes[b])
    a, b = a[may], b[may]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    near = jaccards(np.concatenate(sets), offsets, a, b) >= THRESHOLD
    return {"pairs": list(_spread(groups, a[near], b[near]))}


def _sign(path: Path) -> Signed:
    from shardwright.quality.minhash import sketch
    from shardwright.quality.shingles import shingle_hashes

    shingles = shingle_hashes(path.read_bytes(), NGRAM)
    return shingles, sketch(shingles, SIZE)


def _equal(signatures: Sequence[Hashable | None]) -> list[list[int]]:
    """Numbers of equal signatures; only the first of a group is compared with other groups."""
    groups = defaultdict(list)
    for number, signature in enumerate(signatures):
        if signature is not None:
            groups[signature].append(number)
    return list(groups.values())


def _spread(
    groups: list[list[int]], a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """All pairs within groups, and between those of groups that are near."""
    for group in groups:
        yield from combinations(group, 2)
    for left, right in zip(a.tolist(), b.tolist(), strict=True):
        for pair in product(groups[left], groups[right]):
            yield min(pair), max(pair)


def datatrove(_: Path, work: Path) -> Result:
    """MinHash with its defaults, from ``work/jsonl``: signatures, buckets, clusters."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader

    folder = {name: str(work / name) for name in ("jsonl", "signatures", "buckets", "remove")}
    buckets = MinhashConfig().num_buckets
    steps = {
        "signatures": (
            WORKERS,
            [JsonlReader(folder["jsonl"]), MinhashDedupSignature(folder["signatures"])],
        ),
        "buckets": (buckets, [MinhashDedupBuckets(folder["signatures"], folder["buckets"])]),
        "clusters": (1, [MinhashDedupCluster(folder["buckets"], folder["remove"])]),
    }
    seconds = {}
    for name, (tasks, pipeline) in steps.items():
        started = time.monotonic()
        logs = str(work / "logs" / name)
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=min(tasks, WORKERS), logging_dir=logs
        ).run()
        seconds[name] = time.monotonic() - started
    # each task had every second document
    removed = [
        WORKERS * place + task
        for task in range(WORKERS)
        for place in np.fromfile(work / "remove" / f"{task:06d}.remove", "<u4").tolist()
    ]
    return {"removed": removed, "seconds": seconds}


def datatrove_filter(_: Path, work: Path) -> Result:
    """Its fourth stage, after ``datatrove``: writes what stays."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    pipeline = [
        JsonlReader(str(work / "jsonl")),
        MinhashDedupFilter(str(work / "remove")),
        JsonlWriter(str(work / "kept")),
    ]
    logs = str(work / "logs" / "filter")
    LocalPipelineExecutor(pipeline, tasks=WORKERS, workers=WORKERS, logging_dir=logs).run()
    return {}


def rensa(folder: Path, _: Path) -> Result:
    """Its R-MinHash and LSH, handed our shingles; pairs by the similarity that it estimates."""
    from rensa import RMinHash, RMinHashLSH

    from shardwright.quality.shingles import shingle_hashes

    places, bands = 128, 16  # even odds at a similarity of 0.7
    sketches = []
    paths = numbered(folder)
    for start in range(0, len(paths), 256):
        sets = [shingle_hashes(path.read_bytes(), NGRAM) for path in paths[start : start + 256]]
        tokens = [values.view("V8").tolist() for values in sets]
        sketches += RMinHash.from_token_sets(tokens, places, 42)
    index = RMinHashLSH(THRESHOLD, places, bands)
    index.insert_many(sketches)
    pairs = [
        (number, other)
        for number, others in enumerate(index.query_all(sketches))
        for other in others
        if number < other and sketches[number].jaccard(sketches[other]) >= THRESHOLD
    ]
    return {"pairs": pairs}


def semhash(folder: Path, _: Path) -> Result:
    """Its defaults, with our built-in encoder."""
    from semhash import SemHash

    texts = [path.read_bytes().decode() for path in numbered(folder)]
    records = [{"number": str(number), "text": text} for number, text in enumerate(texts)]
    index = SemHash.from_records(records, columns=["text"], model=_Hashing())
    filtered = index.self_deduplicate().filtered
    return {"removed": [int(duplicate.record["number"]) for duplicate in filtered]}


class _Hashing:
    """What semhash takes for an encoder, around ``builtin:hashing``."""

    def __init__(self) -> None:
        from shardwright.embeddings.encoder import load_encoder

        self._encoder = load_encoder(
            "builtin:hashing", modality="code", device="cpu", dtype="float32", batch_size=256
        )

    def encode(self, inputs: Sequence[str], **_: Any) -> npt.NDArray[Any]:
        """Float32 [inputs, dimension]."""
        return np.asarray(self._encoder.encode(list(inputs)))


def shardwright_images(folder: Path, _: Path) -> Result:
    """Pairs of pictures within the radius by the library, and the hashes."""
    from shardwright.quality.candidates import hamming, hamming_keys, pairs_of

    with multiprocessing.Pool(WORKERS) as pool:
        hashes = pool.map(_hash, numbered(folder), chunksize=32)
    groups = _equal(hashes)
    distinct = np.array([hashes[group[0]] for group in groups], np.uint64)
    keys = hamming_keys(distinct, RADIUS)
    a, b, _hot = pairs_of(keys.ravel(), np.repeat(np.arange(len(keys)), keys.shape[1]), HOT)
    near = hamming(distinct[a], distinct[b]) <= RADIUS
    return {"pairs": list(_spread(groups, a[near], b[near])), "hashes": hashes}


def _hash(path: Path) -> int | None:
    from shardwright.quality.perceptual import perceptual_hash

    return perceptual_hash(path.read_bytes())


def imagededup(folder: Path, _: Path) -> Result:
    """Its PHash at the same radius."""
    from imagededup.methods import PHash

    found = PHash(verbose=False).find_duplicates(
        image_dir=folder,
        max_distance_threshold=RADIUS,
        num_enc_workers=WORKERS,
        num_dist_workers=WORKERS,
    )
    number = {path.name: place for place, path in enumerate(numbered(folder))}
    pairs = {(number[a], number[b]) for a, others in found.items() for b in others}
    return {"pairs": sorted(pair for pair in pairs if pair[0] < pair[1]), "hashed": len(found)}


def cleanvision(folder: Path, _: Path) -> Result:
    """Its exact and near duplicates."""
    lab = _imagelab(folder)
    kinds = ("exact_duplicates", "near_duplicates")
    lab.find_issues({kind: {} for kind in kinds}, n_jobs=WORKERS, verbose=False)
    number = {str(path): place for place, path in enumerate(numbered(folder))}
    sets = [
        sorted(number[path] for path in group) for kind in kinds for group in lab.info[kind]["sets"]
    ]
    return {"pairs": sorted({pair for group in sets for pair in combinations(group, 2)})}


def cleanvision_checks(folder: Path, _: Path) -> Result:
    """Its checks of single pictures: how many pictures came through."""
    lab = _imagelab(folder)
    _check(lab)
    return {"checked": len(lab.issues)}


def _imagelab(folder: Path) -> Any:
    from cleanvision import Imagelab

    return Imagelab(filepaths=[str(path) for path in numbered(folder)], verbose=False)


def _check(lab: Any) -> None:
    from cleanvision.utils.constants import IMAGE_PROPERTY_ISSUE_TYPES_LIST

    lab.find_issues({name: {} for name in IMAGE_PROPERTY_ISSUE_TYPES_LIST}, n_jobs=1, verbose=False)


def rates(folder: Path, _: Path) -> Result:
    """Pictures per second of processor time: decoded, measured, checked by cleanvision.

    One thread; medians of three turns, each through all pictures.
    """
    import io

    from PIL import Image

    from shardwright.quality.image_statistics import FILTERS, measure_image

    names = [item.name for item in FILTERS]
    contents = [path.read_bytes() for path in numbered(folder)]

    def decode() -> None:
        for data in contents:
            Image.open(io.BytesIO(data)).convert("RGB")

    def measure() -> None:
        for data in contents:
            measure_image(names, data)

    runs: dict[str, Callable[[], None]] = {"decode": decode, "measure": measure}
    try:
        _imagelab(folder)
        runs["cleanvision"] = lambda: _check(_imagelab(folder))
    except ModuleNotFoundError:
        pass
    seconds = defaultdict(list)
    for _turn in range(3):
        for name, run in runs.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    return {name: len(contents) / median(values) for name, values in seconds.items()}


RUNS: dict[str, Callable[[Path, Path], Result]] = {
    run.__name__: run
    for run in (
        shardwright_pairs,
        shardwright_all_pairs,
        datatrove,
        datatrove_filter,
        rensa,
        semhash,
        shardwright_images,
        imagededup,
        cleanvision,
        cleanvision_checks,
        rates,
    )
}


def main() -> None:
    """Runs the named competitor."""
    name, folder, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    try:
        result = RUNS[name](folder, work)
    except ModuleNotFoundError as error:
        result = {"missing": error.name}
    except Exception as error:
        result = {"failed": f"{type(error).__name__}: {error}"}
    (work / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
