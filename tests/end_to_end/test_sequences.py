"""The sequences of a curation are the stream of its samples, whoever wrote them, in any runs."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from token_files import END, write_tokenizer

import shardwright
from shardwright.errors import UserError
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

    dataset = shardwright.dataset(curated / "tokens", "train", batch_size=4, transform=unpack)
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["tokens"].shape == (4, LENGTH)
    assert batch["documents"].shape == (4, LENGTH)


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


def test_mistakes_are_told(data: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such tokenizer"):
        make(recipe(data, tmp_path / "nothing.json"), tmp_path / "out")
    asked = recipe(data, tokenizer, "modality=image")
    with pytest.raises(UserError, match=r"shards.tokens: image"):
        tokenising.check_tokens(asked)
