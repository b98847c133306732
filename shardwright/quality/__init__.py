"""What is good: checks, duplicates, pruning. Plain functions on plain data, free of Beam.

Names are loaded when first used, so that asking for one of them does not load them all.
"""

import importlib
from typing import Any

_HOMES = {
    "Fault": "faults",
    "check_text": "text",
    "detect_language": "language",
    "ImageFacts": "images",
    "decodable_extensions": "images",
    "decode_image": "images",
    "ImageDecoder": "sandbox",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
