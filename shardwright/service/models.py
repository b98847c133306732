"""What the API takes and gives, as its OpenAPI document describes it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0)]


class Answer(BaseModel):
    """Something that the service gives."""

    model_config = ConfigDict(extra="forbid")


class Request(BaseModel):
    """Something that the service takes; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """Why a request was refused."""

    detail: str


class Health(Answer):
    """That the service answers, and how many curations it has."""

    status: Literal["ok"] = "ok"
    curations: Count


class CurationEntry(Answer):
    """A curation in the list."""

    name: str
    modality: Literal["code", "image"]
    records: Count
    kept: Count | None
    complete: bool


class SplitEntry(Answer):
    """How much a split of the shards holds."""

    name: str
    shards: Count
    samples: Count
    bytes: Count


class CurationDetail(CurationEntry):
    """A curation in a few numbers."""

    seen: Count
    rejected: Count
    tables: dict[str, Count]
    splits: list[SplitEntry]
    search: bool
    presence: list[str]
    recipe: dict[str, Any]


class FunnelStep(Answer):
    """Inputs with one fate."""

    stage: str
    reason: str
    records: Count


class RecordPage(Answer):
    """Some records, and where the next ones begin."""

    records: list[dict[str, Any]]
    next: str | None


class Item(Request):
    """Something that may be in the data: exactly one of text, image and record."""

    text: Annotated[str, Field(max_length=5_000_000)] | None = None
    image: Annotated[str, Field(max_length=20_000_000, description="Encoded image in base64")] | (
        None
    ) = None
    record: Annotated[str, Field(max_length=64, description="Id of a record")] | None = None
    language: Annotated[str, Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Item":
        given = [value for value in (self.text, self.image, self.record) if value is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of text, image and record")
        return self


class Search(Request):
    """A search for what is near."""

    item: Item
    k: Annotated[int, Field(ge=1, le=100)] = 10
    kept: bool = False


class Neighbour(Answer):
    """A record, and the cosine of its vector with that of the item."""

    record_id: str
    path: str
    similarity: float


class Neighbours(Answer):
    """The nearest records, best first.

    ``recall`` is the share of the true nearest that the index was measured to find; null where it
    compares with all.
    """

    neighbours: list[Neighbour]
    recall: float | None


class PresenceRequest(Request):
    """Items to look for."""

    items: Annotated[list[Item], Field(min_length=1, max_length=64)]
    semantic: Annotated[
        float | None,
        Field(
            gt=0, le=1, description="Cosine from which on a record counts as the same; none if null"
        ),
    ] = None


class Found(Answer):
    """A record that an item is a copy of."""

    kind: Literal["exact", "normalised", "near", "semantic"]
    record_id: str
    path: str
    similarity: float


class PresenceAnswer(Answer):
    """For each item in its order whether it is there, and the records that it is a copy of."""

    kinds: list[str]
    items: list[list[Found]]


class Query(Request):
    """One SELECT over the tables."""

    sql: Annotated[str, Field(min_length=1, max_length=100_000)]


class QueryAnswer(Answer):
    """Rows of a query; ``whole`` is false where there were more than the service gives."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    whole: bool


class ShardEntry(Answer):
    """A file of the shards."""

    path: str
    bytes: Count
    sha256: str
    rows: Count
    format: str
