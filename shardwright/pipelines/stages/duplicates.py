"""``duplicates``: equal and similar records; of each group one stays.

Records are numbered in the order in which they are preferred for keeping (their *vertex*), those of
earlier curations first. All that follows is arithmetic on these numbers.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from shardwright.errors import UserError
from shardwright.metadata.catalog import name_parts, scan, without_views
from shardwright.metadata.files import fingerprint
from shardwright.metadata.layout import Layout, opened
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import DUPLICATE_SEMANTICS, DUPLICATES, NEAR_LINKS, signatures
from shardwright.pipelines.alive import drop_parameters, drops_query
from shardwright.pipelines.equal_groups import find_alike, group_alike
from shardwright.pipelines.keep import keep_order
from shardwright.pipelines.near import SignPart, sign_tasks
from shardwright.pipelines.near_groups import NearSearch, clear_search
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Duplicates

VERSION = "4"

# A group's id is its content hash (exact) or the id of the record that stays (near).
_DUPLICATES = """
SELECT record_id, kind, group_id, representative_id, similarity::DOUBLE AS similarity
FROM (FROM exact_rows UNION ALL FROM near_rows) ORDER BY kind, group_id, record_id
"""
_LINKS = "SELECT record_id, representative_id FROM near_link_rows ORDER BY record_id"
_SEMANTICS = "SELECT kind, semantics, chosen, removed FROM counts ORDER BY kind, semantics"


@dataclass(frozen=True)
class _Earlier:
    """What an earlier curation says of its kept records, without their contents."""

    records: Manifest
    decisions: Manifest
    signatures: Manifest | None


def run_duplicates(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    records = run.layout.need("records", "ingest")
    settings = run.recipe.duplicates
    for uri in settings.against:
        _refuse_same_ids(run, records, uri)
    signed = _sign(run, records, progress)
    if not settings.exact and settings.near is None:
        run.drop("duplicates")
        run.drop("duplicate_semantics")
        run.drop("near_links")
        return
    _, dropping = drops_query(run, "duplicates")
    found = (_opened(uri, run.recipe, signed) for uri in settings.against)
    # one that is named twice is one
    earlier = list({one.records.folder.resolve(): one for one in found}.values())
    inputs = [records, *dropping, *([] if signed is None else [signed])]
    parameters = {
        **settings.model_dump(mode="json", exclude={"against"}),
        **drop_parameters(run, "duplicates"),
    }
    if earlier:
        parameters["against"] = [
            {name: table.content_sha256 for name, table in vars(one).items() if table is not None}
            for one in earlier
        ]

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        _stack(connection, "stored", [*(one.records for one in earlier), records])
        signatures = [one.signatures for one in earlier if one.signatures is not None]
        if signed is not None:
            signatures.append(signed)
            _stack(connection, "hashed", signatures)
        _find_copies(connection, settings)
        settled = _number(run, connection, records, earlier)
        _exact(connection, settings)
        if settings.near is None or signed is None:
            connection.execute("CREATE VIEW near_rows AS FROM exact_rows WHERE false")
            connection.execute("CREATE VIEW near_link_rows AS FROM exact_rows WHERE false")
            return
        work = fingerprint(
            version=VERSION,
            parameters=parameters,
            inputs={table.table: table.content_sha256 for table in inputs},
        )
        files = [file for table in signatures for file in _part_files(table)]
        NearSearch(run, settings.near, files, settled, work).find(connection, progress)
        _near(connection, settings.near.semantics)

    tables = commit_query(
        run,
        "duplicates",
        VERSION,
        {
            "duplicates": (DUPLICATES, _DUPLICATES),
            "duplicate_semantics": (DUPLICATE_SEMANTICS, _SEMANTICS),
            "near_links": (NEAR_LINKS, _LINKS),
        },
        parameters=parameters,
        inputs=inputs,
        prepare=prepare,
    )
    clear_search(run)  # also what a run left that was cut off
    progress.records = records.rows
    progress.bytes += tables["duplicates"].bytes


def _sign(run: Run, records: Manifest, progress: StageProgress) -> Manifest | None:
    """Commits ``signatures`` if the recipe needs any."""
    started = time.time()
    settings = run.recipe.duplicates
    if not settings.normalise and settings.near is None:
        run.drop("signatures")
        return None
    # near images have no shingles: any number says that they are wanted
    ngram = None if settings.near is None else settings.near.ngram
    if run.recipe.modality == "image" and settings.near is not None:
        ngram = 1
    parameters = {"normalise": sorted(settings.normalise), "ngram": ngram}
    schema = {"signatures": signatures(run.recipe.modality)}
    job = run.plan("sign", schema, sign_tasks(records, parameters))
    work = SignPart(run.recipe.modality, tuple(settings.normalise), ngram)
    run.execute("duplicates", job, work, progress)
    progress.bytes += job.todo_bytes
    origin = run.origin("duplicates", VERSION, parameters, [records], started)
    return run.commit(job, origin)["signatures"]


def check_earlier(recipe: Recipe) -> None:
    """Raises UserError if an earlier curation that the recipe names is not there."""
    for uri in recipe.duplicates.against:
        opened(Path(uri)).need("decisions", "prune")


def _refuse_same_ids(run: Run, records: Manifest, uri: str) -> None:
    """Raises UserError if an earlier curation kept records that have ids of this one.

    A record that an equal id stands for could not be told from one that stands for itself.
    """
    kept = f"FROM {scan(opened(Path(uri)).need('decisions', 'prune'))} WHERE keep"
    with without_views(run.layout) as connection:
        counted = f"SELECT count(*) FROM {scan(records)} SEMI JOIN ({kept}) AS d USING (record_id)"
        same = connection.execute(counted).fetchall()[0][0]
    if same:
        raise UserError(
            f"duplicates.against {uri}: {same} records have the same id there, made of the "
            "source's name and the path; give each crawl a name of its own, as with --set "
            f"source.name={run.recipe.name}-2"
        )


def _opened(uri: str, recipe: Recipe, signed: Manifest | None) -> _Earlier:
    """The tables of an earlier curation.

    Raises:
        UserError: It is not there, not whole, or its signatures are of another kind.
    """
    layout: Layout = opened(Path(uri))
    theirs = layout.manifest("signatures")
    records = layout.need("records", "ingest")
    if records.schema != _schema(recipe):
        raise UserError(f"duplicates.against {uri}: holds no {recipe.modality} records")
    if signed is not None:
        wanted = signed.origin.parameters
        if theirs is None or theirs.origin.parameters != wanted:
            found = (
                "no signatures" if theirs is None else f"signatures of {theirs.origin.parameters}"
            )
            raise UserError(
                f"duplicates.against {uri}: has {found}, and this recipe compares those of "
                f"{wanted}; curate it with the same duplicates.normalise and duplicates.near.ngram"
            )
        if theirs.origin.inputs["records"] != records.content_sha256:
            raise UserError(
                f"duplicates.against {uri}: its signatures are not of the records that it has now; "
                "run all its stages, without --stage"
            )
    return _Earlier(records, layout.need("decisions", "prune"), theirs if signed else None)


def _schema(recipe: Recipe) -> Any:
    from shardwright.metadata.schemas import records

    return records(recipe.modality)


def _stack(connection: duckdb.DuckDBPyConnection, view: str, tables: list[Manifest]) -> None:
    """Makes a view of tables of one schema, with ``part``, counted through all, and ``row``."""
    name_parts(connection, *tables, name=f"{view}_files")
    rows = " UNION ALL ".join(f"FROM {scan(table, positions=True)}" for table in tables)
    connection.execute(
        f"CREATE VIEW {view} AS SELECT part, file_row_number AS row, * FROM ({rows}) "
        f"JOIN {view}_files USING (filename)"
    )


def _number(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    records: Manifest,
    earlier: list[_Earlier],
) -> int:
    """Makes ``numbered(vertex, part, row)``, the live records in order of preference.

    ``part`` and ``row`` are those of ``stored``. Where only copies are asked for, only records that
    are ``alike`` are numbered.

    Returns:
        How many vertices belong to earlier curations; theirs are the lowest.
    """
    connection.execute("CREATE TABLE numbered (vertex BIGINT, part INTEGER, row BIGINT)")
    some = "SEMI JOIN alike a ON a.part = stored_files.part AND a.row = file_row_number"
    if run.recipe.duplicates.near is not None:
        some = ""
    number = (
        "INSERT INTO numbered SELECT {} + row_number() OVER () - 1, part, row FROM ("
        "SELECT stored_files.part, file_row_number AS row FROM {} r "
        f"JOIN stored_files USING (filename) {some} {{}})"
    )
    settled = 0
    for one in earlier:
        kept = (
            f"SEMI JOIN (FROM {scan(one.decisions)} WHERE keep) d ON d.record_id = r.record_id "
            "ORDER BY stored_files.part, row"
        )
        connection.execute(number.format(settled, scan(one.records, positions=True), kept))
        settled = connection.execute("SELECT count(*) FROM numbered").fetchall()[0][0]
    drops, _ = drops_query(run, "duplicates")
    order, join = keep_order(run.recipe.modality, run.recipe.duplicates.keep)
    live = f"{join} ANTI JOIN ({drops}) AS drops ON drops.record_id = r.record_id ORDER BY {order}"
    connection.execute(number.format(settled, scan(records, positions=True), live))
    connection.execute(f"CREATE MACRO is_settled(vertex) AS vertex < {settled}")
    return int(settled)


def _find_copies(connection: duckdb.DuckDBPyConnection, settings: Duplicates) -> None:
    """Makes ``alike``, whatever is equal to another and maybe dropped, if copies are wanted."""
    column, view = "content_sha256", "stored"
    if settings.normalise:
        column, view = "normal_sha256", "hashed"
    wanted = "" if settings.exact else "WHERE false"
    keys = f"SELECT part, row, record_id, {column} AS key FROM {view} {wanted}"
    find_alike(connection, keys, "alike")


def _exact(connection: duckdb.DuckDBPyConnection, settings: Duplicates) -> None:
    """Makes ``exact_rows``, ``counts``, and ``vertices``: those that are no copy of another."""
    group_alike(connection, "alike", "numbered", "copies")
    connection.execute(
        """
        DROP TABLE alike;
        CREATE VIEW exact_rows AS
          SELECT c.record_id, 'exact' AS kind, c.key AS group_id,
            stays.record_id AS representative_id, 1.0::DOUBLE AS similarity
          FROM copies AS c JOIN copies AS stays ON stays.vertex = c.least
          WHERE NOT is_settled(c.vertex);
        CREATE VIEW vertices AS
          FROM numbered ANTI JOIN (SELECT vertex FROM copies WHERE vertex <> least) USING (vertex);
        CREATE TABLE counts AS
          SELECT 'exact' AS kind, 'equal' AS semantics, true AS chosen, count(*) AS removed
          FROM copies WHERE vertex <> least AND NOT is_settled(vertex)"""
    )
    if not settings.exact:
        connection.execute("DELETE FROM counts")


def _near(connection: duckdb.DuckDBPyConnection, semantics: str) -> None:
    """Makes ``near_rows`` of ``groups``, ``near_link_rows``, and adds to ``counts``."""
    connection.execute(
        f"""
        CREATE TABLE named AS
          SELECT vertex, record_id FROM stored JOIN numbered USING (part, row)
          SEMI JOIN (
            SELECT vertex FROM groups UNION SELECT representative FROM groups
            UNION SELECT vertex FROM connected UNION SELECT representative FROM connected)
          USING (vertex);
        CREATE TABLE near_rows AS
          SELECT v.record_id, 'near' AS kind, r.record_id AS group_id,
            r.record_id AS representative_id, g.similarity
          FROM groups g JOIN named v ON v.vertex = g.vertex
            JOIN named r ON r.vertex = g.representative
          UNION ALL
          SELECT DISTINCT r.record_id, 'near', r.record_id, r.record_id, 1.0::DOUBLE
          FROM groups g JOIN named r ON r.vertex = g.representative
          WHERE NOT is_settled(r.vertex);
        CREATE TABLE near_link_rows AS
          SELECT v.record_id, r.record_id AS representative_id
          FROM connected c JOIN named v ON v.vertex = c.vertex
            JOIN named r ON r.vertex = c.representative;
        INSERT INTO counts
          SELECT 'near', semantics, semantics = '{semantics}', removed FROM removed"""
    )


def _part_files(table: Manifest) -> list[Path | None]:
    """The file of each part of a table, in order."""
    return [None if part.file is None else table.folder / part.file for part in table.parts()]
