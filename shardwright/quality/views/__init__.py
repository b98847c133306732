"""What a source file looks like to models that know its corpus: surprise, choices, lint.

Names are loaded when first used.
"""

import importlib
from typing import Any

_HOMES = {"Views": "views", "fit": "views", "fold_of": "views"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
