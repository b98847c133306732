"""The recipe: what to curate and how, read from YAML and checked before anything runs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from shardwright.errors import UserError
from shardwright.pipelines.about import About
from shardwright.pipelines.grouping import check_grouping
from shardwright.pipelines.quality_sections import Evaluate, Heterogeneity, Prune, Study
from shardwright.pipelines.section_types import Patterns, Section
from shardwright.pipelines.sections import (
    MASKED,
    Clusters,
    Decontaminate,
    Duplicates,
    Embedding,
    Filter,
    Highest,
    Index,
    Limits,
    Shards,
    Source,
)
from shardwright.quality.filters import Filter as Measure
from shardwright.quality.filters import filters
from shardwright.quality.normalise import STEPS


class Recipe(Section):
    """A whole curation. Only ``name``, ``modality`` and ``source`` are required."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^\x00/]+$")]
    modality: Literal["code", "image"]
    source: Source
    limits: Limits = Limits()
    filters: tuple[Filter, ...] = ()
    duplicates: Duplicates = Duplicates()
    embedding: Embedding | None = None
    decontaminate: Decontaminate | None = None
    index: Index | None = Index()
    clusters: Clusters = Clusters()
    study: Study = Study()
    prune: Prune | None = Prune()
    evaluate: Evaluate | None = None
    heterogeneity: Heterogeneity | None = None
    opt_out: Patterns | None = None
    shards: Shards = Shards()
    about: About = About()
    runner: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _defaults_by_modality(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        model = {"code": "builtin:hashing", "image": "builtin:descriptor"}.get(
            str(data.get("modality"))
        )
        if model is not None:
            if "embedding" not in data:
                data = {**data, "embedding": {"model": model}}
            elif isinstance(data["embedding"], dict) and "model" not in data["embedding"]:
                data = {**data, "embedding": {"model": model, **data["embedding"]}}
        return data

    @model_validator(mode="before")
    @classmethod
    def _filters_with_their_bounds(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("filters"), list | tuple):
            return data
        known = filters(str(data.get("modality")))
        return {**data, "filters": [_with_bounds(item, known) for item in data["filters"]]}

    @model_validator(mode="after")
    def _filters_fit(self) -> "Recipe":
        known = filters(self.modality)
        names = [item.name for item in self.filters]
        for item in self.filters:
            if item.name not in known:
                listed = ", ".join(known)
                raise ValueError(
                    f"filters: {item.name!r}: no filter of {self.modality}; there are {listed}"
                )
            if names.count(item.name) > 1:
                raise ValueError(f"filters: {item.name!r} stands twice; give each filter one entry")
            bounded = item.least is not None or item.most is not None
            if known[item.name].kind == "text" and bounded:
                raise ValueError(
                    f"filters: {item.name!r} names a text; use allow or deny, not least or most"
                )
            if known[item.name].kind == "number" and (item.allow or item.deny):
                raise ValueError(
                    f"filters: {item.name!r} is a number; use least or most, not allow or deny"
                )
            if item.action == "mask" and item.name not in MASKED:
                raise ValueError(
                    f"filters: {item.name!r} cannot be masked; only {' and '.join(MASKED)}"
                )
        semantic = self.duplicates.semantic
        for key, keep in (
            ("duplicates.keep", self.duplicates.keep),
            ("duplicates.semantic.keep", None if semantic is None else semantic.keep),
        ):
            if isinstance(keep, Highest) and (
                keep.highest not in names or known[keep.highest].kind != "number"
            ):
                raise ValueError(
                    f"{key}: {keep.highest!r} is no filter of this recipe that measures a "
                    "number; add it to filters (with action: flag to drop nothing by it)"
                )
        return self

    @model_validator(mode="after")
    def _duplicates_fit(self) -> "Recipe":
        steps = {"code": STEPS, "image": ("pixels",)}[self.modality]
        for step in self.duplicates.normalise:
            if step not in steps:
                raise ValueError(
                    f"duplicates.normalise: {step!r}: no step for {self.modality}; "
                    f"there are {', '.join(steps)}"
                )
        if self.modality == "image" and self.decontaminate is not None:
            raise ValueError("decontaminate: works on code; benchmarks of images are not compared")
        return self

    @model_validator(mode="after")
    def _group_is_of_the_modality(self) -> "Recipe":
        other = {"code": "label", "image": "language"}[self.modality]
        if self.shards.group_by == other:
            raise ValueError(
                f"shards.group_by {other!r}: {self.modality} records have no such column"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_there(self) -> "Recipe":
        if self.prune is not None:
            cap = None if self.prune.cap is None else self.prune.cap.by
            for key, grouping in (("prune.within", self.prune.within), ("prune.cap.by", cap)):
                devices = self.heterogeneity is not None
                check_grouping(key, grouping, self.modality, devices)
        return self

    @model_validator(mode="after")
    def _budget_is_of_texts(self) -> "Recipe":
        if self.modality == "image" and self.prune is not None and self.prune.budget is not None:
            raise ValueError(
                "prune.budget: counts tokens of code; the bytes of a picture do not tell its tokens"
            )
        return self

    @model_validator(mode="after")
    def _devices_make_images(self) -> "Recipe":
        if self.modality != "image" and self.heterogeneity is not None:
            raise ValueError(
                "heterogeneity: compares what made images; set it to null, or modality to image"
            )
        return self

    @model_validator(mode="after")
    def _embedding_is_there(self) -> "Recipe":
        if self.embedding is None and self.prune is not None:
            raise ValueError(
                f"prune.method {self.prune.method!r} works on embeddings, and embedding is null; "
                "set an embedding, or set prune to null"
            )
        if self.embedding is None and self.duplicates.semantic is not None:
            raise ValueError(
                "duplicates.semantic works on embeddings, and embedding is null; "
                "set an embedding, or set duplicates.semantic to null"
            )
        semantic = self.duplicates.semantic
        if semantic is not None and semantic.threshold is None and self.duplicates.against:
            raise ValueError(
                "duplicates.semantic.target: what earlier curations hold goes by a threshold; "
                "with duplicates.against give duplicates.semantic.threshold"
            )
        return self

    @property
    def masked(self) -> tuple[str, ...]:
        """What is blanked in what is handed on."""
        return tuple(item.name for item in self.filters if item.action == "mask")

    @property
    def source_name(self) -> str:
        """The stable name that goes into every ``record_id``."""
        return self.source.name or self.name


def _with_bounds(item: Any, known: Mapping[str, Measure]) -> Any:
    """A filter's entry as a mapping, with the filter's own bounds where it gives none."""
    entry = {"name": item} if isinstance(item, str) else item
    if not isinstance(entry, dict) or str(entry.get("name")) not in known:
        return entry
    if entry.get("least") is None and entry.get("most") is None and entry.get("action") != "flag":
        measure = known[entry["name"]]
        return {**entry, "least": measure.least, "most": measure.most}
    return entry


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.YAMLError(f"key {key!r} on line {key_node.start_mark.line + 1} is no text")
        if key in seen:
            raise yaml.YAMLError(f"key {key!r} on line {key_node.start_mark.line + 1} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

# A recipe has hundreds of values, of which few stand in others; a bomb of anchors has billions.
_MOST_BYTES, _MOST_VALUES, _DEEPEST = 1_000_000, 100_000, 50
_SHOWN, _LONGEST = 200, 500  # characters of a value, and of what is wrong, in a message
_HALF = re.compile("[\ud800-\udfff]")


def _read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: It is no YAML, or larger than any recipe.
    """
    try:
        data = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (LookupError, AttributeError, TypeError) as error:  # PyYAML, at a value unlike its tag
        raise ValueError(f"a tag, like !!bool, that does not fit its value: {error}") from None
    values = 0
    work: list[tuple[Any, int]] = [(data, 0)]
    while work:
        value, depth = work.pop()
        values += 1
        if depth > _DEEPEST:
            raise ValueError(f"values in more than {_DEEPEST} others")
        if values + len(work) > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values, those behind anchors counted")
        if isinstance(value, dict):
            work += [(below, depth + 1) for pair in value.items() for below in pair]
        elif isinstance(value, list | tuple | set):
            work += [(below, depth + 1) for below in value]
        elif isinstance(value, int) and value.bit_length() > 64:
            raise ValueError("a number of more than 64 bits")
        elif isinstance(value, str) and _HALF.search(value):
            raise ValueError(f"half a character in {_shown(value)}")
    return data


def load_recipe(path: Path, overrides: Sequence[str] = (), uri: str | None = None) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: The YAML file.
        overrides: ``key.sub=value`` texts; a value is read as YAML.
        uri: Replaces ``source.uri``. Relative folders count from the working folder.

    Raises:
        UserError: What is wrong, where, and what to write instead.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        data = _read_yaml(raw.decode())
    except OSError as error:
        raise UserError(f"recipe {path}: {error.strerror}; name a readable YAML file") from None
    except ValueError as error:
        raise UserError(f"recipe {path}: no valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"recipe {path}: expected keys like name, modality and source")
    for override in overrides:
        _override(data, override)
    if uri is not None:
        source = data.setdefault("source", {})
        if isinstance(source, dict):
            source["uri"] = uri
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "recipe"
        problem = " ".join(first["msg"].removeprefix("Value error, ").split())
        problem = problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]}..."
        given = "" if isinstance(first["input"], dict) else f" (given: {_shown(first['input'])})"
        if first["type"] == "extra_forbidden":
            problem, given = "no such key; see docs/recipe.md for the keys there are", ""
        raise UserError(f"recipe {path}: {place}: {problem}{given}") from None


def _shown(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {_shown(override)}: write it as key=value, like prune.fraction=0.1")
    try:
        value = _read_yaml(text)
    except ValueError as error:
        raise UserError(
            f"--set {_shown(override)}: the value is no YAML: {error}; quote texts with special "
            "signs inside the value, like key='[\"**/*.py\"]'"
        ) from None
    *folders, last = key.split(".")
    target = data
    for folder in folders:
        below = target.setdefault(folder, {})
        if below is None:
            below = target[folder] = {}
        if not isinstance(below, dict):
            raise UserError(f"--set {_shown(override)}: {folder!r} holds a value and no keys")
        target = below
    target[last] = value
