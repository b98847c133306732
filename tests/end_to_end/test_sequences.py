"""The sequences of a curation are the stream of its samples, whoever wrote them, in any runs."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import common
import numpy as np
import pytest
from token_files import END, write_tokenizer
from tokenizers import Tokenizer

import shardwright
from shardwright.errors import UserError
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines import tokenising
from shardwright.pipelines.curate import curate
from shardwright.pipelines.recipe import Recipe, load_recipe
from shardwright.shards.packing import unpack
from shardwright.shards.tokens import Fim, Tokeniser, load_tokenizer

LENGTH = 64
RECIPE = """
name: code
modality: code
source: {{kind: files, uri: {data}}}
embedding: null
index: null
prune: null
shards:
  size: 4KB
  split: {{train: 0.8, validation: 0.2}}
  tokens: {tokens}
"""
STAGES = ("ingest", "prune", "shard")
LANGUAGES = ("Python", "JavaScript")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number in range(60):
        text = f"def f_{number}(a, b):\n    return a + {number} * b  # é {END}\n" * (number % 7 + 1)
        (root / f"module{number}.{'py' if number % 3 else 'js'}").write_text(text)
    (root / "long.py").write_text("total = 0\n" * 2000)  # longer than a file of sequences
    return root


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def recipe(data: Path, tokenizer: Path, *overrides: str, **tokens: Any) -> Recipe:
    values = {"tokenizer": str(tokenizer), "length": LENGTH, "end": END, "fim": 0.5} | tokens
    path = tokenizer.with_name("recipe.yaml")
    path.write_text(RECIPE.format(data=data, tokens=json.dumps(values)))
    return load_recipe(path, overrides)


def make(asked: Recipe, output: Path, *beam: str) -> Path:
    arguments = ("--runner=FnApiRunner", *(beam or ("--direct_num_workers=1",)))
    curate(asked, output, stages=STAGES, beam_arguments=arguments)
    return output


def contents(output: Path) -> dict[str, bytes]:
    """Every file of sequences, and the rows of the table."""
    root = output / "tokens" / "shards"
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "_manifest.json"
    }
    return found | {"places": json.dumps(places(output)).encode()}


def places(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = rows_of(output, "tokens").to_pylist()
    return sorted(rows, key=lambda row: str(row["record_id"]))


def rows_of(output: Path, table: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables(pq.read_table(p) for p in (output / "tables" / table).glob("*.parquet"))


@pytest.fixture(scope="module")
def curated(data: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(recipe(data, tokenizer), tmp_path_factory.mktemp("out") / "curated")


def expected_streams(output: Path, tokenizer: Path) -> dict[str, list[tuple[str, list[int]]]]:
    """Record ids and tokens of each split in the order of its samples."""
    tokeniser = Tokeniser(load_tokenizer(str(tokenizer), END, fim=True), Fim(0.5, "psm", 0))
    rows = rows_of(output, "curated").select(["record_id", "content"]).to_pylist()
    texts = {row["record_id"]: row["content"] for row in rows}
    order = sorted(
        rows_of(output, "shards").to_pylist(), key=lambda row: (row["shard"], row["position"])
    )
    streams: dict[str, list[tuple[str, list[int]]]] = {}
    for row in order:
        name = row["record_id"]
        tokens = tokeniser.encode([name], [texts[name]])[0].tolist()
        streams.setdefault(row["split"], []).append((name, tokens))
    return streams


def test_sequences_are_the_stream_of_the_samples(curated: Path, tokenizer: Path) -> None:
    counts = json.loads((curated / "tokens/shards/counts.json").read_bytes())["splits"]
    starts = {row["record_id"]: row for row in places(curated)}
    streams = expected_streams(curated, tokenizer)
    assert set(streams) == {"train", "validation"}
    for split, documents in streams.items():
        stream = [token for _, tokens in documents for token in tokens]
        samples = list(shardwright.dataset(curated / "tokens", split, shuffle=False))
        flat = np.concatenate([np.frombuffer(sample["tokens"], "<i4") for sample in samples])
        assert flat[: len(stream)].tolist() == stream
        assert len(flat) == -(-len(stream) // LENGTH) * LENGTH
        assert set(flat[len(stream) :].tolist()) <= {stream[-1]}  # end tokens fill it up
        found = [name for sample in samples for name in sample["record_ids"].split()]
        assert list(dict.fromkeys(found)) == [name for name, _ in documents]
        before = 0
        for name, tokens in documents:
            row = starts[name]
            assert (row["sequence"], row["start"]) == divmod(before, LENGTH)
            assert (row["split"], row["tokens"]) == (split, len(tokens))
            before += len(tokens)
        said = counts[split]
        assert (said["records"], said["tokens"]) == (len(documents), len(stream))
        assert (said["sequences"], said["filled"]) == (len(samples), len(flat) - len(stream))
        assert sum(each["tokens"] for each in said["languages"].values()) == len(stream)
        assert {"Python", "JavaScript"} <= set(said["languages"])


def test_files_stay_within_their_size(curated: Path) -> None:
    files = list((curated / "tokens/shards").glob("*/*.mds"))
    assert len(files) > 4
    assert max(path.stat().st_size for path in files) <= 4000


def test_loader_collates_sequences(curated: Path) -> None:
    from torch.utils.data import DataLoader

    curation = shardwright.open(curated)
    dataset = curation.tokens("train", batch_size=4, seed=3)
    batches = list(DataLoader(dataset, batch_size=4))
    stored = list(curation.tokens("train", batch_size=4, seed=3, transform=None))
    assert stored == list(shardwright.dataset(curated / "tokens", batch_size=4, seed=3))
    assert {batch[name].shape for batch in batches for name in ("tokens", "positions")} == {
        (4, LENGTH)
    }
    for number, sequence in enumerate(stored):
        batch, row = batches[number // 4], number % 4
        unpacked = unpack(sequence)
        assert batch["record_id"][row] == unpacked["record_id"]
        for name in ("tokens", "positions", "documents"):
            assert batch[name][row].tolist() == unpacked[name].tolist()
        ends = np.flatnonzero(np.diff(batch["documents"][row], append=-2)) + 1
        last = np.frombuffer(sequence["boundaries"], "<i4")[1:]
        assert ends[: len(last)].tolist() == last.tolist()
    with pytest.raises(UserError, match="no split 'test'; there are train, validation"):
        curation.tokens("test")


def test_workers_and_parts_do_not_matter(
    curated: Path, data: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "_GROUPED_BYTES", 2000)  # several files a part
    monkeypatch.setattr(tokenising, "_ROWS", 3)
    beam = ("--direct_num_workers=3", "--direct_running_mode=multi_threading")
    asked = recipe(data, tokenizer, "limits.part_bytes=20KB")
    other = make(asked, tmp_path / "out", *beam)
    assert len(list((other / "tables/shards").glob("*.parquet"))) > 2
    assert contents(other) == contents(curated)


def test_run_that_was_cut_off_goes_on(
    curated: Path, data: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = make(recipe(data, tokenizer, length=32), tmp_path / "out")
    listed = (output / "tokens/shards/_manifest.json").read_bytes()
    asked = recipe(data, tokenizer)
    packed = []
    real = tokenising.pack

    def pack(*arguments: Any) -> Any:
        packed.append(arguments[1])
        if len(packed) == 3:
            raise OSError("cut off")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tokenising, "pack", pack)
        with pytest.raises(Exception, match="cut off"):
            make(asked, output)
    assert (output / "tokens/shards/_manifest.json").read_bytes() == listed  # as it was
    with monkeypatch.context() as patch:  # what was tokenised is not tokenised again
        patch.setattr(tokenising.Tokeniser, "encode", None)
        make(asked, output)
    assert contents(output) == contents(curated)
    assert os.listdir(output / ".staging") in (["lock"], ["lock", "duckdb"], ["duckdb", "lock"])


def test_shards_stay_whatever_becomes_of_the_sequences(
    data: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = make(recipe(data, tokenizer), tmp_path / "out")
    shards, tokens = output / "shards/_manifest.json", output / "tokens/shards/_manifest.json"
    before, first = shards.read_bytes(), tokens.read_bytes()
    make(recipe(data, tokenizer), output)
    assert (shards.read_bytes(), tokens.read_bytes()) == (before, first)
    make(recipe(data, tokenizer, fim=0.0, length=32), output)
    assert shards.read_bytes() == before
    assert tokens.read_bytes() != first
    samples = list(shardwright.dataset(output / "tokens", "train"))
    assert {len(sample["tokens"]) for sample in samples} == {4 * 32}
    make(recipe(data, tokenizer, "shards.tokens=null"), output)
    assert shards.read_bytes() == before
    assert not (output / "tokens").exists()
    assert not (output / "tables/tokens").exists()


def streams(output: Path) -> dict[str, str]:
    """The text of all sequences of each split, one behind the other."""
    known = Tokenizer.from_file(str(output / "tokens/shards/tokenizer.json"))
    found = {}
    for split in ("train", "validation"):
        samples = list(shardwright.dataset(output / "tokens", split, shuffle=False))
        flat = np.concatenate([np.frombuffer(sample["tokens"], "<i4") for sample in samples])
        found[split] = known.decode(flat.tolist(), skip_special_tokens=False)
    return found


def test_record_that_is_taken_out_leaves_the_sequences(
    curated: Path, data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """What is left is what a curation gives that never had the record."""
    output = Path(shutil.copytree(curated, tmp_path / "out"))
    arguments = ("--runner=FnApiRunner", "--direct_num_workers=1")
    curate(recipe(data, tokenizer), output, beam_arguments=arguments)
    assert verify(Layout(output)) == []
    before, version = contents(output), json.loads((output / "croissant.json").read_text())
    cursor = {s: shardwright.open(output).tokens(s).cursor(8) for s in ("train", "validation")}
    listed, counted = output / "tokens/shards/_manifest.json", "counts.json"
    fingerprint = json.loads(listed.read_text())["fingerprint"]

    rows = [row for row in rows_of(output, "curated").to_pylist() if row["split"] == "train"]
    order = {row["record_id"]: row["sequence"] for row in places(output)}
    rows.sort(key=lambda row: order[row["record_id"]])
    gone = [next(row for row in rows if row["language"] == language) for language in LANGUAGES]
    gone.append(next(row for row in rows[len(rows) // 2 :] if row not in gone))
    marks = [row["content"].partition("(")[0] + "(" for row in gone]  # def f_<number>(
    assert all(mark in streams(output)["train"] for mark in marks)
    names = tmp_path / "list.csv"
    names.write_text("path\n" + "\n".join(row["path"] for row in gone))
    asked = recipe(data, tokenizer, f"opt_out={names}")
    summary = curate(asked, output, beam_arguments=arguments)
    assert summary is not None
    common.assert_accounted(output, summary)
    assert summary.dropped == {"opt_out": 3}
    assert verify(Layout(output)) == []
    after = contents(output)

    ids = {row["record_id"] for row in gone}
    assert ids.isdisjoint(row["record_id"] for row in places(output))
    assert not any(mark in text for mark in marks for text in streams(output).values())
    for path in (output / "tokens").rglob("*"):
        assert path.is_dir() or not any(name.encode() in path.read_bytes() for name in ids), path
    fresh_data = Path(shutil.copytree(data, tmp_path / "data"))
    for row in gone:
        (fresh_data / row["path"]).unlink()
    fresh = make(recipe(fresh_data, tokenizer), tmp_path / "fresh")
    assert after == contents(fresh)
    was, now = (json.loads(found[counted])["splits"]["train"] for found in (before, after))
    for language in LANGUAGES:
        lost = [row for row in gone if row["language"] == language]
        assert now["languages"][language]["records"] == (
            was["languages"][language]["records"] - len(lost)
        )

    assert json.loads(listed.read_text())["fingerprint"] != fingerprint
    assert json.loads((output / "croissant.json").read_text())["version"] != version["version"]
    with pytest.raises(UserError, match="dataset_sha256"):
        shardwright.open(output).tokens("train").resume(cursor["train"])
    shardwright.open(output).tokens("validation").resume(cursor["validation"])  # lost none
    kept = [name for name in before if name.startswith("validation/")]
    assert [before[name] for name in kept] == [after[name] for name in kept]
    make(recipe(data, tokenizer), output)
    assert contents(output) == before


def test_mistakes_are_told(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such tokenizer"):
        make(recipe(data, tmp_path / "nothing.json"), tmp_path / "out")
    output = make(recipe(data, tokenizer, "shards.tokens=null"), tmp_path / "without")
    with pytest.raises(UserError, match=r"no sequences of tokens; give shards\.tokens"):
        shardwright.open(output).tokens()
    asked = recipe(data, tokenizer, "modality=image")
    with pytest.raises(UserError, match=r"shards.tokens: image"):
        tokenising.check_tokens(asked)
