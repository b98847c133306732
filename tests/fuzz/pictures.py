"""Changes to pictures that leave the rest of their structure whole: chunks, segments, EXIF."""

import random
import struct
import zlib

from fuzz.mutations import NUMBERS, WORDS, mutated, packed

_PNG_KINDS = (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"tEXt")
_PNG_KINDS += (b"acTL", b"fcTL", b"fdAT", b"gAMA", b"cHRM", b"pHYs", b"IEND", b"vpAg")
_TAGS = (0x010F, 0x0110, 0x0131, 0x8769, 0x8825, 0x927C, 0xA434, 0x829A, 0x829D, 0x8827, 0xA001)
_TAGS += (0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117, 0x0144, 0x013D)
_MARKERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xFE)


def png_chunk(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A chunk of a PNG changed, moved, doubled or made up; its checksum is right."""
    chunks = _png_chunks(data)
    if not chunks:
        return mutated(rng, data, other)
    at = rng.randrange(len(chunks))
    kind, body = chunks[at]
    which = rng.randrange(6)
    if which == 0 and kind == b"IHDR" and len(body) == 13:
        width, height = rng.choice(NUMBERS) & 0xFFFFFFFF, rng.choice((0, 1, 9, 70_000, 0x7FFFFFFF))
        rest = bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(5))
        chunks[at] = (kind, struct.pack(">II", width, height) + rest)
    elif which <= 1 and kind in (b"IDAT", b"zTXt", b"iCCP"):
        chunks[at] = (kind, _deflated(rng, body, other))
    elif which == 2:
        chunks.insert(at, (rng.choice(_PNG_KINDS), rng.choice((*WORDS, exif(rng), other[:999]))))
    elif which == 3:
        chunks.insert(rng.randint(0, len(chunks)), chunks.pop(at))
    elif which == 4:
        chunks[at:at] = [(kind, body)] * rng.choice((1, 2, 50))
    else:
        chunks[at] = (rng.choice((kind, rng.choice(_PNG_KINDS))), mutated(rng, body, other))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def jpeg_segment(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A segment of a JPEG changed, doubled, left out, or a made-up one put in."""
    segments, scan = _jpeg_segments(data)
    if not segments:
        return mutated(rng, data, other)
    at = rng.randrange(len(segments))
    marker, body = segments[at]
    which = rng.randrange(5)
    if which == 0:
        segments.insert(0, (0xE1, b"Exif\0\0" + exif(rng)))
    elif which == 1:
        segments.insert(at, (rng.choice(_MARKERS), rng.choice((*WORDS, rng.randbytes(70)))))
    elif which == 2:
        del segments[at]
    elif which == 3:
        segments[at:at] = [(marker, body)] * rng.choice((1, 2, 40))
    else:
        segments[at] = (marker, mutated(rng, body, other[:999]))
    if rng.random() < 0.2:
        scan = mutated(rng, scan, other)
    out = [b"\xff\xd8"]
    for marker, body in segments:
        length = rng.choice(NUMBERS) & 0xFFFF if rng.random() < 0.02 else len(body) + 2
        out.append(struct.pack(">BBH", 0xFF, marker, min(length, 65535)) + body[:65533])
    return b"".join(out) + scan


def riff_chunk(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A chunk of a WebP changed, or an EXIF chunk put in; the outer length is right."""
    if data[:4] != b"RIFF" or len(data) < 20:
        return mutated(rng, data, other)
    body = data[12:]
    if rng.random() < 0.4:
        block = exif(rng)
        kind = rng.choice((b"EXIF", b"ICCP", b"XMP ", b"ANIM", b"ANMF", b"ALPH", b"VP8X"))
        body += kind + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    body = mutated(rng, body, other[:999])
    return b"RIFF" + struct.pack("<I", len(body) + 4) + data[8:12] + body


def header_number(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A number in the first hundred bytes: the headers of GIF, BMP, TIFF, WebP."""
    at = rng.randrange(min(100, max(1, len(data))))
    number = packed(rng)
    return data[:at] + number + data[at + len(number) :]


def tiff_entry(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """An entry of a directory of a TIFF: its tag, type, count or value."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 16:
        return mutated(rng, data, other)
    (first,) = struct.unpack_from(order + "L", data, 4)
    if first + 2 > len(data):
        return mutated(rng, data, other)
    (count,) = struct.unpack_from(order + "H", data, first)
    at = first + 2 + 12 * rng.randrange(max(1, count))
    if at + 12 > len(data):
        return mutated(rng, data, other)
    entry = list(struct.unpack_from(order + "HHLL", data, at))
    which = rng.randrange(4)
    if which == 0:
        entry[0] = rng.choice(_TAGS)
    elif which == 1:
        entry[1] = rng.randrange(18)
    else:
        entry[which] = rng.choice((rng.choice(NUMBERS) & 0xFFFFFFFF, first, at, len(data) - 1))
    return data[:at] + struct.pack(order + "HHLL", *entry) + data[at + 12 :]


def exif(rng: random.Random) -> bytes:
    """An EXIF block with whatever entries, whose offsets may lead in circles."""
    order = rng.choice("<>")
    count = rng.choice((0, 1, 3, 12, 2000))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entries = b""
    for _ in range(count):
        number = rng.choice((0, 1, 2, 4, 8, 9, 300, 0xFFFFFFFF, rng.randrange(1 << 16)))
        value = rng.choice((0, 4, 8, 10, 20, 0xFFFFFFFF, rng.randrange(4096)))
        entries += struct.pack(order + "HHLL", rng.choice(_TAGS), rng.randrange(15), number, value)
    claimed = count if rng.random() < 0.8 else rng.choice((0, 65535))
    first = 8 if rng.random() < 0.8 else rng.choice((0, 4, 9, 0xFFFFFFFF))
    text = rng.choice((b"ACME\0Mark\xff II\0", rng.randbytes(80)))
    return head + struct.pack(order + "LH", first, claimed) + entries + bytes(4) + text


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks = []
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        chunks.append((kind, body))
        at += 12 + length
    return chunks if data.startswith(b"\x89PNG") else []


def _deflated(rng: random.Random, body: bytes, other: bytes) -> bytes:
    """What is inside changed, or far more of it than there should be."""
    try:
        inside = zlib.decompressobj().decompress(body, 1 << 20)
    except zlib.error:
        inside = b""
    more = bytes(rng.choice((10, 10_000_000)))
    return zlib.compress(rng.choice((mutated(rng, inside, other[:999]), inside + more)), 1)


def _jpeg_segments(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Marker and body of the segments before the scan, and all from the scan's data on."""
    segments = []
    at = 2
    while data[:2] == b"\xff\xd8" and at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        segments.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
        if marker == 0xDA:
            break
    return segments, data[at:]
