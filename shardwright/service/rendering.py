"""Templates of pages. What comes from data is bounded by a filter and escaped by the template."""

import base64
import functools
import hashlib
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from shardwright.service.text import block, duration, number, percent, shown, size

STATIC: Final = Path(__file__).parent / "static"


def rendered(template: str, **values: object) -> str:
    """A template of this package, filled in."""
    return _environment().get_template(template).render(values)


@functools.cache
def static(name: str) -> str:
    """A file of this package that pages hold or ask for."""
    return (STATIC / name).read_text("utf-8")


def source_hash(script: str) -> str:
    """How a content security policy names a script that stands in the page."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("shardwright.service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "block": block,
        "duration": duration,
        "number": number,
        "percent": percent,
        "shown": shown,
        "size": size,
    }
    environment.globals["static"] = static
    return environment
