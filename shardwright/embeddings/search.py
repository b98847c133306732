"""Search in the indexes of finished curations, whole or filtered, with the recall that it has.

Files are mapped, not read. A search among few records compares with all of them, which is exact.
Among many it is the index's own, with as much more effort as brings the records that pass the
filter to the recall of the recipe: measured when the filter is opened, with queries that are
records that pass it, and with others that do not. Among vectors that lie apart from the query, as
those do that pass a filter which goes with the content, a graph finds less with the same effort.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardwright.embeddings.build import DEEPEST, Int64, ivf_parameters
from shardwright.embeddings.recall import Float32, K, Recall, Truth, reach, steps
from shardwright.errors import DataError, UserError
from shardwright.metadata.catalog import connect, file_literal
from shardwright.metadata.filelist import FileList, read_file_list
from shardwright.metadata.layout import Layout, opened

FEW = 20_000
"""Up to so many records that pass a filter, all of them are compared."""
_ASKED = 200
"""Records that pass a filter with which its recall is measured, and as many that do not."""


class Answer(NamedTuple):
    """What a search found, best first.

    Attributes:
        ids: record ids, objects [q, k]; None where fewer than k records were found.
        similarities: cosines float32 [q, k]; -inf where there is no record.
    """

    ids: npt.NDArray[np.object_]
    similarities: Float32


@dataclass(frozen=True)
class OneIndex:
    """The index of one curation.

    Attributes:
        kind: of the index.
        dimension: of its vectors.
        recall: as measured with the queries that it was tuned on; None where it is exact.
        records: how many it searches.
        ids: their ids by FAISS's row numbers.
        raw: the FAISS index.
        asked: FAISS's parameters of a search; None for what the file says.
        owner: FAISS index that ``raw`` is part of, kept alive.
    """

    kind: str
    dimension: int
    recall: Recall | None
    records: int
    ids: pa.Array
    raw: Any
    asked: Any = None
    owner: Any = None

    def vector(self, record_id: str) -> Float32 | None:
        """See ``SearchIndex.vector``."""
        row = pc.index(self.ids, record_id).as_py()
        return None if row < 0 else _vectors(self, np.array([row]))[0]

    def search(self, vectors: Float32, k: int) -> Answer:
        """See ``SearchIndex.search``."""
        values, rows = self.raw.search(vectors, k, params=self.asked)
        places = pa.array(rows.reshape(-1), mask=rows.reshape(-1) < 0)
        ids = self.ids.take(places).to_numpy(zero_copy_only=False).reshape(rows.shape)
        return Answer(ids, np.where(rows < 0, -np.inf, values).astype(np.float32))


@dataclass(frozen=True)
class SearchIndex:
    """The indexes of one or more curations, searched together."""

    indexes: tuple[OneIndex, ...]

    @property
    def recall(self) -> Recall | None:
        """The lowest recall of them; None where all are exact."""
        measured = [index.recall for index in self.indexes if index.recall is not None]
        return min(measured, key=lambda recall: recall.mean, default=None)

    def vector(self, record_id: str) -> Float32 | None:
        """The vector float32 [d] of a record; None where the indexes do not hold it."""
        found = (index.vector(record_id) for index in self.indexes)
        return next((vector for vector in found if vector is not None), None)

    def __len__(self) -> int:
        return sum(index.records for index in self.indexes)

    def search(self, vectors: npt.NDArray[Any], k: int = 10) -> Answer:
        """Finds the ``k`` most similar records for each vector.

        Args:
            vectors: unit vectors float32 [q, d], of the model that the curation was embedded with.
            k: how many, at least 1.

        Raises:
            ValueError: shapes do not fit, or ``k`` is below 1.
        """
        dimension = self.indexes[0].dimension
        if vectors.ndim != 2 or vectors.shape[1] != dimension:
            raise ValueError(f"vectors have shape {vectors.shape}: they must be [q, {dimension}]")
        if k < 1:
            raise ValueError(f"k is {k}: it must be at least 1")
        rows = np.ascontiguousarray(vectors, np.float32)
        found = [index.search(rows, k) for index in self.indexes]
        ids = np.concatenate([answer.ids for answer in found], axis=1)
        values = np.concatenate([answer.similarities for answer in found], axis=1)
        best = np.argsort(-values, axis=1, kind="stable")[:, :k]
        return Answer(
            np.take_along_axis(ids, best, axis=1), np.take_along_axis(values, best, axis=1)
        )


def open_index(
    *folders: str | Path, where: Mapping[str, str] | None = None, kept: bool = False
) -> SearchIndex:
    """Opens the indexes of finished curations.

    Args:
        folders: outputs of ``shardwright curate``.
        kept: searches only what the curations kept in the end.
        where: values that a record must have: ``split`` of the shards, or text columns of
            ``records`` such as ``language``, ``license`` or ``device_model``.

    Raises:
        UserError: a folder holds no index, a filter names no such column, or the indexes are of
            vectors of different lengths.
        DataError: an index is damaged.
    """
    if not folders:
        raise UserError("open_index: name the --output of at least one curation")
    indexes = tuple(_open(opened(Path(folder)), where or {}, kept) for folder in folders)
    lengths = sorted({index.dimension for index in indexes})
    if len(lengths) > 1:
        raise UserError(f"open_index: vectors of lengths {lengths}; open those of one model")
    return SearchIndex(indexes)


def _open(layout: Layout, where: Mapping[str, str], kept: bool) -> OneIndex:
    faiss: Any = import_module("faiss")
    listed = read_file_list(layout.indexes)
    if listed is None:
        raise UserError(f"{layout.indexes}: no index; run stage 'index' first")
    path, ids = _paths(listed)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise DataError(f"{path}: no FAISS index ({error}); run stage 'index' again") from None
    names = pa.array([], pa.string())
    if ids is not None:
        names = pq.read_table(ids).column("record_id").combine_chunks()
    known = listed.origin.parameters
    recall = Recall(**known["measured"]) if "measured" in known else None
    whole = OneIndex(known["index"], index.d, recall, index.ntotal, names, index)
    if not (where or kept) or ids is None:
        return whole
    return filtered(whole, _rows(layout, ids, where, kept), known.get("recall", 1.0))


def _paths(listed: FileList) -> tuple[Path, Path | None]:
    """The index file and that of its ids; an index of nothing has none."""
    by_format = {file.format: listed.folder / file.path for file in listed.files}
    return by_format["faiss"], by_format.get("parquet")


def _rows(layout: Layout, ids: Path, where: Mapping[str, str], kept: bool) -> Int64:
    """Rows of the index whose records have the wanted values, and are kept if wanted, ascending."""
    records = layout.need("records", "ingest")
    columns = [field.name for field in records.schema if pa.types.is_string(field.type)]
    tables = {"split": "shards"} | dict.fromkeys(columns, "records")
    query = f"SELECT file_row_number FROM read_parquet({file_literal(ids)}, file_row_number = true)"
    for column in where:
        if column not in tables:
            raise UserError(
                f"where: no column {column!r} to filter by; there are {', '.join(sorted(tables))}"
            )
        table = layout.need(tables[column], "shard" if column == "split" else "ingest").table
        passing = f'SELECT record_id FROM {table} WHERE "{column}" = ?'
        query += f" SEMI JOIN ({passing}) USING (record_id)"
    used = {tables[column] for column in where}
    if kept:
        used.add(layout.need("decisions", "prune").table)
        query += " SEMI JOIN (SELECT record_id FROM decisions WHERE keep) USING (record_id)"
    try:
        with connect(layout, tables=sorted(used)) as connection:
            found = connection.sql(query, params=list(where.values())).to_arrow_table()
    except duckdb.IOException as error:
        raise DataError(f"{error}; shardwright verify says what is wrong") from None
    return np.sort(found["file_row_number"].to_numpy().astype(np.int64))


def filtered(index: OneIndex, rows: Int64, target: float) -> OneIndex:
    """The index with its answers confined to some rows, ascending.

    Where they are more than ``FEW`` and the index is approximate, the effort of its searches is
    raised until their recall reaches the target, for queries like the records that pass and for
    queries like those that do not; where no effort does, the rows are compared one by one. The
    recall of the answer is the lower of the two.
    """
    exact = _exact(index, rows)
    if len(rows) <= FEW or index.kind == "flat":
        return exact
    rng = np.random.default_rng(0)
    asked = np.sort(rng.choice(rows, _ASKED, replace=False))
    others = np.setdiff1d(rows, asked)
    queries = [_vectors(index, asked)]
    outside = np.delete(np.arange(index.raw.ntotal), rows)
    if len(outside):  # where they are fewer, some are asked twice
        drawn = rng.choice(outside, _ASKED, replace=len(outside) < _ASKED)
        queries.append(_vectors(index, np.sort(drawn)))
    truth = Truth(np.concatenate(queries))
    known = _exact(index, others)
    truth.join(known.raw.search(truth.queries, K, params=known.asked)[0].astype(np.float64))
    selector = _selector(others, index.raw.ntotal)

    def search(effort: int) -> Float32:
        wanted = _asked(index, effort, selector)
        found: Float32 = index.raw.search(truth.queries, K, params=wanted)[0]
        return found

    efforts = steps(DEEPEST if index.kind == "hnsw" else _inverted(index).nlist)
    effort, recall = reach(search, efforts, truth, target, len(queries))
    if recall.mean < target:  # a graph whose ways lead through records that do not pass
        return exact
    wanted = _asked(index, effort, _selector(rows, index.raw.ntotal))
    return replace(index, recall=recall, records=len(rows), asked=wanted)


def _exact(index: OneIndex, rows: Int64) -> OneIndex:
    """The same records compared with one by one, but for those that do not pass."""
    faiss: Any = import_module("faiss")
    selector = _selector(rows, index.raw.ntotal)
    if index.kind == "ivf_flat":
        asked, raw = _asked(index, index.raw.nlist, selector), index.raw
    else:
        asked, raw = faiss.SearchParameters(sel=selector), _flat(index)
    return replace(index, recall=None, records=len(rows), raw=raw, asked=asked, owner=index.raw)


def _asked(index: OneIndex, effort: int, selector: Any) -> Any:
    """FAISS's parameters of a search with an effort among selected rows."""
    faiss: Any = import_module("faiss")
    if index.kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
    factor = int(index.raw.k_factor) if index.kind == "ivf_pq" else None
    return ivf_parameters(effort, factor, selector)


def _selector(rows: Int64, total: int) -> Any:
    """FAISS's set of rows, a bit for each."""
    faiss: Any = import_module("faiss")
    passing = np.zeros(total, bool)
    passing[rows] = True
    return faiss.IDSelectorBitmap(np.packbits(passing, bitorder="little"))


def _flat(index: OneIndex) -> Any:
    """The vectors as they are, as a flat index: part of every kind but ``ivf_flat``."""
    faiss: Any = import_module("faiss")
    if index.kind == "hnsw":
        return faiss.downcast_index(index.raw.storage)
    if index.kind == "ivf_pq":
        return faiss.downcast_index(index.raw.refine_index)
    return index.raw


def _inverted(index: OneIndex) -> Any:
    """The inverted file inside."""
    faiss: Any = import_module("faiss")
    if index.kind == "ivf_pq":
        return faiss.downcast_index(index.raw.base_index)
    return index.raw


def _vectors(index: OneIndex, rows: Int64) -> Float32:
    """Vectors float32 [n, d] of some rows."""
    if index.kind == "ivf_flat":
        index.raw.make_direct_map(True)
        found: Float32 = index.raw.reconstruct_batch(rows)
        index.raw.make_direct_map(False)
    else:
        found = _flat(index).reconstruct_batch(rows)
    return found
