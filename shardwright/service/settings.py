"""What the service is told when it starts."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shardwright.errors import UserError

TOKEN = "SHARDWRIGHT_TOKEN"
"""Environment variable with the token that requests have to bring."""
_LEAST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """Bounds of what a request may ask for.

    Attributes:
        upload_bytes: Body of a request.
        batch: Items of one duplicate check or search.
        page_rows: Rows of a page of records.
        sql_seconds: Time of a query.
        sql_rows: Rows of a query's result.
        sql_bytes: Memory of DuckDB for a query; the process that runs it may take twice that.
        requests_a_minute: Of one client, on average; twice as many at once. 0 sets no bound.
    """

    upload_bytes: int = 20_000_000
    batch: int = 64
    page_rows: int = 200
    sql_seconds: float = 10.0
    sql_rows: int = 10_000
    sql_bytes: int = 500_000_000
    requests_a_minute: int = 1200


@dataclass(frozen=True)
class Settings:
    """The service as it is started.

    Attributes:
        folders: Outputs of curations by the name in addresses.
        token: What requests have to bring; None on loopback only.
        limits: Bounds.
        sendfile: Prefix under which a web server in front sends the shards itself, told by
            ``X-Accel-Redirect``; None sends them from here.
    """

    folders: dict[str, Path]
    token: str | None = None
    limits: Limits = Limits()
    sendfile: str | None = None


def named_folders(locations: Sequence[str], roots: Sequence[Path]) -> dict[str, Path]:
    """A name for each curation: the last part of where it is, numbered where several have the same.

    Args:
        locations: Folders, or addresses in a store.
        roots: The folder that each is at hand in.
    """
    named: dict[str, Path] = {}
    for location, root in zip(locations, roots, strict=True):
        last = location.rstrip("/") if "://" in location else str(root.resolve())
        kept = (c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in Path(last).name)
        base = "".join(kept).strip("-") or "curation"
        name, number = base, 2
        while name in named:
            name, number = f"{base}-{number}", number + 1
        named[name] = root
    return named


def checked_token(host: str, token: str | None) -> str | None:
    """The token, if the address may be served with it.

    Raises:
        UserError: The address is not of this machine alone and there is no token, or the token is
            too short to keep anybody out.
    """
    if token is not None and len(token) < _LEAST_TOKEN:
        raise UserError(f"{TOKEN}: a token needs at least {_LEAST_TOKEN} characters")
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host}: others can reach this address; set {TOKEN} to a token of at least "
            f"{_LEAST_TOKEN} characters"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, as only it itself sees it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
