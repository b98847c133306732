"""The section ``about`` of a recipe: what only a person knows of a dataset."""

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from shardwright.errors import UserError
from shardwright.pipelines.section_types import Patterns, Section


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{value!r} is no web address; write it with https://")
    if "@" in parts.netloc:
        raise ValueError("the address holds a user or password, which everyone would read")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[\w.-]+)?(\+[\w.-]+)?", value):
        raise ValueError(f"{value!r} is no semantic version; write it like 1.2.0")
    return value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) else value


def _one_or_more(value: object) -> object:
    """One item for a list of one; a name for a creator."""
    items = value if isinstance(value, list | tuple) else [value]
    return [{"name": item} if isinstance(item, str) else item for item in items]


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _dates(value: object) -> object:
    return [value] if isinstance(value, str | date) else value


Address = Annotated[str, AfterValidator(_web_address)]


class Agent(Section):
    """A person or an organization."""

    name: Annotated[str, Field(min_length=1)]
    type: Literal["person", "organization"] = "organization"
    url: Address | None = None
    email: str | None = None


class About(Section):
    """What stands in the Croissant as it is stated here.

    The description of a field says what it is; ``--strict-metadata`` asks for those that have one.
    """

    description: str | None = Field(
        default=None, description="what the dataset is, in a few sentences"
    )
    license: str | None = Field(
        default=None, description="licence of the whole, best as an address of spdx.org/licenses"
    )
    url: Address | None = Field(default=None, description="web page of the dataset")
    creators: Annotated[tuple[Agent, ...], BeforeValidator(_one_or_more)] = Field(
        default=(),
        description="who made it: names, or {name, type: person or organization, url, email}",
    )
    publisher: Annotated[Agent | None, BeforeValidator(_named)] = Field(
        default=None, description="who publishes it: as a creator"
    )
    version: Annotated[str, BeforeValidator(_text), AfterValidator(_version)] | None = Field(
        default=None, description="semantic version, like 1.2.0"
    )
    keywords: Patterns = Field(default=(), description="a few words to find it by")
    citation: str | None = Field(default=None, description="how to cite it, best as BibTeX")
    collection: str | None = Field(default=None, description="how the raw data was collected")
    collection_type: Patterns = Field(
        default=(), description="kind of collection, like Web Scraping or Others"
    )
    timeframe: Annotated[tuple[date, ...], BeforeValidator(_dates)] = Field(
        default=(), description="first and last day of the collection"
    )
    biases: Patterns = Field(default=(), description="known biases, beside those that are measured")
    limitations: Patterns = Field(
        default=(), description="known limits, beside those that are measured"
    )
    use_cases: Patterns = Field(default=(), description="what it is good for, and what it is not")
    social_impact: str | None = Field(default=None, description="what its use may do to people")
    sensitive_information: Patterns = Field(
        default=(), description="personal and sensitive information in it, or that there is none"
    )
    maintenance: str | None = Field(default=None, description="who keeps it up to date, and how")
    synthetic: bool | None = Field(
        default=None, description="whether any of it is synthetic: true, false"
    )
    missing_data: Patterns = ()
    raw_data: str | None = None
    annotation_protocol: str | None = None
    publish_as: Address | None = None
    croissant: Annotated[Literal["1.0", "1.1"], BeforeValidator(_text)] = "1.1"


def missing(about: About) -> Sequence[tuple[str, str]]:
    """(key, what it is) of everything that strict metadata asks for and nobody stated."""
    return [
        (name, str(field.description))
        for name, field in About.model_fields.items()
        if field.description and getattr(about, name) in (None, "", ())
    ]


def check_metadata(about: About) -> None:
    """Checks that everything is stated that only a person knows.

    Raises:
        UserError: Names all that is missing.
    """
    absent = missing(about)
    if absent:
        lines = "".join(f"\n  about.{name}: {what}" for name, what in absent)
        raise UserError(
            f"--strict-metadata: the recipe leaves out {len(absent)} values; state them:{lines}"
        )
