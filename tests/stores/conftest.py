"""One server for all tests of a process, and a proxy for each of them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import Proxy, credentials, faulty, s3_server

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with faulty(server) as running, credentials(running.url):
        yield running


@pytest.fixture
def place(proxy: Proxy, tmp_path: Path) -> str:
    """An address in the store that no other test has."""
    return f"s3://bucket/{tmp_path.name}-{next(_NUMBERS)}"
