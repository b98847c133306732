"""Shards as files, for training jobs elsewhere: whole, in ranges, or sent by a server in front."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import FileResponse, Response

from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.manifest import MANIFEST
from shardwright.service.api import REFUSALS, Curation
from shardwright.service.settings import Settings

router = APIRouter(responses=REFUSALS)
_YEAR = "private, max-age=31536000, immutable"
_PARTIAL: dict[int | str, dict[str, Any]] = {
    206: {"description": "The range that was asked for"},
    416: {"description": "No range"},
}


class _File(FileResponse):
    """A file that is read in fewer, longer pieces: each is handed from thread to thread."""

    chunk_size = 2**20


@router.head("/data/{name}/shards/{path:path}", include_in_schema=False)
@router.get("/data/{name}/shards/{path:path}", response_class=FileResponse, responses=_PARTIAL)
def shard_file(
    request: Request, held: Curation, path: Annotated[str, Path(max_length=1000)]
) -> Response:
    """A file of the shards, or their manifest; nothing else of the folder can be named.

    ``shardwright.dataset("http://HOST/data/NAME")`` reads from here.
    """
    settings: Settings = request.app.state.settings
    listed = read_file_list(held.layout.shards)
    if listed is None:
        raise HTTPException(404, f"{held.name}: there are no shards")
    if path == MANIFEST:
        return Response((held.layout.shards / MANIFEST).read_bytes(), media_type="application/json")
    file = next((file for file in listed.files if file.path == path), None)
    if file is None:
        raise HTTPException(404, f"{held.name}: there is no such file of its shards")
    headers = {"ETag": f'"{file.sha256}"', "Cache-Control": _YEAR}
    if settings.sendfile is not None:
        place = quote(f"{settings.sendfile.rstrip('/')}/{held.name}/shards/{path}")
        headers |= {"X-Accel-Redirect": place}
        return Response(headers=headers, media_type="application/octet-stream")
    return _File(held.layout.shards / path, headers=headers, media_type="application/octet-stream")
