"""Imports run downwards only, Beam lives in pipelines alone, and heavy things load when used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "shardwright"
# What each sub-package may import of the others.
MAY_USE = {
    "pipelines": {"service", "quality", "shards", "embeddings", "kernels", "metadata"},
    "service": {"quality", "shards", "embeddings", "kernels", "metadata"},
    "quality": {"embeddings", "kernels", "metadata"},
    "shards": {"embeddings", "kernels", "metadata"},
    "embeddings": {"kernels", "metadata"},
    "kernels": set(),
    "metadata": set(),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    home = path.relative_to(PACKAGE).parts[0]
    used = {name.split(".")[1] for name in imported(path) if name.startswith("shardwright.")}
    if home in MAY_USE:
        assert used & set(MAY_USE) <= MAY_USE[home] | {home}
    if home != "pipelines":
        assert not any(name.split(".")[0] == "apache_beam" for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("shardwright", ["apache_beam", "pyarrow", "torch", "numpy"]),
        ("shardwright.kernels", ["apache_beam", "pyarrow", "duckdb", "faiss", "pydantic"]),
        ("shardwright.quality", ["apache_beam", "pyarrow", "torch", "PIL"]),
        ("shardwright.pipelines.recipe", ["apache_beam", "torch", "pyarrow"]),
        ("shardwright.embeddings.encoder", ["apache_beam", "torch", "faiss"]),
        ("shardwright.pipelines.curate", ["torch", "faiss"]),
    ],
)
def test_importing_is_light(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
