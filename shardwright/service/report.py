"""The report: one page that shows a curation, with nothing to fetch.

What comes from data is escaped and bounded. The page's security policy lets a browser load nothing
but data URIs and run nothing but the two scripts that draw the map, named by their hashes.
"""

from pathlib import Path

import shardwright
from shardwright.metadata.catalog import connect
from shardwright.metadata.files import write_whole
from shardwright.metadata.layout import Layout
from shardwright.service import overview
from shardwright.service.blocks import PointMap
from shardwright.service.contents import contents
from shardwright.service.rendering import rendered, source_hash, static

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
_SCRIPTS = ("echarts.min.js", "map.js")


def write_report(layout: Layout) -> Path:
    """Writes ``report/index.html`` from whichever tables are there.

    Returns:
        Its path.

    Raises:
        UserError: There are no records.
    """
    path = layout.root / "report" / "index.html"
    recipe = overview.recipe(layout)
    with connect(layout) as connection:
        blocks = list(contents(layout, connection, recipe))
    drawn = any(isinstance(block, PointMap) for block in blocks)
    scripts = [static(name) for name in _SCRIPTS] if drawn else []
    allowed = " ".join(map(source_hash, scripts)) or "'none'"
    curated = layout.manifest("curated")
    page = rendered(
        "report.html",
        name=recipe.get("name", layout.root.name),
        policy=f"{_POLICY}; script-src {allowed}",
        blocks=blocks,
        scripts=scripts,
        content="" if curated is None else curated.content_sha256,
        version=shardwright.__version__,
    )
    write_whole(path, page)
    return path
