"""Which columns of a table, or keys of a JSON line, become what of an input."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from shardwright.errors import UserError
from shardwright.pipelines.sources.names import shown

# Names that public collections use, The Stack's (v1 and v2) first.
_USUAL: dict[str, tuple[str, ...]] = {
    "content": ("content", "text", "code"),
    "image": ("image", "bytes", "image_bytes", "img", "jpg", "jpeg", "png", "webp"),
    "repository": ("max_stars_repo_name", "repo_name", "repository", "repository_name", "repo"),
    "revision": ("max_stars_repo_head_hexsha", "revision_id", "revision", "commit"),
    "license": ("max_stars_repo_licenses", "detected_licenses", "license", "licenses"),
    "language": ("lang", "language", "programming_language"),
    "path": ("max_stars_repo_path", "path", "file_path"),
    "label": ("label",),
}
_PAYLOAD = {"code": "content", "image": "image"}
_FACTS = {
    "code": ("repository", "revision", "license", "language", "path"),
    "image": ("repository", "revision", "path", "label"),
}


@dataclass(frozen=True)
class Columns:
    """What a recipe wants of a table.

    A path column names the file that a row was made from; it goes into the attributes under
    ``path``, where the language is told by it.

    Attributes:
        modality: ``code`` or ``image``.
        mapped: Input column by record column, for what has no usual name.
        keep: Input columns that are carried into the attributes.
    """

    modality: str
    mapped: dict[str, str]
    keep: tuple[str, ...]

    def __post_init__(self) -> None:
        known = (self.payload, *_FACTS[self.modality])
        for name in self.mapped:
            if name not in known:
                raise UserError(
                    f"source.columns: {name!r} is no column that a {self.modality} record takes "
                    f"from a table; use {', '.join(known)}, or source.keep for others"
                )

    @property
    def payload(self) -> str:
        """The record's column that holds the content."""
        return _PAYLOAD[self.modality]

    def resolve(self, present: Collection[str]) -> dict[str, str]:
        """Input column by record column for what is there.

        Raises:
            MissingColumnError: A column that is mapped, kept or needed is absent.
        """
        found: dict[str, str] = {}
        for name in (self.payload, *_FACTS[self.modality]):
            if name in self.mapped:
                found[name] = self.mapped[name]
            else:
                usual = next((column for column in _USUAL[name] if column in present), None)
                if usual is not None:
                    found[name] = usual
        if self.payload not in found:
            raise MissingColumnError(
                f"no column for {self.payload}: none of {', '.join(_USUAL[self.payload])}; "
                f"name it in source.columns"
            )
        for column in (*found.values(), *self.keep):
            if column not in present:
                raise MissingColumnError(f"no column {column!r}")
        return found

    def facts(
        self, found: Mapping[str, str], row: Mapping[str, Any]
    ) -> tuple[dict[str, str | None], dict[str, str]]:
        """What a row says besides its content: an input's fields, and its attributes.

        Args:
            found: Input column by record column.
            row: Values by input column; what is absent is null.
        """
        fields = {
            name: _joined(row.get(column))
            for name, column in found.items()
            if name != self.payload and name != "path"
        }
        attributes: dict[str, str] = {}
        if "path" in found and (path := as_text(row.get(found["path"]))) is not None:
            attributes["path"] = path
        for column in self.keep:
            text = as_text(row.get(column))
            if text is not None:
                attributes[column] = text
        return fields, attributes


class MissingColumnError(Exception):
    """A table lacks a column, or has it in a type that cannot be used."""


def as_text(value: Any) -> str | None:
    """A value as text: text as it is, everything else as JSON."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return shown(value)
    return shown(
        json.dumps(_plain(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    )


def _joined(value: Any) -> str | None:
    """A value as text; a list of texts, as of licenses, with commas."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return shown(", ".join(value)) or None
    return as_text(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(as_text(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return as_text(value) if isinstance(value, bytes | str) else str(value)
