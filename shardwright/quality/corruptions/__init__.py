"""Damage done on purpose, by name and seed: what detectors of damage are measured with.

Names are loaded when first used; the kinds themselves when the first of them is asked for.
"""

import importlib
from typing import Any

_HOMES = {
    "Corruption": "registry",
    "corruptions": "registry",
    "corrupt_text": "registry",
    "corrupt_image": "images",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
