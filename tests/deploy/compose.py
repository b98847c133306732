"""docker-compose.yml as tests read it; they start its command lines as plain processes."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


def document() -> dict[str, Any]:
    """The whole file, its anchors resolved."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = document()["services"]
    return found


def command(service: Mapping[str, Any]) -> list[str]:
    """The command line of a service."""
    return [*service.get("entrypoint", ()), *service["command"]]


def health(service: Mapping[str, Any], ports: Mapping[int, int]) -> list[str]:
    """The command line of a service's health check, for the ports that a test has it listen on."""
    first, *words = service["healthcheck"]["test"]
    assert first == "CMD"
    text = [sys.executable if word == "python" else word for word in words]
    for port, other in ports.items():
        assert any(str(port) in word for word in text), port
        text = [re.sub(rf"\b{port}\b", str(other), word) for word in text]
    return text


def filled(text: str, variables: Mapping[str, str]) -> str:
    """A value of the file with its variables in place, as Compose fills them in."""

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        return variables.get(name) or (default if kind == "-" else variables[name])

    return VARIABLE.sub(value, text)
