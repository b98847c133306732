"""What the end-to-end tests share: corpora of real files, runs, and comparing outputs."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from shardwright.metadata.croissant_sets import SEAL
from shardwright.metadata.layout import Layout
from shardwright.pipelines.curate import Summary, curate
from shardwright.pipelines.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / ".cache" / "pictures"


def source_files(count: int, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    """The first ``count`` real source files of the environment's site-packages, sorted."""
    found: list[Path] = []
    for folder, folders, names in os.walk(sysconfig.get_path("purelib")):
        folders.sort()
        for name in sorted(names):
            if name.endswith(suffixes):
                found.append(Path(folder) / name)
                if len(found) == count:
                    return found
    raise AssertionError(f"only {len(found)} source files here")


def copy_sources(target: Path, count: int) -> Path:
    """A folder of real source files of several languages, laid out as they were."""
    base = Path(sysconfig.get_path("purelib"))
    for path in source_files(count, (".py", ".h", ".pyi", ".js", ".c", ".cpp")):
        place = target / path.relative_to(base)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return target


def recipe(modality: str, uri: Path, *overrides: str) -> Recipe:
    """The shipped recipe of a modality on a folder, in small parts and shards."""
    name = {"code": "code", "image": "images"}[modality]
    small = ["limits.part_bytes=500KB", "shards.size=1MB", "limits.reject_threshold=0.5"]
    small.append("prune.scores=[]")  # scores of other methods are for tests of them
    if modality == "code":
        small.append("source.exclude=[]")
    return load_recipe(ROOT / "recipes" / f"{name}.yaml", [*small, *overrides], str(uri))


def run(
    modality: str,
    uri: Path,
    output: Path,
    *overrides: str,
    beam: tuple[str, ...] = (),
    **options: Any,
) -> Summary:
    """Curates and returns the summary."""
    arguments = beam or ("--runner=FnApiRunner", "--direct_num_workers=1")
    done = curate(recipe(modality, uri, *overrides), output, beam_arguments=arguments, **options)
    assert done is not None
    return done


def contents(output: Path) -> dict[str, str]:
    """Hash of every table part, shard and index, by path; manifests hold times and stay out."""
    hashes = {}
    for top in ("tables", "shards", "indexes"):
        for path in sorted((output / top).rglob("*")):
            if path.is_file() and not path.name.startswith("_manifest"):
                name = path.relative_to(output).as_posix()
                hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


_TIME = re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]+(Z|\+00:00)?)?")


def croissant_without_times(output: Path) -> dict[str, Any]:
    """The Croissant with every date and time blanked, and without its hash over them."""
    text = (output / "croissant.json").read_text()
    data: dict[str, Any] = json.loads(_TIME.sub("TIME", text))
    del data[SEAL]
    return data


def stage_metrics(output: Path) -> dict[str, dict[str, Any]]:
    """What each stage of the last run did, by stage."""
    stages = json.loads((output / "metrics.json").read_text())["stages"]
    return {stage["stage"]: stage for stage in stages}


def assert_accounted(output: Path, summary: Summary) -> None:
    """seen = records + rejects; records = kept + dropped."""
    layout = Layout(output)
    rows = {m.table: m.rows for m in layout.manifests()}
    assert summary.seen == rows["records"] + rows["rejects"]
    assert rows["records"] == summary.kept + sum(summary.dropped.values())
    assert rows["decisions"] == rows["records"]
    assert rows["curated"] == rows["shards"] == summary.kept


def shardwright(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "shardwright.pipelines.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
