"""Measures what the stages of the recipes of this repository take, for estimates before a run.

Curates real files, and a quarter of them: the standard library's for ``recipes/code.yaml``, the
pictures of ``make .cache/pictures`` for ``recipes/images.yaml``. What grows with the input and what
does not follow from the two. ``--write`` puts the result where ``--dry-run`` reads it.

    python benchmarks/costs.py [--write]
"""

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from rounds import header

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "shardwright" / "pipelines" / "costs.json"
SIZES = ("bytes", "shuffled", "written")
RECIPES = {
    "code": ("code.yaml", ("duplicates.semantic={threshold: 0.95}",)),
    "image": ("images.yaml", ("clusters.k=10",)),
}
"""Recipes, and what brings in a stage that they leave out."""


def inputs(modality: str, folder: Path) -> list[Path]:
    """Copies real files to a folder and to another one a quarter of them; the folders."""
    if modality == "code":
        top = Path(sysconfig.get_path("stdlib"))
        found = [path for path in top.rglob("*.py") if "site-packages" not in path.parts]
    else:
        top = ROOT / ".cache" / "pictures"
        found = [path for path in top.rglob("*") if path.is_file()]
    folders = [folder / modality / "quarter", folder / modality / "all"]
    for number, path in enumerate(sorted(found)):
        for target in folders if number % 4 == 0 else folders[1:]:
            copy = target / path.relative_to(top)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return folders


def run(recipe: str, source: Path, output: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    """The stages that a curation ran, by name."""
    command = [
        *(str(Path(sys.executable).with_name("shardwright")), "curate"),
        *(str(ROOT / "recipes" / recipe), "--input", str(source), "--output", str(output)),
        *(part for value in settings for part in ("--set", value)),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    stages = json.loads((output / "metrics.json").read_text())["stages"]
    return {stage["stage"]: stage for stage in stages if stage["records"]}


def cost(less: dict[str, Any], more: dict[str, Any], growth: float) -> dict[str, float]:
    """A stage's costs on the larger input, and the seconds of it that do not grow."""
    slope = (more["seconds"] - less["seconds"]) / (growth - 1)  # for as much as the smaller input
    fixed = min(max(less["seconds"] - slope, 0.0), more["seconds"])
    sizes = {name: more[name] for name in SIZES}
    return {"fixed": round(fixed, 3), "seconds": round(more["seconds"], 3), **sizes}


def main() -> None:
    """Measures both recipes and prints or writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": f"{header()[1].split(', Python')[0]} ({header()[0]})"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for modality, (recipe, settings) in RECIPES.items():
            less, more = (
                run(recipe, source, folder / f"{modality}-{number}", settings)
                for number, source in enumerate(inputs(modality, folder))
            )
            growth = more["ingest"]["records"] / less["ingest"]["records"]
            found[modality] = {
                "records": more["ingest"]["records"],
                "bytes": more["ingest"]["bytes"],
                "stages": {
                    stage: cost(less[stage], more[stage], growth) for stage in more if stage in less
                },
            }
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if given.write:
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
