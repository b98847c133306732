"""The service's command line, as tests start it and docker-compose.yml has it."""

from collections.abc import Sequence


def command(program: Sequence[str], folders: Sequence[str], host: str, port: int) -> list[str]:
    return [*program, "serve", *folders, "--host", host, "--port", str(port)]
