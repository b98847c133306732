"""What a process may hold of a run's memory limit.

The limit stands in the environment, so that worker processes of this machine know it. It decides
what is held and what lies in files that are mapped or spilled to, never what comes out.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import ByteSize, TypeAdapter, ValidationError

from shardwright.errors import UserError

ENVIRONMENT: Final = "SHARDWRIGHT_MEMORY_LIMIT"
LEAST: Final = 2_000_000_000
"""With 1 GB DuckDB's share was too small for the blobs of the stage ``study``."""
_MOST: Final = 1_000_000_000
_SHARE: Final = 4
_DRIVER: Final = 1_200_000_000
"""What the driver holds beside a database; while workers run, the database gets less."""


def memory_limit() -> int | None:
    """Bytes that a run's processes on this machine may hold together; None without a limit.

    Raises:
        UserError: The environment states no size, or too small a one.
    """
    stated = os.environ.get(ENVIRONMENT)
    return None if not stated else parse_limit(stated, ENVIRONMENT)


def parse_limit(stated: str, name: str) -> int:
    """Bytes of a size such as ``4GB``, ``512MB`` or ``2GiB``.

    Raises:
        UserError: It is no size, or too small.
    """
    try:
        size = int(TypeAdapter(ByteSize).validate_python(stated))
    except ValidationError:
        raise UserError(f"{name} {stated}: is no size; write it like 4GB or 2GiB") from None
    if size < LEAST:
        raise UserError(f"{name} {stated}: a run needs 2GB at least; raise the limit")
    return size


@contextmanager
def limited(limit: int | None) -> Iterator[None]:
    """Sets the limit for this process and those that it starts meanwhile; None leaves it."""
    if limit is None:
        yield
        return
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = str(limit)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ENVIRONMENT]
        else:
            os.environ[ENVIRONMENT] = before


def share() -> int:
    """Bytes for one large thing: a database, or vectors; of more, the rest lies in files."""
    limit = memory_limit()
    return _MOST if limit is None else min(_MOST, limit // _SHARE)


def database_share() -> int:
    """Bytes for the database that makes a stage's tables: all that a limit leaves for it.

    DuckDB sorts out of core, but not any number of rows in any memory: 100 million rows of ids
    and numbers in 2 GB (``docs/benchmarks.md``).
    """
    limit = memory_limit()
    return _MOST if limit is None else limit - _DRIVER
