"""The pages of the service: what the API gives, for people."""

import base64
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from shardwright.errors import UserError
from shardwright.metadata.compare import compare
from shardwright.service import browse, views
from shardwright.service.addresses import at
from shardwright.service.api import Curation, Library_, RecordId, explained
from shardwright.service.blocks import Block, Field, Heading, Links, Words
from shardwright.service.blocks import Form as FormBlock
from shardwright.service.guard import COOKIE, same_token
from shardwright.service.items import neighbours, present, read_items
from shardwright.service.library import Content, Held
from shardwright.service.models import Item
from shardwright.service.pairs import TABLES, groups, pair
from shardwright.service.pointmap import map_block
from shardwright.service.rendering import rendered
from shardwright.service.settings import Settings

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_MAP = ("echarts.min.js", "map.js")
_GROUPS = 10
_LINKS = ("records", "clusters", "duplicates", "map", "search", "query")
_SQL = "SELECT reason, count(*) AS records FROM decisions GROUP BY reason ORDER BY records DESC"


def page(
    request: Request,
    title: str,
    blocks: Iterable[Block],
    held: Held | None = None,
    *,
    scripts: tuple[str, ...] = (),
    status: int = 200,
) -> HTMLResponse:
    """A page; a curation's has links to its other pages."""
    navigation = [("Curations", "/"), ("Compare", "/compare")]
    if held is not None:
        navigation += [(held.name, at(held.name))]
        navigation += [(name.capitalize(), at(held.name, name)) for name in _LINKS]
    text = rendered(
        "page.html",
        title=title,
        blocks=list(blocks),
        navigation=navigation,
        here=request.url.path,
        scripts=scripts,
    )
    return HTMLResponse(text, status)


@router.get("/")
def front(request: Request, library: Library_) -> HTMLResponse:
    """All curations."""
    return page(request, "Curations", views.catalogue(library))


@router.get("/c/{name}")
def curation(request: Request, held: Curation) -> HTMLResponse:
    """A curation in numbers and pictures."""
    return page(request, held.name, held.contents, held)


@router.get("/c/{name}/records")
def records(request: Request, held: Curation, after: str = "") -> HTMLResponse:
    """Records by what is known of them."""
    known = ("path", "keep", "stage", "reason", "language", "label", "cluster")
    given = {name: request.query_params.get(name, "") for name in known}
    wanted = {name: value for name, value in given.items() if value}
    with held.cursor() as connection:
        found = browse.page(held.layout, connection, _filter(wanted), after=after[:64])
        form = views.filter_form(held, connection, wanted)
    blocks = views.record_table(held, found, wanted, form)
    return page(request, f"{held.name}: records", blocks, held)


def _filter(wanted: dict[str, str]) -> browse.Filter:
    keep, cluster = wanted.get("keep"), wanted.get("cluster")
    if keep not in (None, "true", "false"):
        raise UserError(f"keep={keep}: is true or false")
    if cluster is not None and not (cluster.isdecimal() and int(cluster) < 2**31):
        raise UserError(f"cluster={cluster}: is the number of a cluster")
    texts = {name: wanted.get(name) for name in ("stage", "reason", "language", "label", "path")}
    return browse.Filter(
        None if keep is None else keep == "true",
        cluster=None if cluster is None else int(cluster),
        **texts,
    )


@router.get("/c/{name}/records/{record_id}")
def record(request: Request, held: Curation, record_id: RecordId) -> HTMLResponse:
    """One record from its source to its shard."""
    life = explained(held, record_id)
    return page(request, str(life["path"]), views.record_page(held, record_id, life), held)


@router.get("/c/{name}/clusters")
def clusters(request: Request, held: Curation) -> HTMLResponse:
    """All clusters."""
    held.layout.need("clusters", "cluster")
    with held.cursor() as connection:
        blocks = list(views.cluster_table(held, connection))
    return page(request, f"{held.name}: clusters", blocks, held)


@router.get("/c/{name}/clusters/{cluster}")
def cluster(request: Request, held: Curation, cluster: int) -> HTMLResponse:
    """The records of a cluster."""
    held.layout.need("clusters", "cluster")
    if not 0 <= cluster < 2**31:
        raise HTTPException(404, f"{cluster}: there is no such cluster")
    with held.cursor() as connection:
        blocks = list(views.cluster_page(held, connection, cluster))
    return page(request, f"{held.name}: cluster {cluster}", blocks, held)


@router.get("/c/{name}/duplicates")
def duplicates(
    request: Request, held: Curation, skip: Annotated[int, Query(ge=0, le=2**31)] = 0
) -> HTMLResponse:
    """Groups of duplicates side by side, those with the least similar members first."""
    blocks: list[Block] = [Heading("Duplicates", 1)]
    with held.cursor() as connection:
        found = [
            group
            for table in TABLES
            if held.layout.manifest(table) is not None
            for group in groups(connection, table, _GROUPS, skip)
        ]
    ids = [record_id for group in found for record_id in (group.representative, group.farthest)]
    shown = held.rows.read(ids)
    blocks += [
        pair(group, shown, held.modality, lambda one: at(held.name, "records", one))
        for group in found
    ]
    if not found:
        blocks.append(Words("No more groups of duplicates.", soft=False))
    else:
        blocks.append(Links([("next", at(held.name, "duplicates", skip=skip + _GROUPS))]))
    return page(request, f"{held.name}: duplicates", blocks, held)


@router.get("/c/{name}/map")
def point_map(request: Request, held: Curation) -> HTMLResponse:
    """The map of the records."""
    with held.cursor() as connection:
        block = map_block(
            held.layout,
            connection,
            held.places,
            held.method,
            at(held.name, "map") + "/",
        )
    blocks: list[Block] = [Heading("Map", 1), block]
    return page(request, f"{held.name}: map", blocks, held, scripts=_MAP)


@router.get("/c/{name}/map/{point}")
def point(held: Curation, point: int) -> Response:
    """Leads to the record of a point."""
    found = held.places.record_ids
    if not 0 <= point < len(found):
        raise HTTPException(404, f"{point}: there is no such point")
    return RedirectResponse(at(held.name, "records", found[point].as_py()), 303)


@router.get("/c/{name}/search")
def search(
    request: Request, held: Curation, record: Annotated[str, Query(max_length=64)] = ""
) -> HTMLResponse:
    """Asks what to search for; or what is near a record."""
    blocks: list[Block] = [Heading("Search", 1), _search_form(held, "")]
    if record:
        blocks += _found(held, read_items(held, [Item(record=record)])[0])
    return page(request, f"{held.name}: search", blocks, held)


@router.post("/c/{name}/search")
def searched(
    request: Request,
    held: Curation,
    text: Annotated[str, Form(max_length=1_000_000)] = "",
    image: UploadFile | None = None,
) -> HTMLResponse:
    """What is near a text or an image, and whether it is there already."""
    blocks: list[Block] = [Heading("Search", 1), _search_form(held, text)]
    if held.modality == "image":
        data = b"" if image is None else image.file.read()
        item = Item(image=base64.b64encode(data).decode())
    else:
        item = Item(text=text)
    blocks += _found(held, read_items(held, [item])[0])
    return page(request, f"{held.name}: search", blocks, held)


def _search_form(held: Held, text: str) -> FormBlock:
    field = Field("text", "Code to look for", text, "area")
    if held.modality == "image":
        field = Field("image", "Image to look for", kind="file")
    return FormBlock([field], "Search", post=True)


def _found(held: Held, item: Content) -> list[Block]:
    (copies,) = present(held, [item], None)
    near = neighbours(held, item, 12) if held.searchable else []
    return list(views.search_results(held, near, copies))


@router.get("/c/{name}/query")
def query(request: Request, held: Curation) -> HTMLResponse:
    """Asks for a query."""
    blocks: list[Block] = [Heading("Query", 1), _query_form(_SQL), _tables(held)]
    return page(request, f"{held.name}: query", blocks, held)


@router.post("/c/{name}/query")
def queried(
    request: Request, held: Curation, sql: Annotated[str, Form(max_length=100_000)]
) -> HTMLResponse:
    """A query's rows."""
    blocks: list[Block] = [Heading("Query", 1), _query_form(sql)]
    try:
        result = request.app.state.queries.answer(held.layout.root, sql)
    except UserError as error:
        blocks += [Words(str(error), soft=False), _tables(held)]
        return page(request, f"{held.name}: query", blocks, held, status=400)
    blocks += views.query_result(result)
    return page(request, f"{held.name}: query", blocks, held)


def _query_form(sql: str) -> FormBlock:
    return FormBlock([Field("sql", "SQL over the tables", sql, "area")], "Run", post=True)


def _tables(held: Held) -> Words:
    names = ", ".join(manifest.table for manifest in held.layout.manifests())
    return Words(f"The tables are {names}.")


@router.get("/compare")
def compared(request: Request, library: Library_, a: str = "", b: str = "") -> HTMLResponse:
    """What changed between two curations."""
    choices = [(name, name) for name in library.names]
    fields = [
        Field("a", "from", a or library.names[0], "choice", choices),
        Field("b", "to", b or library.names[-1], "choice", choices),
    ]
    blocks: list[Block] = [Heading("Compare", 1), FormBlock(fields, "Compare")]
    if a and b:
        sides = [library.get(name) for name in (a, b)]
        if None in sides:
            raise HTTPException(404, "there is no such curation")
        folders = [side.layout.root for side in sides if side is not None]
        blocks += views.comparison_page(compare(*folders), (a, b))
    return page(request, "Compare", blocks)


@router.get("/sign-in")
def sign_in(request: Request) -> HTMLResponse:
    """Asks for the token."""
    form = FormBlock([Field("token", "Token", kind="password")], "Sign in", post=True)
    return page(request, "Sign in", [Heading("Sign in", 1), form])


@router.post("/sign-in")
def signed_in(request: Request, token: Annotated[str, Form(max_length=1000)] = "") -> Response:
    """Keeps the token in a cookie that scripts and other sites cannot read."""
    settings: Settings = request.app.state.settings
    if settings.token is not None and not same_token(settings.token, token):
        return page(request, "Sign in", [Words("This is not the token.", soft=False)], status=401)
    answer = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
    return answer
