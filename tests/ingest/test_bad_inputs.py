import hashlib

import pyarrow as pa
import pytest
from ingest.bad_inputs import MAX_BYTES, RECORD, Corpus, bad_folder

from shardwright.metadata import schemas
from shardwright.pipelines.ingest import ingest
from shardwright.pipelines.sections import Limits, Source
from shardwright.pipelines.sources import open_source


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return {corpus.name: corpus for corpus in bad_folder(tmp_path_factory.mktemp("bad") / "all")}


NAMES = [
    "files-code",
    "files-image",
    "archive-code",
    "archive-image",
    "parquet-code",
    "parquet-image",
    "jsonl-code",
    "jsonl-image",
    "git-code",
]


def curate(corpus: Corpus, limit: int | None = None) -> dict[str, list[pa.RecordBatch]]:
    source = open_source(Source(kind=corpus.kind, uri=corpus.uri), MAX_BYTES, corpus.modality)
    out = {"records": [], "rejects": []}
    for table, batch in ingest(
        source,
        list(source.units(limit)),
        source_name="bad",
        modality=corpus.modality,
        limits=Limits(decode_seconds=10),
    ):
        batch.validate(full=True)
        out[table].append(batch)
    return out


def outcomes(tables: dict[str, list[pa.RecordBatch]]) -> list[tuple[str, str]]:
    records = [(path, RECORD) for b in tables["records"] for path in b["path"].to_pylist()]
    rejects = [(row["path"], row["reason"]) for b in tables["rejects"] for row in b.to_pylist()]
    return records + rejects


def test_there_are_many_kinds_and_all_have_a_test(corpora):
    assert sorted(corpora) == sorted(NAMES)
    assert sum(len(corpus.expected) for corpus in corpora.values()) > 150


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_every_input_lands_where_it_must(corpora, name):
    corpus = corpora[name]
    tables = curate(corpus)
    assert sorted(outcomes(tables)) == sorted(corpus.expected)
    for batch in tables["records"]:
        assert batch.schema == schemas.records(corpus.modality)
        content = batch[schemas.blob(corpus.modality)].cast(pa.large_binary()).to_pylist()
        hashes = [hashlib.sha256(data).hexdigest() for data in content]
        assert batch["content_sha256"].to_pylist() == hashes
        assert batch["bytes"].to_pylist() == [len(data) for data in content]
        ids = [schemas.record_id("bad", path) for path in batch["path"].to_pylist()]
        assert batch["record_id"].to_pylist() == ids
    for batch in tables["rejects"]:
        assert batch.schema == schemas.REJECTS
        for row in batch.to_pylist():
            assert row["source"] == "bad"
            assert row["stage"] == "ingest"
            assert row["message"]
            assert "\n" not in row["message"]
            assert corpus.uri not in row["message"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_a_limit_counts_inputs_and_takes_the_first(corpora, name, limit):
    everything = curate(corpora[name])
    some = curate(corpora[name], limit)
    total = sum(batch.num_rows for batches in everything.values() for batch in batches)
    seen = sum(batch.num_rows for batches in some.values() for batch in batches)
    assert seen == min(limit, total)
    for table in ("records", "rejects"):
        all_paths = [path for b in everything[table] for path in b["path"].to_pylist()]
        paths = [path for b in some[table] for path in b["path"].to_pylist()]
        assert paths == all_paths[: len(paths)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_gives_the_same(corpora, name):
    assert curate(corpora[name]) == curate(corpora[name])


def test_units_read_one_by_one_give_the_same(corpora):
    for name in ("parquet-code", "archive-code", "jsonl-code", "git-code", "files-code"):
        corpus = corpora[name]
        source = open_source(Source(kind=corpus.kind, uri=corpus.uri), MAX_BYTES, "code")
        units = list(source.units(None))
        alone = [item for unit in units for item in source.read([unit])]
        assert alone == list(source.read(units))
