"""What an archive holds: one member, before anyone has decided whether it becomes an input."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from lzma import LZMAError

# What broken archives make the standard library raise.
CORRUPTION = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    LZMAError,
)


class MemberError(Exception):
    """One member cannot be read; those behind it can."""


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: The name as the archive has it; undecodable bytes are kept by surrogate escapes.
        size: Bytes as its header claims.
        read: Reads at most so many bytes of it; raises ``MemberError``, or what the archive
            raises. Valid until the next member is asked for.
        problem: Reason and message when the header already says that it is no file to read.
    """

    name: str
    size: int
    read: Callable[[int], bytes]
    problem: tuple[str, str] | None = None
