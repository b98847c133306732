"""Coverage-guided fuzzing, by atheris, of the parsers that are our own.

``PYTHONPATH=tests python -m fuzz.guided TARGET [-max_total_time=60]``, with whatever options of
libFuzzer. Without a target it says which there are. A target lets out what its parser may raise;
all else is a crash, and libFuzzer writes the input to a file.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["shardwright"]):
    import numpy as np

    from shardwright import plugins
    from shardwright.errors import DataError, UserError
    from shardwright.metadata.credentials import without_credentials
    from shardwright.metadata.filelist import read_file_list
    from shardwright.metadata.manifest import MANIFEST, read_manifest
    from shardwright.pipelines.recipe import load_recipe
    from shardwright.pipelines.sections import Source
    from shardwright.pipelines.sources import open_source
    from shardwright.pipelines.sources.names import Globs, shown
    from shardwright.quality.code_statistics import GROUPS as STATISTICS
    from shardwright.quality.exif import read_exif
    from shardwright.quality.heterogeneity.jpeg import read_jpeg
    from shardwright.quality.licences import GROUPS as LICENCES
    from shardwright.quality.normalise import STEPS, normalised
    from shardwright.quality.secrets import find_personal_data, find_secrets
    from shardwright.quality.shingles import shingle_hashes
    from shardwright.quality.text import check_text
    from shardwright.shards.mds_reader import MdsReader
    from shardwright.shards.tar_reader import TarReader

import contextlib
import functools

from shards.shard_files import write_shards

_FOLDER = Path(tempfile.mkdtemp(prefix="guided-"))


def _file(name: str, data: bytes) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


def recipe(data: bytes) -> None:
    """A recipe and what ``--set`` changes of it."""
    text, _, override = data.partition(b"\xff")
    overrides = [override.decode("utf-8", "replace")] if override else []
    load_recipe(_file("recipe.yaml", text), overrides, str(_FOLDER)).model_dump_json()


def globs(data: bytes) -> None:
    """Patterns, and a path to hold against them."""
    pattern, _, path = data.decode("utf-8", "surrogateescape").partition("\n")
    wanted = Globs((pattern,), (pattern[::-1],))
    wanted.wants(shown(path))
    wanted.skips_folder(shown(path))


def _source(kind: str, name: str, data: bytes) -> None:
    path = _file(name, data)
    opened = open_source(Source(kind=kind, uri=str(path), keep=("k",)), 10_000, "code")
    for _ in opened.read(list(opened.units(None))):
        pass


def tar(data: bytes) -> None:
    """An archive as a source reads it."""
    _source("archive", "x.tar", data)


def zip_archive(data: bytes) -> None:
    """A zip archive as a source reads it."""
    _source("archive", "x.zip", data)


def jsonl(data: bytes) -> None:
    """JSON Lines as a source reads them."""
    _source("jsonl", "x.jsonl", data)


def croissant(data: bytes) -> None:
    """A Croissant document, and what it says that should be read."""
    _source("croissant", "croissant.json", data)


class _Image:
    """What ``read_exif`` asks of an image."""

    def __init__(self, data: bytes) -> None:
        self.format = "TIFF" if data[:1] == b"T" else "JPEG"
        self.info = {"exif": data[1:]} if self.format == "JPEG" else {}


def exif(data: bytes) -> None:
    """An EXIF block, or a TIFF."""
    every = {0x010F, 0x0110, 0x0131, 0x829A, 0x8827, 0x927C, 0xA001, 0xA434}
    read_exif(_Image(data), data[1:], every)  # type: ignore[arg-type]


def jpeg(data: bytes) -> None:
    """The header of a JPEG: its tables."""
    read_jpeg(b"\xff\xd8" + data)


def code(data: bytes) -> None:
    """What measures a text without a library's parser."""
    text = check_text(data, 100_000)
    if not isinstance(text, str):
        return
    for measure in (*STATISTICS.values(), *LICENCES.values()):
        measure(data, "Python")
    find_personal_data(text)
    find_secrets(text)
    shingle_hashes(normalised(data, STEPS, None), 3)
    without_credentials(text)


def mds(data: bytes) -> None:
    """A shard in MDS, all of its samples."""
    reader = MdsReader(_file("x.mds", data))
    reader.read(np.arange(min(len(reader), 100)))


def tar_shard(data: bytes) -> None:
    """A shard in tar, all of its samples."""
    reader = TarReader(_file("x.tar", data))
    reader.read(np.arange(min(len(reader), 100)))


def manifests(data: bytes) -> None:
    """The manifests of a table and of a folder of shards."""
    _file(MANIFEST, data)
    for read in (read_manifest, read_file_list):
        try:
            found = read(_FOLDER)
        except DataError:
            continue
        list(found.parts()) if hasattr(found, "parts") else found


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(recipe, globs, tar, zip_archive, jsonl, croissant, exif, jpeg, code, mds, tar_shard),
        manifests,
    )
}


def seeds(target: str, folder: Path) -> None:
    """Writes what a target begins with into a folder."""
    from fuzz import seeds as known  # not instrumented, and not loaded before it is needed

    datasets = [known.json.dumps(document).encode() for document, _ in known.datasets()]
    archives = dict(known.archives())
    jpegs = [data for data in known.pictures() if data.startswith(b"\xff\xd8")]
    files: dict[str, list[bytes]] = {
        "recipe": list(known.recipes()),
        "globs": [b"**/*.py\nsrc/a.py", b"a[!b-d]?/**\nax/y"],
        "tar": [data for name, data in archives.items() if ".tar" in name],
        "zip_archive": [data for name, data in archives.items() if name.endswith(".zip")],
        "jsonl": [b"\n".join(known.json.dumps(row).encode() for row in known.rows())],
        "croissant": datasets,
        "exif": [b"T" + data for data in known.pictures() if data[:2] in (b"II", b"MM")],
        "jpeg": [data[2:] for data in jpegs],
        "code": [data for _, data in known.sources()[::5]],
    }
    with tempfile.TemporaryDirectory() as made:
        root = write_shards(Path(made), [3]) / "shards"
        files["mds"] = [next(root.rglob("*.mds")).read_bytes()]
        files["manifests"] = [(root / MANIFEST).read_bytes()]
    files["tar_shard"] = [known.tar_of({"a.txt": b"x", "a.json": b'{"record_id": "a"}'})]
    folder.mkdir(parents=True, exist_ok=True)
    for place, data in enumerate(files.get(target, ())):
        (folder / f"seed-{place:03d}").write_bytes(data)


def main() -> None:
    """The command line."""
    if sys.argv[1:] == ["--list"]:
        print(*TARGETS)
        return
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]
    root = Path(__file__).parents[2] / ".cache" / "fuzz" / "guided" / target.__name__
    seeds(target.__name__, root)

    def once(data: bytes) -> None:
        with contextlib.suppress(UserError, DataError):
            target(data)

    from fuzz.campaign import without_network

    without_network()
    plugins.entry_points = functools.cache(plugins.entry_points)  # nobody installs anything now
    atheris.Setup([*sys.argv, str(root), f"-artifact_prefix={root}-"], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
