"""Changes to zip and tar archives that leave the rest of their structure whole."""

import bz2
import gzip
import io
import lzma
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from fuzz.mutations import NUMBERS, mutated

_BLOCK = 512
NAMES = (
    *(
        "../escape.py",
        "/etc/passwd",
        "a/../../b.py",
        "C:\\x.py",
        "..\\x.py",
        "",
        ".",
        "/",
        "a//b.py",
    ),
    *(
        "a\0b.py",
        "\udcff.py",
        "x" * 5000,
        "line\nfeed.py",
        "x.zip",
        "x.py!y.py",
        "x.py#0",
        "\u202ey.p",
    ),
)
# Offset and form of the fields of the three structures of a zip archive.
_ENTRY = ((6, "H"), (8, "H"), (10, "H"), (16, "I"), (20, "I"), (24, "I"), (28, "H"), (30, "H"))
_ENTRY += ((32, "H"), (34, "H"), (38, "I"), (42, "I"))
_LOCAL = ((4, "H"), (6, "H"), (8, "H"), (14, "I"), (18, "I"), (22, "I"), (26, "H"), (28, "H"))
_END = ((4, "H"), (6, "H"), (8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H"))
_FIELDS = ((b"PK\x01\x02", _ENTRY), (b"PK\x03\x04", _LOCAL), (b"PK\x05\x06", _END))
_TYPES = b"0\x0011234567LKSVMxgXDNA\xff"


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def tar_of(members: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive of members, not compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_field(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A field of the directory, of a member's own header, or of the end."""
    signature, fields = rng.choice(_FIELDS)
    places = [match.start() for match in re.finditer(re.escape(signature), data)]
    if not places:
        return data
    at = rng.choice(places)
    offset, form = rng.choice(fields)
    size = struct.calcsize(f"<{form}")
    if at + offset + size > len(data):
        return data
    (old,) = struct.unpack_from(f"<{form}", data, at + offset)
    usual = (old + rng.randint(-3, 3), old ^ 1 << rng.randrange(16), 0, rng.choice(NUMBERS))
    new = rng.choice(usual) & ((1 << 8 * size) - 1)
    return data[: at + offset] + struct.pack(f"<{form}", new) + data[at + offset + size :]


def zip_names(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Members under names that lead astray, in both places where they stand."""
    members = dict(_zip_members(data))
    if not members:
        return mutated(rng, data, other)
    chosen = rng.choice(list(members))
    odd = rng.choice(NAMES).encode("utf-8", "surrogateescape")
    name = odd[: len(chosen)].ljust(len(chosen), b"_")
    return data.replace(chosen.encode("utf-8", "replace"), name)


def zip_nested(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """An archive in an archive, under a name that tells or not."""
    name = rng.choice(("inner.zip", "inner.py", "inner.tar.gz", "inner"))
    inner = rng.choice((data, other, gzip.compress(data), mutated(rng, data, other)))
    members = {name: inner, "a.py": b"a = 1\n"}
    return rng.choice((zip_of(members), tar_of(members)))


def tar_field(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A field of a member's header, whose checksum is made right again."""
    return _with_header(rng, data, _changed_field)


def tar_extended(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """An extended header before a member: pax records, long names, sparse maps."""
    return _with_header(rng, data, lambda rng, header: _extension(rng) + header)


def tar_zeroed(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A header of nothing but zeros, as a bad sector leaves it."""
    return _with_header(rng, data, lambda _rng, header: bytes(len(header)))


def compressed(change: Callable[[random.Random, bytes, bytes], bytes]):
    """A change to what is compressed, or to the compressed bytes."""

    def changed(rng: random.Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.3:
            return mutated(rng, data, other)
        squeeze, inflate = next(
            (
                pair
                for head, pair in (
                    (b"\x1f\x8b", (_gzip, gzip.decompress)),
                    (b"BZh", (bz2.compress, bz2.decompress)),
                    (b"\xfd7zXZ", (lzma.compress, lzma.decompress)),
                )
                if data.startswith(head)
            ),
            (bytes, bytes),
        )
        try:
            return squeeze(change(rng, inflate(data), b""))
        except (
            OSError,
            EOFError,
            ValueError,
            lzma.LZMAError,
            zlib.error,
        ):  # an earlier change broke it
            return mutated(rng, data, other)

    return changed


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _zip_members(data: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(info.filename, b"") for info in archive.infolist()]
    except Exception:  # an earlier change broke it; what it raises is not the point here
        return []


def _with_header(
    rng: random.Random, data: bytes, change: Callable[[random.Random, bytes], bytes]
) -> bytes:
    """A tar whose header, one of those it has, is changed."""
    starts = [at for at in range(0, len(data), _BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return data
    at = rng.choice(starts)
    return data[:at] + change(rng, data[at : at + _BLOCK]) + data[at + _BLOCK :]


def _changed_field(rng: random.Random, header: bytes) -> bytes:
    changed = bytearray(header)
    which = rng.randrange(6)
    if which == 0:
        changed[156] = rng.choice(_TYPES)
    elif which == 1:
        changed[124:136] = _size(rng)
    elif which == 2:
        name = rng.choice(NAMES).encode("utf-8", "surrogateescape")
        changed[0:100] = name[:100].ljust(100, b"\0")
    elif which == 3:
        changed[157:257] = rng.randbytes(100)
    elif which == 4:
        changed[257:500] = rng.randbytes(243)
    else:
        changed[rng.randrange(_BLOCK)] = rng.randrange(256)
    return _sealed(changed)


def _size(rng: random.Random) -> bytes:
    number = rng.choice((0, 1, 511, 513, 1 << 20, 8**11 - 1, rng.randint(0, 1 << 20)))
    forms = (
        f"{number:011o}\0".encode(),
        b"\x80" + rng.choice(NUMBERS).to_bytes(11, "big"),
        b"\xff" * 12,  # base 256, and less than nothing
        b"77777777777 ",
        b"            ",
        rng.randbytes(12),
    )
    return rng.choice(forms)


def _sealed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _extension(rng: random.Random) -> bytes:
    records = (
        b"30 mtime=1e999\n",
        b"16 size=-12345\n",
        b"12 size=1e9\n",
        b"19 path=../../../x\n",
        b"26 GNU.sparse.major=1\n27 GNU.sparse.minor=0\n",
        b"22 GNU.sparse.map=0,5\n",
        b"30 GNU.sparse.size=9999999999\n",
        b"21 hdrcharset=BINARY\n",
        b"0 a=b\n",
        b"5 a=b\n" * 1000,
        b"9" * rng.choice((30, 3000, 300_000)),
        b"-1 a=b\n",
        rng.randbytes(64),
    )
    body = b"".join(rng.choice(records) for _ in range(rng.randint(1, 4)))
    kind = rng.choice((b"x", b"g", b"L", b"K", b"X"))
    padded = body.ljust(-(-len(body) // _BLOCK) * _BLOCK, b"\0")
    size = len(body) if rng.random() < 0.8 else rng.choice((0, 5, 1 << 21, 1 << 33))
    return (_header(kind, size) + padded) * rng.choice((1, 1, 1, 3, 400 if len(body) < 999 else 1))
