"""Changes to Parquet and JSON Lines that leave the rest of their structure whole."""

import gzip
import io
import random
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.mutations import MUTATIONS, flip_bits, mutated, overwrite, set_bytes
from fuzz.trees import dumped, nested, tree_mutated

_TAIL = 8  # bytes of the footer's length, and the magic behind it


def parquet_footer(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The footer changed, and its length mostly made right."""
    if len(data) < _TAIL + 4:
        return mutated(rng, data, other)
    (length,) = struct.unpack("<I", data[-_TAIL:-4])
    start = max(4, len(data) - _TAIL - length)
    few = (flip_bits, set_bytes, set_bytes, overwrite)
    footer = mutated(rng, data[start:-_TAIL], other[-999:-_TAIL], rng.choice((few, MUTATIONS)))
    stated = len(footer) if rng.random() < 0.95 else rng.choice((0, length, 0xFFFFFFFF, len(data)))
    return data[:start] + footer + struct.pack("<I", stated) + b"PAR1"


def parquet_pages(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Pages and their headers changed; the footer stays."""
    if len(data) < _TAIL + 4:
        return mutated(rng, data, other)
    (length,) = struct.unpack("<I", data[-_TAIL:-4])
    start = max(4, len(data) - _TAIL - length)
    pages = mutated(rng, data[4:start], other[:999], (flip_bits, set_bytes, set_bytes, overwrite))
    return data[:4] + pages[: start - 4].ljust(start - 4, b"\0") + data[start:]


def made_parquet(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    """Rows in one of the many ways in which Parquet can hold them."""
    texts = [row["content"] for row in rows]
    kinds: tuple[pa.Array, ...] = (
        pa.array(texts),
        pa.array([text.encode() for text in texts], pa.binary()),
        pa.array(texts, pa.large_string()),
        pa.array(texts).dictionary_encode(),
        pa.array([{"bytes": b"x = 1\n", "path": "a.py"}] * len(texts)),
        pa.array([texts] * len(texts)),
        pa.array([None] * len(texts)),
        pa.array(range(len(texts))),
        pa.array([text[:4].encode().ljust(4) for text in texts], pa.binary(4)),
        pa.array(texts, pa.string_view()),
    )
    columns: dict[str, pa.Array] = {
        "content": rng.choice(kinds[:4]) if rng.random() < 0.7 else rng.choice(kinds),
        "license": pa.array([["mit", "bsd"]] * len(texts)),
        "language": pa.array([row["language"] for row in rows]).dictionary_encode(),
        "stars": rng.choice((pa.array(range(len(texts))), pa.array([1.5] * len(texts)))),
        "when": pa.array([2**40] * len(texts), pa.timestamp(rng.choice(("s", "us", "ns")))),
        "tree": pa.array([[{"a": [1, None]}]] * len(texts)),
        "map": pa.array([[("a", 1)]] * len(texts), pa.map_(pa.string(), pa.int64())),
    }
    # without a language each row is shown to a model, which is not what is tried here
    chosen = {"content": columns.pop("content"), "language": columns.pop("language")}
    chosen |= {name: columns[name] for name in rng.sample(sorted(columns), rng.randint(0, 4))}
    out = io.BytesIO()
    pq.write_table(
        pa.table(chosen),
        out,
        row_group_size=rng.choice((2, 5, 100)),
        compression=rng.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli")),
        use_dictionary=rng.random() < 0.6,
        data_page_version=rng.choice(("1.0", "2.0")),
        data_page_size=rng.choice((64, 1 << 20)),
        write_page_checksum=rng.random() < 0.2,
        write_page_index=rng.random() < 0.3,
        store_schema=rng.random() < 0.8,
        coerce_timestamps="us" if rng.random() < 0.2 else None,
        allow_truncated_timestamps=True,
    )
    return out.getvalue()


def json_line(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A line changed as a tree, or as what only lines have."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    which = rng.randrange(8)
    if which <= 2:
        row = {"content": "a = 1\n", "license": ["mit"], "stars": 3, "path": "a.py", "lang": None}
        lines[at] = dumped(tree_mutated(rng, row))
    elif which == 3:
        lines[at] = dumped({"content": "x", "stars": nested(rng.choice((50, 900, 9000)), True, 1)})
    elif which == 4:
        lines[at] = b'{"content": "' + mutated(rng, lines[at], other[:999]) + b'"}'
    elif which == 5:
        lines[at:at] = [
            rng.choice((b"", b" ", b"\r", b"\x0c", b"\xc2\xa0", b"\xef\xbb\xbf", b"\0"))
        ]
    elif which == 6:
        lines[at] = rng.choice(
            (b"[" * 60_000, b'{"a":' * 20_000, b"9" * 5000, b'"' + b"x" * 900_000)
        )
    else:
        return gzip.compress(data, 1, mtime=0) if rng.random() < 0.5 else data + other[:999]
    return b"\n".join(lines)
