"""Is this text? The cheap checks that every piece of code goes through."""

from shardwright.quality.faults import Fault


def check_text(data: bytes, max_bytes: int) -> str | Fault:
    """Decodes text, or says why it is none.

    The checks run in the order ``too_large``, ``empty``, ``binary`` (holds NUL bytes, as UTF-16
    text does too), ``invalid_encoding`` (no UTF-8). A byte order mark is kept: the content of a
    record is the bytes as they came.

    Args:
        data: The raw bytes.
        max_bytes: Most bytes that are accepted.
    """
    size = len(data)
    if size > max_bytes:
        return Fault("too_large", f"{size:,} bytes or more; the limit is {max_bytes:,}")
    if not size:
        return Fault("empty", "holds no bytes")
    if b"\0" in data:
        return Fault("binary", f"holds a NUL byte at offset {data.index(0):,}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return Fault("invalid_encoding", f"no UTF-8: {error.reason} at byte offset {error.start:,}")
