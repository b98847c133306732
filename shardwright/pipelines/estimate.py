"""What a run will take: a model of each stage's cost, fitted on runs that were measured.

A stage takes a fixed time and what grows with the input: its bytes where the stage reads contents,
its records elsewhere. The rates are those of the run before into the same output, where a stage did
all its work, and else those of ``costs.json``, which stand for the machine that it names.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any, Final

from shardwright.metadata.layout import Layout
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.stages.study import STUDIED

_CONTENTS: Final = frozenset({"ingest", "filter", "duplicates", "embed", "score", "shard"})
_LEAST: Final = 200
"""Records of a run whose rates say more than those of another machine."""


@dataclass(frozen=True)
class Estimate:
    """What a stage, or a run, is to take: seconds; bytes read, left for other workers, written."""

    seconds: float
    bytes: float
    shuffled: float
    written: float

    def __str__(self) -> str:
        sizes = (f"{size / 1e6:,.1f} MB" for size in (self.bytes, self.written, self.shuffled))
        return "about {:,.1f} s, reads {}, writes {}, shuffles {}".format(self.seconds, *sizes)


@dataclass(frozen=True)
class _Rate:
    """A stage of a run that was measured, on so many records and bytes of input."""

    fixed: float
    found: Estimate
    records: int
    bytes: int

    def of(self, stage: str, records: int, size: int) -> Estimate:
        more = size / self.bytes if stage in _CONTENTS else records / self.records
        seconds = self.fixed + max(0.0, self.found.seconds - self.fixed) * more
        found = self.found
        return Estimate(seconds, found.bytes * more, found.shuffled * more, found.written * more)


@dataclass(frozen=True)
class Costs:
    """Rates of the stages of a recipe.

    Attributes:
        recipe: The recipe.
        before: Stages of ``metrics.json`` as the run before left it, by name.
    """

    recipe: Recipe
    before: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, recipe: Recipe, layout: Layout) -> "Costs":
        """The costs of a recipe into an output."""
        return cls(recipe, remembered(layout))

    def estimate(self, stage: str, records: int, size: int) -> Estimate | None:
        """What a stage is to take for so many records and bytes of input.

        Returns:
            None where nothing like it was measured: a model of the user's, another modality.
        """
        if stage in self._idle:
            return Estimate(0, 0, 0, 0)
        rate = self._measured(stage) or self._reference.get(stage)
        return None if rate is None else rate.of(stage, records, size)

    @property
    def basis(self) -> str:
        """Whose rates they are, in words."""
        machine = str(json.loads(_costs())["machine"])
        if any(self._measured(stage) for stage in self.before):
            return f"the run before, and for what it left out {machine}"
        return machine

    def _measured(self, stage: str) -> _Rate | None:
        ingest, found = self.before.get("ingest"), self.before.get(stage)
        if ingest is None or found is None or "written" not in found:  # of an earlier version
            return None
        if ingest["records"] < _LEAST or not ingest["bytes"]:
            return None
        if found["reused"] or not found["records"] or not found["written"]:
            return None  # it did not do all its work
        reference = self._reference.get(stage)
        fixed = 0.0 if reference is None else min(reference.fixed, found["seconds"])
        return _Rate(fixed, _estimate(found), ingest["records"], ingest["bytes"])

    @cached_property
    def _reference(self) -> dict[str, _Rate]:
        known = json.loads(_costs())[self.recipe.modality]
        found = {
            stage: _Rate(one["fixed"], _estimate(one), known["records"], known["bytes"])
            for stage, one in known["stages"].items()
        }
        embedding = self.recipe.embedding
        if embedding is not None and not embedding.model.startswith("builtin:"):
            for stage in ("embed", "study", "score"):  # what a model takes is the model's
                found.pop(stage, None)
        return found

    @cached_property
    def _idle(self) -> frozenset[str]:
        """Stages that the recipe leaves out."""
        recipe, prune = self.recipe, self.recipe.prune
        plain = recipe.embedding is None
        methods = set() if prune is None or plain else set(prune.methods(recipe.modality))
        idle = {
            "filter": not recipe.filters,
            "duplicates": not recipe.duplicates.exact and recipe.duplicates.near is None,
            "embed": plain,
            "decontaminate": recipe.decontaminate is None,
            "semantic": recipe.duplicates.semantic is None,
            "index": plain or recipe.index is None,
            "cluster": plain,
            "study": not methods & set(STUDIED),
            "score": not methods,
            "heterogeneity": recipe.heterogeneity is None,
            "evaluate": recipe.evaluate is None,
        }
        return frozenset(stage for stage, out in idle.items() if out)


def remembered(layout: Layout) -> dict[str, dict[str, Any]]:
    """What ``metrics.json`` says of each stage; nothing where it is not there or damaged."""
    try:
        stages = json.loads((layout.root / "metrics.json").read_bytes())["stages"]
        return {stage["stage"]: stage for stage in stages}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def total(estimates: Iterable[Estimate]) -> Estimate:
    """The sum."""
    rows = [(one.seconds, one.bytes, one.shuffled, one.written) for one in estimates]
    return Estimate(*map(sum, zip(*rows, strict=True))) if rows else Estimate(0, 0, 0, 0)


def _estimate(stage: Mapping[str, Any]) -> Estimate:
    return Estimate(*(float(stage[name]) for name in ("seconds", "bytes", "shuffled", "written")))


def _costs() -> str:
    return files("shardwright.pipelines").joinpath("costs.json").read_text()
