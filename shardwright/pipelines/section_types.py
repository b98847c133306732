"""What the keys of a recipe's sections are made of: sizes, counts, shares, patterns, names."""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from shardwright.errors import UserError

_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_MOST_BYTES = 10**15  # a few times as many can still be asked of a file
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _parse_bytes(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{value} is no size; write bytes as a number, or like 1MB")
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?B?)\s*", value, re.IGNORECASE)
    unit = match.group(2).upper() if match else None
    if match is None or unit not in _UNITS:
        raise ValueError(
            f"{value[:100]!r} is no size; write bytes as a number, or like 500KB, 1MB, 2GB"
        )
    size = float(match.group(1)) * _UNITS[unit]
    if size > _MOST_BYTES:
        raise ValueError(f"{value[:100]!r} is more than any machine holds; write at most 1000TB")
    return round(size)


def _parse_count(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = str(value)
    match = re.fullmatch(r"\s*(\d*\.?\d+(?:e[+-]?\d+)?)\s*([KMBT]?)\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{value!r} is no count; write a number, or like 300M, 100B, 1.5T")
    return float(match.group(1)) * _COUNTS[match.group(2).upper()]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def known(look_up: Callable[[str], object], name: str) -> str:
    """A name, for a validator: ``look_up`` raises UserError where there is no such thing."""
    try:
        look_up(name)
    except UserError as error:
        raise ValueError(str(error)) from None
    return name


Bytes = Annotated[int, BeforeValidator(_parse_bytes), Field(gt=0, le=_MOST_BYTES)]
Count = Annotated[float, BeforeValidator(_parse_count), Field(gt=0, allow_inf_nan=False)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Values that do not change, and no key that is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)
