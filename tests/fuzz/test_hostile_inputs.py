"""Inputs that were made to hang, to fill the memory, or to lose what stands behind them."""

import gzip
import json
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.archives import tar_of, zip_of
from fuzz.seeds import datasets

from shardwright.errors import UserError
from shardwright.pipelines.recipe import load_recipe
from shardwright.pipelines.sections import Source
from shardwright.pipelines.sources import Input, Refusal, open_source, tars
from shardwright.pipelines.sources.croissant_document import below, lineage_document, shown_address
from shardwright.pipelines.sources.names import Globs

pytestmark = pytest.mark.timeout(120)  # a hang fails

CODE = {"a.py": b"a = 1\n", "b.py": b"b = 2\n"}
BOMB = "b0: &b0 x\n" + "".join(f"b{i}: &b{i} [*b{i - 1}, *b{i - 1}]\n" for i in range(1, 40))
SMALL = "name: n\nmodality: code\nsource: {kind: files, uri: data}\n"


def read(path: Path, kind: str = "archive", **settings: object) -> list[Input | Refusal]:
    source = open_source(Source(kind=kind, uri=str(path), **settings), 100_000, "code")
    return list(source.read(list(source.units(None))))


def outcomes(items: list[Input | Refusal]) -> list[str]:
    return [i.path.rpartition("!")[2] if isinstance(i, Input) else i.reason for i in items]


def extended(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header of a tar with whatever records."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = kind, len(body)
    return info.tobuf() + body + bytes(-len(body) % 512)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "body",
    [
        b"7" * 900_000,
        b"900010 path=" + b"7" * 899_997 + b"\n",
        b"11 " * 300_000 + b"=",
        b"0 a=b\n",
        b"99 a=b\n",
    ],
    ids=["digits", "digits-in-a-value", "keys-without-end", "no-length", "beyond"],
)
def test_records_of_a_tar_that_are_none(tmp_path: Path, body: bytes) -> None:
    path = written(tmp_path / "a.tar", extended(body) + tar_of(CODE))
    tracemalloc.start()
    assert outcomes(read(path)) == ["unreadable_archive"]
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_true_records_of_a_tar_are_read(tmp_path: Path) -> None:
    names = {"ü" * 150 + ".py": b"a = 1\n", **CODE}
    path = written(tmp_path / "a.tar", tar_of(names, tarfile.PAX_FORMAT))
    assert outcomes(read(path)) == list(names)


@pytest.mark.parametrize("kind", [tarfile.XGLTYPE, tarfile.XHDTYPE])
def test_headers_that_add_up_are_refused(tmp_path: Path, kind: bytes) -> None:
    record = b"60000 comment=" + b"x" * 59_985 + b"\n"
    between = tar_of({"a.py": b""})[:512] if kind == tarfile.XGLTYPE else b""
    path = written(tmp_path / "a.tar", (extended(record, kind) + between) * 40 + tar_of(CODE))
    assert outcomes(read(path))[-1] == "unreadable_archive"


def test_a_lost_header_of_a_tar_is_told(tmp_path: Path) -> None:
    data = bytearray(tar_of(CODE))
    data[1024:1536] = bytes(512)  # that of b.py
    assert outcomes(read(written(tmp_path / "a.tar", data))) == ["a.py", "unreadable_archive"]
    squeezed = written(tmp_path / "b.tar.gz", gzip.compress(data))
    assert outcomes(read(squeezed)) == ["a.py", "unreadable_archive"]


def test_an_archive_behind_another_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", tar_of(CODE) + tar_of({"c.py": b""}))
    assert outcomes(read(path)) == ["a.py", "b.py", "unreadable_archive"]


def test_a_bomb_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_BOMB_BYTES", 1_000_000)
    path = tmp_path / "a.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        for name, size in (("a.py", 10), ("b.py", 20_000_000), ("c.py", 10)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, _Zeros(size))
    found = read(path)
    assert outcomes(found) == ["a.py", "too_large", "unreadable_archive"]
    assert "1,000 times" in found[-1].message


class _Zeros:
    def __init__(self, left: int) -> None:
        self._left = left

    def read(self, size: int) -> bytes:
        taken = min(size, self._left)
        self._left -= taken
        return b"\n" * taken


def test_members_of_a_zip_that_share_bytes(tmp_path: Path) -> None:
    data = zip_of({"a.py": b"a = 1\n" * 100, "b.py": b"a = 1\n" * 100})
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    shared = data[: entry + 42] + bytes(4) + data[entry + 46 :]  # both begin where the first does
    found = read(written(tmp_path / "a.zip", shared))
    assert {item.reason for item in found if isinstance(item, Refusal)} == {"unreadable"}
    assert len(found) == 2
    assert sum(isinstance(item, Input) for item in found) <= 1


def test_a_directory_of_a_zip_that_lists_nothing(tmp_path: Path) -> None:
    members = zip_of(CODE)
    hidden = members[: members.index(b"PK\x01\x02")] + zip_of({})
    assert outcomes(read(written(tmp_path / "a.zip", hidden))) == ["unreadable_archive"]
    assert read(written(tmp_path / "b.zip", zip_of({}))) == []
    behind = written(tmp_path / "c.zip", tar_of(CODE) + zip_of({}))
    assert outcomes(read(behind)) == ["unreadable_archive"]


def test_members_without_a_name(tmp_path: Path) -> None:
    data = zip_of(CODE).replace(b"a.py", b"\0.py")  # zipfile ends a name at its first NUL
    found = read(written(tmp_path / "a.zip", data))
    assert [item.path for item in found] == ["a.zip!", "a.zip!b.py"]
    found = read(written(tmp_path / "b.tar", tar_of({"./": b"x", **CODE})))
    assert outcomes(found) == ["unreadable", "a.py", "b.py"]


def test_a_deep_line_costs_only_itself(tmp_path: Path) -> None:
    deep = b'{"content": "x", "k": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}\n"
    path = written(tmp_path / "a.jsonl", deep + b'{"content": "y"}\n')
    first, second = read(path, "jsonl", keep=["k"])
    assert isinstance(first, Refusal)
    assert first.reason == "invalid_json"
    assert second == Input("a.jsonl#1", b"y")


def test_a_footer_that_contradicts_itself(tmp_path: Path) -> None:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"content": [f"x = {i}" for i in range(77)]}), out)
    data = out.getvalue().to_pybytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    # the first i64 behind the schema is the number of rows, in zigzag: 77 is 0x9a01
    at = data.index(b"\x9a\x01", start)
    assert len(read(written(tmp_path / "whole.parquet", data), "parquet")) == 77
    lying = data[:at] + b"\x98\x01" + data[at + 2 :]
    found = read(written(tmp_path / "a.parquet", lying), "parquet")
    assert [item.reason for item in found if isinstance(item, Refusal)] == ["unreadable_table"]


@pytest.mark.parametrize("pattern", ["**a" * 30 + "b", "*a" * 40 + "b", "[!b]**" * 30 + "x"])
def test_patterns_take_linear_time(pattern: str) -> None:
    assert not Globs((pattern,)).wants("a" * 4000)


@pytest.mark.parametrize(
    ("pattern", "path", "wanted"),
    [
        ("[a-c]*.py", "B.PY", True),
        ("[a-c]*.py", "a/b.py", False),
        ("a[+-9]b", "a.b", True),
        ("a[+-9]b", "a/b", False),
        ("a[!x]b", "a/b", False),
        ("a[^x]b", "ayb", True),
        ("**/é?.[]x]", "d/É1.]", True),
        ("x y\n#&~-.py", "x y\n#&~-.py", True),
    ],
)
def test_patterns_mean_what_they_meant(pattern: str, path: str, wanted: bool) -> None:
    assert Globs((pattern,)).wants(path) is wanted


def croissant(folder: Path, **changes: object) -> Path:
    """The document of files, changed, with its files."""
    document, files = datasets()[4]
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    path = folder / "croissant.json"
    path.write_text(json.dumps({**document, **changes}))
    return path


def with_set(**changes: object) -> dict[str, object]:
    document, _ = datasets()[4]
    first, *rest = document["distribution"]
    return {"distribution": [{**first, **changes}, *rest]}


def test_a_regex_of_a_stranger_takes_linear_time(tmp_path: Path) -> None:
    document, _ = datasets()[4]
    records = json.loads(json.dumps(document["recordSet"]))
    for expression, refused in (("^(([a-z./_0-9])+)+$!", False), ("(?=x)", True), ("(", True)):
        records[0]["field"][1]["source"]["transform"]["regex"] = expression
        path = croissant(tmp_path, recordSet=records)
        if refused:
            with pytest.raises(UserError, match="regex"):
                read(path, "croissant")
        else:
            assert len(read(path, "croissant")) == 4


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (with_set(containedIn={"@id": "set"}), "contained in itself"),
        (with_set(includes=["[z-a]"]), "no glob"),
        ({"a": json.loads("[" * 500 + "]" * 500)}, "values in more than"),
        ({"license": {"name": "\ud800"}}, "surrogates"),
        ({"\ud800": 1}, "surrogates"),
    ],
    ids=["circle", "glob", "deep", "half", "half-a-key"],
)
def test_a_hostile_document_is_refused(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    path = croissant(tmp_path, **changes)
    with pytest.raises(UserError, match=problem):
        read(path, "croissant")


def test_what_a_document_says_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="conformsTo is a b;") as raised:
        read(croissant(tmp_path, conformsTo="a\nb"), "croissant")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "..", "../a", "/a", "a/../../b", ""])
def test_names_that_lead_nowhere(name: str) -> None:
    assert below(name) is None


def test_addresses_are_told_without_credentials(tmp_path: Path) -> None:
    assert shown_address("http://u:p@[::1/x?sig=1#y") == "http://[::1/x"
    address = "https://me:pass@host/a.bin?sig=1"
    listed = [{"@type": "cr:FileObject", "@id": "x", "contentUrl": address}]
    text = lineage_document(str(croissant(tmp_path, distribution=listed)))
    assert '"https://host/a.bin"' in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "anchors"),
        ("a: " + "[" * 5000 + "]" * 5000, "deep"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50"),
        ("a: " + "x" * 1_000_001, "1,000,000 bytes"),
        ("a: 0x" + "f" * 5000, "64 bits"),
        (SMALL + "limits: {max_bytes: " + "9" * 400 + "TB}", "1000TB"),
        (SMALL + "limits: {max_bytes: 1e300}", "max_bytes"),
        (SMALL + "limits: {max_bytes: 9000000000000000000}", "max_bytes"),
        (SMALL + "modalities: [" + "x, " * 5000 + "x]", "no such key"),
        (SMALL.replace("code", "[" + "x, " * 5000 + "x]"), "modality"),
        (SMALL + "filters: [{name: [a, b]}]", "filters"),
        (SMALL + "filters: [" + "x" * 5000 + "]", "filters"),
        (SMALL + 'about: {"\\ud800": 1}', "half a character"),
        ("a: !!bool n", "does not fit"),
        ("a: !!timestamp n", "does not fit"),
        ("a: !!python/object/apply:os.system ['touch ran']", "no valid YAML"),
        ("a: !!python/name:os.system ''", "no valid YAML"),
        ("a: !!python/module:os ''", "no valid YAML"),
    ],
)  # fmt: skip
def test_a_hostile_recipe_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=problem) as raised:
        load_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_an_endless_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="1,000,000 bytes"):
        load_recipe(tmp_path / "recipe.yaml")


def test_hostile_overrides(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(SMALL)
    for override in ("a=" + "[" * 5000, "a=!!python/name:os.system ''", "x" * 5000, "=1"):
        with pytest.raises(UserError) as raised:
            load_recipe(tmp_path / "recipe.yaml", [override])
        assert len(str(raised.value)) < 1000
