"""One folder with every kind of bad or odd input that we know of, and what must become of each."""

import base64
import gzip
import io
import json
import os
import socket
import stat
import struct
import subprocess
import tarfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MAX_BYTES = 1_000_000
RECORD = "record"
GOOD = b"print('hello')\n"


@dataclass
class Corpus:
    """What one source reads of the folder.

    Attributes:
        name: Names the corpus in a test.
        kind: The kind of source.
        modality: ``code`` or ``image``.
        uri: What the source is pointed at.
        expected: Every input's path, and ``record`` or the reason why it is refused.
    """

    name: str
    kind: str
    modality: str
    uri: str
    expected: list[tuple[str, str]] = field(default_factory=list)


def bad_folder(path: Path) -> list[Corpus]:
    """Builds the folder; returns what each kind of source must make of it."""
    path.mkdir(parents=True, exist_ok=True)
    return [
        _code(path / "code"),
        _images(path / "images"),
        _archives(path / "archives"),
        _image_archives(path / "image-archives"),
        _parquet(path / "parquet"),
        _image_parquet(path / "image-parquet"),
        _jsonl(path / "jsonl"),
        _image_jsonl(path / "image-jsonl"),
        _git(path / "git"),
    ]


def _code(folder: Path) -> Corpus:
    corpus = Corpus("files-code", "files", "code", str(folder))
    folder.mkdir()

    def add(name: str | bytes, data: bytes, outcome: str, shown: str | None = None) -> None:
        raw = os.fsencode(folder) + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(raw), exist_ok=True)
        with open(raw, "wb") as file:
            file.write(data)
        corpus.expected.append((shown or os.fsdecode(name), outcome))

    add("good.py", GOOD, RECORD)
    add("empty.py", b"", "empty")
    add("blank.py", b" \n\t\n", RECORD)
    add("binary.py", b"\x7fELF\x02\x01\x01\0\0\0" + bytes(range(256)), "binary")
    add("nul.py", b"a = 1\n\0b = 2\n", "binary")
    add("latin1.py", "name = 'Ångström'\n".encode("latin-1"), "invalid_encoding")
    add("utf16.py", "a = 1\n".encode("utf-16"), "binary")
    add("utf32.py", "a = 1\n".encode("utf-32"), "binary")
    add("cesu.py", b"a = '\xed\xa0\xbd\xed\xb8\x80'\n", "invalid_encoding")
    add("cut-character.py", "a = 'é".encode()[:-1], "invalid_encoding")
    add("overlong.py", b"a = '\xc0\xaf'\n", "invalid_encoding")
    add("bom.py", b"\xef\xbb\xbfa = 1\n", RECORD)
    add("no-newline.py", b"a = 1", RECORD)
    add("crlf.py", b"a = 1\r\nb = 2\r\n", RECORD)
    add("cr.py", b"a = 1\rb = 2\r", RECORD)
    add("controls.py", b"a = '\x01\x0c\x1b[0m'\n", RECORD)
    add("shebang-only", b"#!/bin/sh", RECORD)
    add("UPPER.PY", GOOD, RECORD)
    add(".hidden.py", GOOD, RECORD)
    add("-rf.py", GOOD, RECORD)
    add(" space .py", GOOD, RECORD)
    add("quote'\"$(x).py", GOOD, RECORD)
    add("glob*?[a].py", GOOD, RECORD)
    add("a!b#c.py", GOOD, RECORD)
    add("line\nfeed.py", GOOD, RECORD)
    add("tab\tbell\x07.py", GOOD, RECORD)
    add("emoji-\N{SNAKE}.py", GOOD, RECORD)
    add("e\u0301.py", GOOD, RECORD)  # two names that a reader cannot tell apart
    add("\u00e9.py", GOOD, RECORD)
    add(b"raw-\xff\xfe.py", GOOD, RECORD, "raw-\\xff\\xfe.py")
    add(b"clash-\\xff.py", GOOD, RECORD)  # the name that the next one is shown as
    add(b"clash-\xff.py", GOOD, "duplicate_path", "clash-\\xff.py")
    add(b"clash-folder-\\xff/a.py", GOOD, RECORD)
    add(b"clash-folder-\xff/a.py", GOOD, "duplicate_path", "clash-folder-\\xff/a.py")
    add("n" * 252 + ".py", GOOD, RECORD)
    add("/".join(["deep"] * 200) + "/a.py", GOOD, RECORD)
    add("folder.py/a.py", GOOD, RECORD)
    add("at-limit.py", b"#" * MAX_BYTES, RECORD)
    add("too-large.py", b"#" * (MAX_BYTES + 1), "too_large")
    add("sparse.py", b"", "too_large")
    os.truncate(folder / "sparse.py", 200_000_000)
    add("hard-link-target.py", b"a = 2\n", RECORD)
    os.link(folder / "hard-link-target.py", folder / "hard-link.py")
    corpus.expected.append(("hard-link.py", RECORD))
    add("no-access.py", GOOD, RECORD if os.geteuid() == 0 else "unreadable")
    os.chmod(folder / "no-access.py", 0)
    os.symlink("good.py", folder / "link-file.py")
    os.symlink("clash-folder", folder / "link-folder")
    os.symlink("nowhere.py", folder / "link-broken.py")
    os.symlink("link-loop.py", folder / "link-loop.py")
    os.symlink("..", folder / "link-up")
    os.symlink("/etc/passwd", folder / "link-out.py")
    os.mkfifo(folder / "pipe.py")
    _socket(folder, "socket.py")
    for name in ("file.py", "folder", "broken.py", "loop.py", "up", "out.py"):
        corpus.expected.append((f"link-{name}", "not_regular_file"))
    corpus.expected += [("pipe.py", "not_regular_file"), ("socket.py", "not_regular_file")]
    corpus.expected.append((abyss(folder), "unreadable"))
    (folder / "empty-folder").mkdir()
    return corpus


def _socket(folder: Path, name: str) -> None:
    """Binds a socket by way of a short name, for theirs may have 107 bytes at most."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def abyss(folder: Path) -> str:
    """Folders in folders, too deep for any path to reach; returns the first out of reach."""
    name = "abyss" * 40
    here = os.open(folder, os.O_RDONLY)
    unreachable = ""
    path = ""
    location = os.path.realpath(folder)
    for _ in range(24):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        path = f"{path}/{name}".lstrip("/")
        location += f"/{name}"
        if not unreachable and len(location) >= 4096:
            unreachable = path
    os.close(here)
    return unreachable


def encoded(mode: str = "RGB", size: tuple[int, int] = (16, 12), kind: str = "PNG", **options):
    """A small image with some structure."""
    image = Image.radial_gradient("L").resize(size)
    if mode == "I;16":
        image = image.convert("I").point(lambda value: value * 257).convert("I;16")
    elif mode == "LA":
        image = Image.merge("LA", (image, image))
    else:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG with a header that claims any size, and no pixels to speak of."""
    chunks = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + body))
        chunks.append(struct.pack(">I", len(body)) + name + body + checksum)
    return b"".join(chunks)


def jpeg_from(make: str | bytes, model: str, software: str) -> bytes:
    """A JPEG with EXIF."""
    exif = Image.Exif()
    exif[271], exif[272], exif[305] = make, model, software
    return encoded(kind="JPEG", exif=exif)


def _images(folder: Path) -> Corpus:
    corpus = Corpus("files-image", "files", "image", str(folder))

    def add(name: str, data: bytes, outcome: str) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        corpus.expected.append((name, outcome))

    jpeg = encoded(size=(200, 200), kind="JPEG")
    png = encoded(size=(200, 200))
    broken = bytearray(png)
    broken[len(broken) // 2] ^= 0xFF
    frames = [Image.new("P", (8, 8), color) for color in (1, 2, 3)]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    gif = animation.getvalue()
    pages = io.BytesIO()
    frames[0].save(pages, "TIFF", save_all=True, append_images=frames[1:])
    tiff = pages.getvalue()
    add("cats/good.jpg", jpeg, RECORD)
    add("dogs/deep/good.png", png, RECORD)
    add("root.webp", encoded(kind="WEBP"), RECORD)
    add("camera.jpg", jpeg_from("ACME", "Mark II", "Darkroom 3"), RECORD)
    add("truncated.jpg", jpeg[: len(jpeg) // 2], "truncated_image")
    add("truncated.png", png[: len(png) // 2], "truncated_image")
    add("truncated.gif", gif[:40], "truncated_image")
    add("bit-flip.png", bytes(broken), "invalid_image")
    add("header-only.png", png[:20], "truncated_image")
    add("bomb.png", png_claiming(60_000, 60_000), "decompression_bomb")
    add("claims-too-much.png", png_claiming(5_000, 5_000), "truncated_image")
    add("empty.jpg", b"", "empty")
    add("text.png", b"this is no picture\n", "unsupported_image")
    add("nul.jpg", bytes(1000), "unsupported_image")
    add("vector.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image")
    add("ghost.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "unsupported_image")
    add("stub.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "unsupported_image")
    add("stub.wmf", b"\xd7\xcd\xc6\x9a\0\0" + bytes(100), "unsupported_image")
    add("jpeg-inside.png", jpeg, RECORD)
    add("animated.gif", gif, RECORD)
    add("pages.tiff", tiff, RECORD)
    add("cut.tiff", tiff[:60], "invalid_image")
    add("cmyk.jpg", encoded("CMYK", kind="JPEG"), RECORD)
    add("sixteen.png", encoded("I;16"), RECORD)
    add("grey-alpha.png", encoded("LA"), RECORD)
    add("bilevel.png", encoded("1"), RECORD)
    add("palette.png", encoded("P", transparency=0), RECORD)
    add("one-pixel.png", encoded(size=(1, 1)), RECORD)
    add("trailing.png", png + b"and so on" * 10, RECORD)
    add("exif-garbage.jpg", encoded(kind="JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), RECORD)
    add("exif-bytes.jpg", jpeg_from(b"\xff\xfe\0x", "", " \0 "), RECORD)
    add("too-large.bmp", encoded(size=(700, 500), kind="BMP"), "too_large")
    os.symlink("root.webp", folder / "link.webp")
    corpus.expected.append(("link.webp", "not_regular_file"))
    return corpus


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),  # names that come twice are what we are after
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in members:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def tarred(*members: tuple[str, bytes | None, bytes], kind: str = "") -> bytes:
    """A tar archive of names, contents (None: take it for a link's target) and types."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode=f"w:{kind}", format=tarfile.GNU_FORMAT, errors="surrogateescape"
    ) as archive:
        for name, data, member_type in members:
            info = tarfile.TarInfo(name)
            info.type = member_type
            if data is None:
                info.linkname = "good.py"
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _archives(folder: Path) -> Corpus:
    corpus = Corpus("archive-code", "archive", "code", str(folder))
    folder.mkdir()

    def add(name: str, data: bytes, **outcomes: str) -> None:
        (folder / name).write_bytes(data)
        for member, outcome in outcomes.items():
            corpus.expected.append((f"{name}!{member}" if member else name, outcome))

    def add_members(name: str, data: bytes, *outcomes: tuple[str, str]) -> None:
        (folder / name).write_bytes(data)
        for member, outcome in outcomes:
            corpus.expected.append((f"{name}!{member}" if member else name, outcome))

    file = tarfile.REGTYPE
    link = zipfile.ZipInfo("link.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    good = ("a.py", RECORD)
    broken = ("", "unreadable_archive")
    inner = zipped(("x.py", GOOD))
    add_members(
        "names.zip",
        zipped(
            ("a.py", GOOD),
            ("folder/", b""),
            ("folder/b.py", GOOD),
            ("../escape.py", GOOD),
            ("in/../../escape.py", GOOD),
            ("..\\windows.py", GOOD),
            ("/absolute.py", GOOD),
            ("C:\\drive.py", GOOD),
            ("a.py", b"second\n"),
            (link, b"a.py"),
            ("empty.py", b""),
            ("inner.zip", inner),
            ("inner-by-content.py", inner),
            ("page.txt.gz", gzip.compress(GOOD)),
        ),
        good,
        ("folder/b.py", RECORD),
        ("../escape.py", "path_escape"),
        ("in/../../escape.py", "path_escape"),
        ("..\\windows.py", "path_escape"),
        ("/absolute.py", "path_escape"),
        ("C:\\drive.py", "path_escape"),
        ("a.py", "duplicate_path"),
        ("link.py", "not_regular_file"),
        ("empty.py", "empty"),
        ("inner.zip", "nested_archive"),
        ("inner-by-content.py", "nested_archive"),
        ("page.txt.gz", "nested_archive"),
    )
    add_members(
        "bomb.zip",
        zipped(("bomb.py", b"\n" * 100_000_000), ("a.py", GOOD)),
        ("bomb.py", "too_large"),
        good,
    )
    # 3 MB of lines behind headers that claim 100 bytes
    liar = zipped(("liar.py", b"\n" * 3_000_000), ("a.py", GOOD))
    liar = liar.replace(struct.pack("<I", 3_000_000), struct.pack("<I", 100))
    add_members("liar.zip", liar, ("liar.py", "unreadable"), good)
    locked = bytearray(zipped(("locked.py", GOOD)))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + offset] |= 1
    add_members("encrypted.zip", bytes(locked), ("locked.py", "encrypted"))
    method = bytearray(zipped(("method.py", GOOD)))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        method[method.index(signature) + offset] = 97
    add_members("method.zip", bytes(method), ("method.py", "unreadable"))
    flipped = bytearray(zipped(("flipped.py", GOOD * 50), ("a.py", GOOD)))
    flipped[45] ^= 0xFF
    add_members("flipped.zip", bytes(flipped), ("flipped.py", "unreadable"), good)
    add_members("truncated.zip", zipped(("a.py", GOOD * 99))[:-30], broken)
    add_members("page.zip", b"<html>404</html>", broken)
    add_members("empty.zip", b"", broken)
    add_members("no-members.zip", zipped())

    add_members(
        "types.tar",
        tarred(
            ("./a.py", GOOD, file),
            ("folder", None, tarfile.DIRTYPE),
            ("symbolic.py", None, tarfile.SYMTYPE),
            ("hard.py", None, tarfile.LNKTYPE),
            ("device.py", None, tarfile.CHRTYPE),
            ("disk.py", None, tarfile.BLKTYPE),
            ("pipe.py", None, tarfile.FIFOTYPE),
            ("../escape.py", GOOD, file),
            ("/absolute.py", GOOD, file),
            ("a.py", b"second\n", file),
            ("n" * 300 + ".py", GOOD, file),
            ("raw-\udcff.py", GOOD, file),
            ("large.py", b"#" * (MAX_BYTES + 1), file),
            ("nul.py", b"\0", file),
            ("last.py", GOOD, file),
        ),
        good,
        ("symbolic.py", "not_regular_file"),
        ("hard.py", "not_regular_file"),
        ("device.py", "not_regular_file"),
        ("disk.py", "not_regular_file"),
        ("pipe.py", "not_regular_file"),
        ("../escape.py", "path_escape"),
        ("/absolute.py", "path_escape"),
        ("a.py", "duplicate_path"),
        ("n" * 300 + ".py", RECORD),
        ("raw-\\xff.py", RECORD),
        ("large.py", "too_large"),
        ("nul.py", "binary"),
        ("last.py", RECORD),
    )
    noise = b"".join(b"# %d\n" % (i * 7919 % 10007) for i in range(4000))
    pair = (("a.py", GOOD, file), ("b.py", noise, file))
    both = (good, ("b.py", RECORD))
    for kind in ("gz", "bz2", "xz"):
        whole = tarred(*pair, kind=kind)
        add_members(f"whole.tar.{kind}", whole, *both)
        # one block of bzip2 holds both members
        survivors = () if kind == "bz2" else (good,)
        add_members(f"cut.tar.{kind}", whole[: len(whole) * 2 // 3], *survivors, broken)
    plain = tarred(*pair)
    add_members("plain.tgz", plain, *both)  # not compressed, whatever its name says
    add_members("cut.tar", plain[:4000], good, broken)
    add_members("no-end.tar", plain[: 512 + 512 + 512 + -(-len(noise) // 512) * 512], *both, broken)
    header = bytearray(plain)
    header[1024 + 150] ^= 0xFF  # in the checksum of the second member's header
    add_members("header.tar", bytes(header), good, broken)
    checksum = bytearray(tarred(*pair, kind="gz"))
    checksum[-8] ^= 0xFF
    add_members("checksum.tar.gz", bytes(checksum), *both, broken)
    add_members("trailing.tar.gz", tarred(*pair, kind="gz") + b"garbage", *both, broken)
    add_members("empty.tar.gz", b"", broken)
    add_members("text.tar", b"no archive at all\n" * 99, broken)
    pax = tarfile.TarInfo("pax")
    pax.type = tarfile.XHDTYPE
    pax.size = 1 << 40
    add_members("pax-bomb.tar", pax.tobuf() + bytes(100_000), broken)
    name = tarfile.TarInfo("././@LongLink")
    name.type = tarfile.GNUTYPE_LONGNAME
    name.size = 4
    add_members("endless-names.tar", (name.tobuf() + b"x.py" + bytes(508)) * 5000, broken)
    os.symlink("whole.tar.gz", folder / "link.tar.gz")
    corpus.expected.append(("link.tar.gz", "not_regular_file"))
    os.mkfifo(folder / "pipe.zip")
    corpus.expected.append(("pipe.zip", "not_regular_file"))
    (folder / "README.md").write_text("no archive, so no input")
    return corpus


def _image_archives(folder: Path) -> Corpus:
    corpus = Corpus("archive-image", "archive", "image", str(folder / "all.tar"))
    folder.mkdir()
    file = tarfile.REGTYPE
    members = tarred(
        ("cats/a.png", encoded(), file),
        ("b.png", encoded(), file),
        ("c.png", encoded()[:50], file),
        ("d.png", b"", file),
    )
    (folder / "all.tar").write_bytes(members)
    corpus.expected += [
        ("all.tar!cats/a.png", RECORD),
        ("all.tar!b.png", RECORD),
        ("all.tar!c.png", "truncated_image"),
        ("all.tar!d.png", "empty"),
    ]
    return corpus


def _parquet(folder: Path) -> Corpus:
    corpus = Corpus("parquet-code", "parquet", "code", str(folder))
    folder.mkdir()
    contents = ["a = 1\n", None, "", "b\0", "c = 3", "#" * (MAX_BYTES + 1)]
    outcomes = [RECORD, "missing_content", "empty", "binary", RECORD, "too_large"]
    pq.write_table(pa.table({"content": contents}), folder / "rows.parquet", row_group_size=4)
    corpus.expected += [(f"rows.parquet#{i}", outcome) for i, outcome in enumerate(outcomes)]
    raw = pa.array([b"ok\n", b"\xff\xfe"], pa.binary())
    pq.write_table(pa.table({"text": raw}), folder / "bytes.parquet")
    corpus.expected += [
        ("bytes.parquet#0", RECORD),
        ("bytes.parquet#1", "invalid_encoding"),
    ]
    # text that is no UTF-8, which a writer in another language may well produce
    wrong = raw.view(pa.string())
    pq.write_table(pa.table({"content": wrong, "license": wrong}), folder / "no-utf8.parquet")
    corpus.expected += [
        ("no-utf8.parquet#0", RECORD),
        ("no-utf8.parquet#1", "invalid_encoding"),
    ]
    pq.write_table(pa.table({"content": [1, 2]}), folder / "numbers.parquet")
    pq.write_table(pa.table({"content": [["a"], ["b"]]}), folder / "lists.parquet")
    pq.write_table(pa.table({"other": ["a"]}), folder / "missing.parquet")
    for name in ("numbers", "lists", "missing"):
        corpus.expected.append((f"{name}.parquet", "schema_mismatch"))
    pq.write_table(pa.table({"content": pa.array([], pa.string())}), folder / "none.parquet")
    whole = (folder / "rows.parquet").read_bytes()
    (folder / "garbage.parquet").write_bytes(b"PAR1" + bytes(500) + b"PAR1")
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "cut.parquet").write_bytes(whole[:-20])
    for name in ("garbage", "empty", "cut"):
        corpus.expected.append((f"{name}.parquet", "unreadable_table"))
    page = bytearray(whole)
    page[4:40] = b"\xff" * 36  # the first page's header: only its row group is lost
    (folder / "page.parquet").write_bytes(bytes(page))
    corpus.expected += [
        ("page.parquet#group-00000", "unreadable_table"),
        ("page.parquet#4", RECORD),
        ("page.parquet#5", "too_large"),
    ]
    os.symlink("rows.parquet", folder / "link.parquet")
    corpus.expected.append(("link.parquet", "not_regular_file"))
    return corpus


def _image_parquet(folder: Path) -> Corpus:
    corpus = Corpus("parquet-image", "parquet", "image", str(folder))
    folder.mkdir()
    png = encoded()
    images = [
        {"bytes": png, "path": "a.png"},
        {"bytes": None, "path": "elsewhere.png"},
        None,
        {"bytes": png[:60], "path": None},
    ]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(images, kind), "label": [0, 1, 1, 0]})
    pq.write_table(table, folder / "struct.parquet")
    outcomes = [RECORD, "missing_content", "missing_content", "truncated_image"]
    corpus.expected += [(f"struct.parquet#{i}", outcome) for i, outcome in enumerate(outcomes)]
    pq.write_table(pa.table({"jpg": [png, b""]}), folder / "plain.parquet")
    corpus.expected += [("plain.parquet#0", RECORD), ("plain.parquet#1", "empty")]
    pq.write_table(pa.table({"image": ["a.png"]}), folder / "names.parquet")
    corpus.expected.append(("names.parquet", "schema_mismatch"))
    return corpus


def _jsonl(folder: Path) -> Corpus:
    corpus = Corpus("jsonl-code", "jsonl", "code", str(folder))
    folder.mkdir()
    lines: list[tuple[bytes, str]] = [
        (b"\xef\xbb\xbf" + json.dumps({"content": "a = 1"}).encode(), RECORD),
        (b'{"content": "cut', "invalid_json"),
        (b"no json", "invalid_json"),
        (b"[1, 2]", "invalid_json"),
        (b'"text"', "invalid_json"),
        (b"", ""),
        (b"   ", ""),
        (b'{"other": 1}', "schema_mismatch"),
        (b'{"content": null}', "missing_content"),
        (b'{"content": 7}', "schema_mismatch"),
        (b'{"content": ""}', "empty"),
        (b'{"content": "a\\u0000b"}', "binary"),
        (b'{"content": "\\ud800"}', "invalid_encoding"),
        (b'{"content": "ok", "license": "\\ud800", "lang": "\\udcff"}', RECORD),
        (b'{"content": "\xff"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"content": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"content": "' + b"x" * 5_000_000 + b'"}', "too_large"),
        (b'{"content": "' + b"x" * 1_000_001 + b'"}', "too_large"),
        (b'{"content": "twice", "content": "last"}', RECORD),
        ('{"content": "ünï"}'.encode(), RECORD),
        (b'{"content": "no newline"}', RECORD),
    ]
    (folder / "lines.jsonl").write_bytes(b"\n".join(line for line, _ in lines))
    corpus.expected += [(f"lines.jsonl#{i}", want) for i, (_, want) in enumerate(lines) if want]
    rows = b"".join(json.dumps({"text": f"a = {i * i}"}).encode() + b"\n" for i in range(3))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(rows))
    (folder / "plain.ndjson.gz").write_bytes(rows)  # not compressed, whatever its name says
    checksum = bytearray(gzip.compress(rows))
    checksum[-8] ^= 0xFF
    (folder / "checksum.jsonl.gz").write_bytes(bytes(checksum))
    for name in ("rows.jsonl.gz", "plain.ndjson.gz", "checksum.jsonl.gz"):
        corpus.expected += [(f"{name}#{i}", RECORD) for i in range(3)]
    corpus.expected.append(("checksum.jsonl.gz", "unreadable_table"))
    (folder / "utf16.jsonl").write_bytes('{"content": "a"}'.encode("utf-16"))
    corpus.expected.append(("utf16.jsonl#0", "invalid_json"))
    (folder / "empty.jsonl").write_bytes(b"")
    os.mkfifo(folder / "pipe.jsonl")
    corpus.expected.append(("pipe.jsonl", "not_regular_file"))
    return corpus


def _image_jsonl(folder: Path) -> Corpus:
    corpus = Corpus("jsonl-image", "jsonl", "image", str(folder))
    folder.mkdir()
    png = base64.b64encode(encoded()).decode()
    rows: list[tuple[object, str]] = [
        ({"image": png, "label": "cat"}, RECORD),
        ({"image": {"bytes": png, "path": "a.png"}}, RECORD),
        ({"image": f"data:image/png;base64,{png}"}, RECORD),
        ({"image": "no base64!"}, "invalid_base64"),
        ({"image": "ünï"}, "invalid_base64"),
        ({"image": base64.b64encode(b"no image").decode()}, "unsupported_image"),
        ({"image": ""}, "empty"),
        ({"image": None}, "missing_content"),
        ({"image": {"bytes": None}}, "missing_content"),
        ({"image": [1]}, "schema_mismatch"),
    ]
    (folder / "lines.jsonl").write_text("\n".join(json.dumps(row) for row, _ in rows))
    corpus.expected += [(f"lines.jsonl#{i}", outcome) for i, (_, outcome) in enumerate(rows)]
    return corpus


def run_git(folder: Path, *arguments: str) -> str:
    """Runs Git with a fixed author and no settings of this machine."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "a", f"GIT_{who}_EMAIL": "a@b"}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _git(folder: Path) -> Corpus:
    corpus = Corpus("git-code", "git", "code", str(folder))
    folder.mkdir()
    run_git(folder, "init", "--quiet")
    files: list[tuple[str | bytes, bytes, str, str]] = [
        ("a.py", GOOD, "a.py", RECORD),
        ("empty.py", b"", "empty.py", "empty"),
        ("folder/b.py", GOOD, "folder/b.py", RECORD),
        ("line\nfeed.py", GOOD, "line\nfeed.py", RECORD),
        (b"raw-\xff.py", GOOD, "raw-\\xff.py", RECORD),
        ("latin1.py", b"\xe9\n", "latin1.py", "invalid_encoding"),
        ("large.py", b"#" * (MAX_BYTES + 1), "large.py", "too_large"),
    ]
    for name, data, shown, outcome in files:
        raw = os.fsencode(folder) + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(raw), exist_ok=True)
        with open(raw, "wb") as file:
            file.write(data)
        corpus.expected.append((shown, outcome))
    os.symlink("a.py", folder / "link.py")
    corpus.expected.append(("link.py", "not_regular_file"))
    run_git(folder, "add", "--all")
    submodule = "160000,1234567890123456789012345678901234567890,submodule"
    run_git(folder, "update-index", "--add", "--cacheinfo", submodule)
    corpus.expected.append(("submodule", "not_regular_file"))
    run_git(folder, "commit", "--quiet", "--message", "all of it")
    (folder / "uncommitted.py").write_bytes(GOOD)
    return corpus
