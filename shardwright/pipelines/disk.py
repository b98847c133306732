"""What a disk that does not do its part is told as: one line, with what helps.

A worker's error comes through Beam as text, so that its last line is read where there is nothing
else.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardwright.errors import DataError, UserError

_ROOM = "make room there"
_RIGHT = "let this user write there"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _RIGHT,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files",
    errno.EIO: "see the system's log for what the disk says",
}
_ERROR = re.compile(r"\[Errno (\d+)\] ([^\n]*)")
_NAME = re.compile(r": '([^']*)'")


@contextmanager
def told_plainly(root: Path) -> Iterator[None]:
    """Turns errors of the disk that an output lies on into one line.

    Raises:
        DataError: In place of such an error.
    """
    try:
        yield
    except (UserError, DataError):
        raise
    except Exception as error:
        said = _said(root, error)
        if said is None:
            raise
        raise DataError(said) from None


def _said(root: Path, error: BaseException) -> str | None:
    found = _of_system(error) or _of_text(str(error))
    if found is None:
        return None
    number, name = found
    if os.sep not in name:  # below an open folder, as when one is removed: nobody knows where
        name = ""
    if number not in _REMEDIES or (name and root not in Path(name).parents):
        return None
    place = name or str(root)
    return f"{place}: {os.strerror(number)}; {_REMEDIES[number]} and run the same command again"


def _of_system(error: BaseException) -> tuple[int, str] | None:
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        return error.errno, os.fsdecode(name) if isinstance(name, str | bytes) else ""
    return None


def _of_text(text: str) -> tuple[int, str] | None:
    """The last error of the system that a text tells of; DuckDB gives no number."""
    found = list(_ERROR.finditer(text))
    if found:
        name = _NAME.search(found[-1][2])
        return int(found[-1][1]), name[1] if name else ""
    named = (number for number in _REMEDIES if os.strerror(number) in text)
    return next(((number, "") for number in named), None)
