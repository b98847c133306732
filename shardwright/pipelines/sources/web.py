"""Files at web addresses, which Beam has no filesystem for."""

import io
from typing import Any, BinaryIO, cast

from shardwright.pipelines.sources.storage import explain

SCHEMES = ("http://", "https://")


def open_web(url: str) -> BinaryIO:
    """Opens a web address for reading; ranges are asked for as they are read.

    Raises:
        OSError: It cannot be opened.
    """
    try:
        file = _files().open(url, "rb")
    except Exception as error:  # whatever fsspec and aiohttp raise
        raise OSError(explain(error)) from error
    return cast(BinaryIO, io.BufferedReader(_Reader(file), 1 << 16))


def web_facts(url: str) -> tuple[int, str] | None:
    """Size and state of what stands at a web address; None where there is nothing.

    Raises:
        OSError: It could not be asked for.
    """
    try:
        facts = _files().info(url)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever fsspec and aiohttp raise
        raise OSError(explain(error)) from error
    size = int(facts.get("size") or 0)
    stated = next((facts[key] for key in ("ETag", "Last-Modified") if key in facts), "")
    return size, f"{size}:{''.join(str(stated).split())}"


def _files() -> Any:
    import fsspec

    return fsspec.filesystem("http", use_listings_cache=False)


class _Reader(io.RawIOBase):
    """A file of fsspec whose every failure is an ``OSError``."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:  # whatever fsspec and aiohttp raise
            raise OSError(explain(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
