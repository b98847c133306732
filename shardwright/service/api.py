"""The API: what a curation is, its records, searches, queries, and its shards for training."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from shardwright.errors import UserError
from shardwright.metadata.compare import compare
from shardwright.metadata.explain import explain
from shardwright.metadata.filelist import ListedFile, read_file_list
from shardwright.metadata.layout import complete
from shardwright.metadata.query import plain
from shardwright.service import browse, models, overview
from shardwright.service.items import neighbours, present, read_items
from shardwright.service.library import Held, Library
from shardwright.service.sql import QueryPool

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": models.Problem, "description": description}
    for status, description in (
        (400, "What is asked for cannot be"),
        (401, "No token, or a wrong one"),
        (403, "A page of another site asks"),
        (404, "There is no such thing"),
        (413, "The body is too long"),
        (429, "Too many requests"),
    )
}
_CROISSANT = 'application/ld+json; profile="http://mlcommons.org/croissant/1.1"'

router = APIRouter(prefix="/api", responses=REFUSALS)


def library(request: Request) -> Library:
    """The curations of the service."""
    found: Library = request.app.state.library
    return found


def curation(
    request: Request, name: Annotated[str, Path(max_length=200, description="Of a curation")]
) -> Held:
    """The curation that an address names."""
    held = library(request).get(name)
    if held is None:
        raise HTTPException(404, f"{name}: there is no such curation")
    return held


Library_ = Annotated[Library, Depends(library)]
Curation = Annotated[Held, Depends(curation)]
RecordId = Annotated[str, Path(max_length=64, pattern="^[0-9a-f]+$")]


@router.get("/curations")
def curations(held: Library_) -> list[models.CurationEntry]:
    """Lists the curations."""
    found = (held.get(name) for name in held.names)
    return [_entry(one) for one in found if one is not None]


@router.get("/curations/{name}")
def describe(held: Curation) -> models.CurationDetail:
    """Describes a curation in a few numbers."""
    with held.cursor() as connection:
        totals = overview.totals(held.layout, connection)
    return models.CurationDetail(
        **_entry(held).model_dump(),
        seen=totals.seen,
        rejected=totals.rejected,
        tables={manifest.table: manifest.rows for manifest in held.layout.manifests()},
        splits=[models.SplitEntry(**asdict(split)) for split in overview.splits(held.layout)],
        search=held.searchable,
        presence=held.presence.kinds,
        recipe=held.shown_recipe,
    )


@router.get(
    "/curations/{name}/croissant",
    response_class=Response,
    responses={200: {"content": {"application/ld+json": {"schema": {"type": "object"}}}}},
)
def croissant(held: Curation) -> Response:
    """The Croissant metadata as JSON-LD."""
    complete(held.layout)
    return Response(held.layout.croissant.read_bytes(), media_type=_CROISSANT)


@router.get("/curations/{name}/funnel")
def funnel(held: Curation) -> list[models.FunnelStep]:
    """What became of every input, in the order of the stages."""
    with held.cursor() as connection:
        return [models.FunnelStep(**asdict(step)) for step in overview.funnel(connection)]


@router.get("/curations/{name}/records")
def records(
    held: Curation,
    keep: bool | None = None,
    stage: Annotated[str | None, Query(max_length=64)] = None,
    reason: Annotated[str | None, Query(max_length=64)] = None,
    language: Annotated[str | None, Query(max_length=64)] = None,
    label: Annotated[str | None, Query(max_length=200)] = None,
    cluster: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    path: Annotated[str | None, Query(max_length=500)] = None,
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> models.RecordPage:
    """Records by what is known of them, in the order of their ids, a page at a time."""
    wanted = browse.Filter(keep, stage, reason, language, label, cluster, path)
    with held.cursor() as connection:
        page = browse.page(held.layout, connection, wanted, after=after, limit=limit)
    return models.RecordPage(records=[plain(row) for row in page.rows], next=page.next)


@router.get("/curations/{name}/records/{record_id}")
def record(held: Curation, record_id: RecordId) -> dict[str, Any]:
    """One record's life: where it came from, its scores, what was decided, where it went."""
    found: dict[str, Any] = plain(explained(held, record_id))
    return found


@router.post("/curations/{name}/neighbours")
def search(held: Curation, asked: models.Search) -> models.Neighbours:
    """The records whose vectors are nearest to that of a text, an image or a record."""
    (item,) = read_items(held, [asked.item])
    found = neighbours(held, item, asked.k, kept=asked.kept)
    recall = held.index(kept=asked.kept).recall
    return models.Neighbours(neighbours=found, recall=None if recall is None else recall.mean)


@router.post("/curations/{name}/presence")
def presence(held: Curation, asked: models.PresenceRequest) -> models.PresenceAnswer:
    """Whether items are in the data already: equal, normalised, nearly, by their vectors."""
    found = present(held, read_items(held, asked.items), asked.semantic)
    kinds = [*held.presence.kinds, *(["semantic"] if asked.semantic is not None else [])]
    return models.PresenceAnswer(kinds=kinds, items=found)


@router.post("/curations/{name}/query")
def query(request: Request, held: Curation, asked: models.Query) -> models.QueryAnswer:
    """Answers one SELECT over the tables, within bounds of time, memory and rows."""
    pool: QueryPool = request.app.state.queries
    return models.QueryAnswer(**asdict(pool.answer(held.layout.root, asked.sql)))


@router.get("/curations/{name}/shards")
def shards(held: Curation) -> list[models.ShardEntry]:
    """The files of the shards; ``/data/NAME/shards/`` and the path is where each is."""
    listed = read_file_list(held.layout.shards)
    files: tuple[ListedFile, ...] = () if listed is None else listed.files
    return [models.ShardEntry(**asdict(file)) for file in files]


@router.get("/compare")
def compared(
    held: Library_,
    a: Annotated[str, Query(max_length=200)],
    b: Annotated[str, Query(max_length=200)],
) -> dict[str, Any]:
    """What changed from one curation to another, and why."""
    sides = [held.get(name) for name in (a, b)]
    for name, side in zip((a, b), sides, strict=True):
        if side is None:
            raise HTTPException(404, f"{name}: there is no such curation")
    folders = [side.layout.root for side in sides if side is not None]
    found: dict[str, Any] = plain(asdict(compare(*folders)))
    found["a"]["folder"], found["b"]["folder"] = a, b  # no path of this machine
    return found


def explained(held: Held, record_id: str) -> dict[str, Any]:
    """A record's life.

    Raises:
        HTTPException: There is no such record.
    """
    try:
        with held.cursor() as connection:
            nearest = held.nearest_kept if held.exact else None
            return explain(held.layout, record_id, connection, held.rows, nearest)
    except UserError:
        raise HTTPException(404, f"{record_id}: no record of {held.name} has this id") from None


def _entry(held: Held) -> models.CurationEntry:
    with held.cursor() as connection:
        totals = overview.totals(held.layout, connection)
    return models.CurationEntry.model_validate(
        {
            "name": held.name,
            "modality": held.modality,
            "records": totals.records,
            "kept": totals.kept,
            "complete": held.layout.croissant.exists(),
        }
    )
