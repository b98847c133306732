"""What is mutated: real files of this machine's Python, real pictures, and small made-up tables."""

import bz2
import functools
import gzip
import hashlib
import io
import json
import lzma
import random
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.archives import tar_of, zip_of
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parents[2]
_MOST_BYTES = {"code": 6_000, "pictures": 16_000}  # small seeds, so that mutations hit what matters
# Packages that bring code of many languages, and pictures.
_PACKAGES = ("numpy", "pyarrow", "torch/include", "matplotlib", "skimage", "sklearn", "notebook")
_PACKAGES += ("flask", "mlcroissant", "triton", "scipy/special", "networkx", "bokeh", "werkzeug")
_SOURCES = (".py", ".pyi", ".c", ".h", ".cpp", ".js", ".css", ".html", ".json", ".rs", ".go", ".sh")
_SOURCES += (
    ".java",
    ".rb",
    ".php",
    ".ts",
    ".md",
    ".txt",
    ".toml",
    ".cu",
    ".pyx",
    ".sql",
    ".pl",
    ".m",
)
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".ico")
_EACH = 25


@functools.cache
def sources() -> tuple[tuple[str, bytes], ...]:
    """Real files of code with their names, some of each extension."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    library = Path(sysconfig.get_path("stdlib"))
    for path in _walk(library / "json", library / "asyncio", library / "idlelib", *_packages()):
        suffix = path.suffix.lower()
        of_kind = found.setdefault(suffix, [])
        if suffix in _SOURCES and len(of_kind) < _EACH and _fits(path, "code"):
            of_kind.append((path.name, path.read_bytes()))
    return tuple(item for suffix in sorted(found) for item in found[suffix])


@functools.cache
def pictures() -> tuple[bytes, ...]:
    """Real pictures as they are, and small ones in many formats and modes."""
    found: dict[str, list[bytes]] = {}
    cached = [ROOT / ".cache" / name for name in ("pictures", "photographs")]
    for path in _walk(*_packages(), *cached):
        of_kind = found.setdefault(path.suffix.lower(), [])
        if path.suffix.lower() in _PICTURES and len(of_kind) < 40 and _fits(path, "pictures"):
            of_kind.append(path.read_bytes())
    real = [data for suffix in _PICTURES for data in found.get(suffix, ())]
    return (*real, *_made_pictures())


def _made_pictures() -> Iterator[bytes]:
    base = Image.radial_gradient("L").resize((37, 23))
    colours = Image.merge("RGB", (base, base.rotate(90), base.rotate(180)))
    camera = Image.Exif()
    camera[271], camera[272], camera[305] = "ACME", "Mark II", "Darkroom 3"
    notes = PngInfo()
    notes.add_text("Raw profile type exif", "\nexif\n  40\n" + "49492a0008000000" * 5, zip=True)
    profile = _profile()
    ways: tuple[tuple[Image.Image, str, dict[str, Any]], ...] = (
        (colours, "JPEG", {"exif": camera, "icc_profile": profile}),
        (colours, "JPEG", {"progressive": True, "subsampling": 2, "quality": 40}),
        (colours.convert("CMYK"), "JPEG", {}),
        (base, "JPEG", {"restart_marker_blocks": 2}),
        (colours, "PNG", {"exif": camera, "icc_profile": profile, "pnginfo": notes}),
        (base.convert("1"), "PNG", {}),
        (colours.convert("P"), "PNG", {"transparency": 0}),
        (base.convert("I").convert("I;16"), "PNG", {}),
        (colours.convert("RGBA"), "PNG", {}),
        (colours.convert("P"), "PNG", {"save_all": True, "append_images": [base.convert("P")] * 2}),
        (colours.convert("P"), "GIF", {"save_all": True, "append_images": [base.convert("P")] * 2}),
        (colours, "GIF", {"interlace": 1, "comment": b"a" * 300}),
        (colours, "WEBP", {"lossless": True, "exif": camera, "icc_profile": profile}),
        (colours.convert("RGBA"), "WEBP", {"quality": 30}),
        (colours, "WEBP", {"save_all": True, "append_images": [colours.rotate(9)] * 2}),
        *(
            (colours, "TIFF", {"compression": way})
            for way in ("raw", "tiff_lzw", "jpeg", "packbits")
        ),
        *(
            (colours, "TIFF", {"compression": way})
            for way in ("tiff_deflate", "zstd", "tiff_adobe_deflate")
        ),
        (base.convert("1"), "TIFF", {"compression": "group4"}),
        (base.convert("F"), "TIFF", {"exif": camera}),
        (colours, "BMP", {}),
        (base.convert("1"), "BMP", {}),
        (colours.convert("P"), "BMP", {}),
        (colours, "ICO", {"sizes": [(16, 16), (32, 32)]}),
        (colours, "ICNS", {}),
        (colours, "JPEG2000", {}),
        (colours, "AVIF", {}),
        *((colours, kind, {}) for kind in ("TGA", "PCX", "PPM", "SGI", "DDS", "IM", "MPO")),
    )
    for image, kind, options in ways:
        if kind in Image.SAVE or (Image.init() and kind in Image.SAVE):
            out = io.BytesIO()
            image.save(out, kind, **options)
            yield out.getvalue()


def _profile() -> bytes:
    from PIL import ImageCms

    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data[:24] + bytes(12) + data[36:]  # without the time at which it was made


@functools.cache
def archives() -> tuple[tuple[str, bytes], ...]:
    """Archives of a few real files, in every form that is read."""
    few = [(name, data[:3000]) for name, data in sources()[::17]][:6]
    members = {f"src/{place}/{name}": data for place, (name, data) in enumerate(few)}
    members["empty.py"] = b""
    odd = {"ünï.py": b"a = 1\n", "n" * 200 + ".py": b"b = 2\n", **members}
    gnu, pax = tar_of(odd, tarfile.GNU_FORMAT), tar_of(odd, tarfile.PAX_FORMAT)
    return (
        ("a.zip", zip_of(members)),
        ("b.zip", zip_of(odd, zipfile.ZIP_STORED)),
        ("c.zip", zip_of(members, zipfile.ZIP_BZIP2)),
        ("a.tar", gnu),
        ("b.tar", pax),
        ("c.tar", tar_of(members, tarfile.USTAR_FORMAT)),
        ("a.tar.gz", gzip.compress(gnu, 1, mtime=0)),
        ("b.tar.bz2", bz2.compress(pax)),
        ("c.tar.xz", lzma.compress(pax)),
    )


@functools.cache
def rows() -> tuple[dict[str, Any], ...]:
    """Rows of a table of code."""
    return tuple(
        {
            "content": data[:1500].decode("utf-8", "replace"),
            "language": name.rpartition(".")[2],
            "path": f"src/{name}",
            "license": ["mit"],
            "stars": place,
        }
        for place, (name, data) in enumerate(sources()[::11][:24])
    )


_EVERYTHING = """
name: everything
modality: code
source: {kind: parquet, uri: ./t, keep: [stars], columns: {content: body}, mapping: {a: b}}
limits: {max_bytes: 500KB, reject_threshold: 0.5, part_bytes: 8MB, decode_seconds: 5}
filters: [max_line_length, {name: digit_share, most: 0.4}, {name: licence, allow: [MIT]}]
duplicates:
  near: {threshold: 0.8, semantics: components}
  semantic: {threshold: 0.95}
  normalise: [comments]
embedding: {model: "builtin:hashing", dtype: float16, batch_size: 8}
decontaminate: {benchmarks: [{name: b, uri: ./b.jsonl, text: [prompt, code], item: task}]}
index: {kind: ivf_pq, recall: 0.9, memory: 1GB}
clusters: {k: auto, seed: 3, start: k-means++}
prune: {method: scip, fraction: 0.3, alpha: 0.5, within: language}
shards:
  format: webdataset
  size: 1MB
  split: {train: 0.9, test: 0.1}
  tokens: {tokenizer: ./t, fim: 0.5}
runner: {all: ["--runner=FnApiRunner"], embed: ["--direct_num_workers=2"]}
"""


@functools.cache
def recipes() -> tuple[bytes, ...]:
    """The recipes that ship, a short one, and one of nearly every key."""
    short = b"name: n\nmodality: image\nsource: {kind: files, uri: data}\n"
    shipped = sorted((ROOT / "recipes").glob("*.yaml"))
    return (short, _EVERYTHING.encode(), *(path.read_bytes() for path in shipped))


Dataset = tuple[dict[str, Any], dict[str, bytes]]


@functools.cache
def datasets() -> tuple[Dataset, ...]:
    """Croissant documents and the files that they describe, one for each format that is read."""
    texts = [{"text": row["content"][:300], "lang": row["language"], "n": 1} for row in rows()[:6]]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(texts), out, row_group_size=3)
    lines = b"\n".join(json.dumps(row).encode() for row in texts)
    cells = ["text\tlang\tn", *(f'"{r["lang"]}"\tx\t1' for r in texts)]
    some = {name: data[:500] for name, data in sources()[:4]}
    column = [_field(name, {"column": name}) for name in ("text", "lang", "n")]
    key = [_field(name, {"jsonPath": f"$.{name}"}) for name in ("text", "lang")]
    whole = [
        _field("text", {"fileProperty": "content"}),
        _field("path", {"fileProperty": "fullpath"}, transform={"regex": "^(?:src/)?([^/]+)"}),
        {"@type": "cr:Field", "@id": "rows/license", "name": "license", "value": "MIT"},
    ]
    return (
        _dataset({"data/a.parquet": out.getvalue()}, "application/x-parquet", column),
        _dataset(
            {"data/a.csv": "\r\n".join(cells).replace("\t", ",").encode()}, "text/csv", column
        ),
        _dataset({"a.tsv": "\n".join(cells).encode()}, "text/tab-separated-values", column),
        _dataset({"a.jsonl": lines}, "application/jsonlines", key),
        _dataset({f"src/{name}": data for name, data in some.items()}, "text/plain", whole),
        _dataset({"all.zip": zip_of(some)}, "application/zip", whole, inside="*.*"),
        _dataset({"all.tar": tar_of(some)}, "application/x-tar", whole, inside="*.*"),
    )


def _field(name: str, extract: dict[str, str], **more: Any) -> dict[str, Any]:
    source = {"fileSet": {"@id": "set"}, "extract": extract, **more}
    return {"@type": "cr:Field", "@id": f"rows/{name}", "name": name, "source": source}


def _dataset(
    files: dict[str, bytes], kind: str, fields: list[dict[str, Any]], inside: str | None = None
) -> Dataset:
    listed: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "contentUrl": name,
            "encodingFormat": kind,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in files.items()
    ]
    sets: dict[str, Any] = {"@type": "cr:FileSet", "@id": "set", "encodingFormat": kind}
    if inside is None:
        sets["includes"] = [f"*{Path(next(iter(files))).suffix}", "src/*"]
    else:
        sets |= {"includes": inside, "containedIn": {"@id": next(iter(files))}}
    document = {
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "made",
        "license": {"@type": "sc:CreativeWork", "name": "MIT", "url": "https://spdx.org/MIT"},
        "creator": [{"@type": "sc:Person", "name": "A. Person", "@id": "_:a"}],
        "citeAs": ["one", {"@value": "two"}],
        "prov:wasDerivedFrom": {"@id": "source/x", "@type": "prov:Entity"},
        "distribution": [sets, *listed],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}],
    }
    return document, files


def digest() -> str:
    """A hash over all seeds and what makes inputs of them: with others it is another campaign."""
    hashed = hashlib.sha256()
    for name in ("mutations", "archives", "pictures", "trees", "tables", "kinds"):
        hashed.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    for part in (sources(), pictures(), archives(), rows(), recipes(), datasets()):
        hashed.update(repr(part).encode("utf-8", "backslashreplace"))
    return hashed.hexdigest()[:12]


def pick(rng: random.Random, items: tuple[Any, ...]) -> Any:
    """One of the seeds."""
    return items[rng.randrange(len(items))]


def _packages() -> list[Path]:
    return [Path(sysconfig.get_path("purelib")) / name for name in _PACKAGES]


def _fits(path: Path, kind: str) -> bool:
    return path.is_file() and not path.is_symlink() and 0 < path.stat().st_size <= _MOST_BYTES[kind]


def _walk(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(folder.rglob("*.*"))
