"""What is observed of a record, for ``damage``: one number a view, of texts and of pictures.

Most views say by a high value that something looks damaged. Statistics of lines and characters do
not: they are odd at either end, and are judged by how far they lie from the usual.
"""

from dataclasses import dataclass
from typing import TypeAlias

from shardwright.quality.filters import filters, measure_code, measure_image
from shardwright.quality.views import Views, parsed

Value: TypeAlias = float | None

_STATISTICS = (
    *("mean_line_length", "max_line_length", "alphanumeric_share", "digit_share"),
    "encoded_share",
)
_COMMENTS = "comment_share"
SURPRISE = "cloze"
"""The view that is the perplexity of a text: its mean bits a token."""


@dataclass(frozen=True)
class View:
    """A view.

    Attributes:
        name: Column of ``views``.
        odd: Whether both ends are odd; else only high values are.
    """

    name: str
    odd: bool


def views(modality: str) -> tuple[View, ...]:
    """The views of a modality, in a fixed order."""
    if modality == "image":
        return tuple(View(name, True) for name in _image_names())
    return (
        *(View(name, False) for name in Views(2, {}).names),
        *(View(name, True) for name in (*_STATISTICS, _COMMENTS)),
    )


def observe_text(data: bytes, language: str | None, models: Views, key: str) -> dict[str, Value]:
    """Observes a text.

    Args:
        data: The text, UTF-8.
        language: Its language, or None.
        models: Models of its corpus.
        key: Its id, as it was when the models were fitted: those that read it do not judge it.
    """
    text = parsed.read(data, language)
    measured: dict[str, Value] = {**models.judge(text, models.fold(key))}
    for name, value in measure_code(_STATISTICS, data, language).items():
        assert not isinstance(value, str)
        measured[name] = value
    measured[_COMMENTS] = parsed.comment_share(text)
    return measured


def observe_image(data: bytes) -> dict[str, Value]:
    """Observes an encoded picture."""
    measured: dict[str, Value] = {}
    for name, value in measure_image(_image_names(), data).items():
        assert not isinstance(value, str)
        measured[name] = value
    return measured


def _image_names() -> tuple[str, ...]:
    return tuple(item.name for item in filters("image").values() if item.group == "looks")
