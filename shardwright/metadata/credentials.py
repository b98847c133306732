"""Keeps credentials out of what is written: of addresses and of options the part that is secret."""

import re
from typing import Any

_USER = re.compile(r"(?<=://)[^/?#\s\"']*@")
_QUERY = re.compile(r"(https?://[^\s?#\"']*)\?[^\s#\"']*", re.IGNORECASE)
_NAME = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|connection_string|(api|access|private)_?key"
)
_HIDDEN = "***"


def without_credentials(text: str) -> str:
    """A text whose addresses have no user and password, and on the web no query (a signature)."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def recipe_without_credentials(recipe: dict[str, Any]) -> dict[str, Any]:
    """A resolved recipe as it may be written: addresses, and what Beam's options give.

    Args:
        recipe: Plain values, as JSON has them.
    """
    shown: dict[str, Any] = _shown(recipe)
    runner = recipe.get("runner") or {}
    return {**shown, "runner": {job: _options(given) for job, given in runner.items()}}


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, dict):
        return {key: _shown(below) for key, below in value.items()}
    return [_shown(below) for below in value] if isinstance(value, list) else value


def _options(given: list[str]) -> list[str]:
    """Arguments; the values are hidden of those whose name says that they are secret."""
    shown = []
    value_is_next = False
    for argument in given:
        name, equals, _ = argument.partition("=")
        is_name = argument.startswith("-")
        secret = is_name and _NAME.search(name.lower().replace("-", "_")) is not None
        if value_is_next and not is_name:
            shown.append(_HIDDEN)
        elif secret and equals:
            shown.append(f"{name}={_HIDDEN}")
        else:
            shown.append(without_credentials(argument))
        value_is_next = secret and not equals
    return shown
