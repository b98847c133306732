"""The recipe: what to curate and how, read from YAML and checked before anything runs."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from shardwright.errors import UserError
from shardwright.quality.filters import Filter as Measure
from shardwright.quality.filters import filters
from shardwright.quality.normalise import STEPS

SOURCE_KINDS = ("files", "archive", "parquet", "jsonl", "git")
# Entry points of this group name further kinds; see docs/extending.md.
SOURCES = "shardwright.sources"
MASKED = ("secrets", "personal_data")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _parse_bytes(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{value} is no size; write bytes as a number, or like 1MB")
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?B?)\s*", value, re.IGNORECASE)
    unit = match.group(2).upper() if match else None
    if match is None or unit not in _UNITS:
        raise ValueError(f"{value!r} is no size; write bytes as a number, or like 500KB, 1MB, 2GB")
    return round(float(match.group(1)) * _UNITS[unit])


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _known_source(kind: str) -> str:
    own = {entry.name for entry in entry_points(group=SOURCES)}
    if kind not in own.union(SOURCE_KINDS):
        known = ", ".join([*SOURCE_KINDS, *sorted(own)])
        raise ValueError(f"no such kind of source; there are {known}")
    return kind


Bytes = Annotated[int, BeforeValidator(_parse_bytes), Field(gt=0)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Section):
    """Where the raw collection lies and which of it is wanted."""

    kind: Annotated[str, AfterValidator(_known_source)]
    uri: str
    name: str | None = None
    include: Patterns = ("**/*",)
    exclude: Patterns = ()
    keep: Patterns = ()
    columns: dict[str, str] = {}
    revision: str = "HEAD"


class Limits(_Section):
    """What is too large, what is too much damage, and how large a part is."""

    max_bytes: Bytes = 1_000_000
    max_pixels: Annotated[int, Field(gt=0)] = 178_956_970
    decode_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    reject_threshold: Share = 0.05
    part_bytes: Bytes = 16_000_000


class Filter(_Section):
    """A quality filter: what it measures becomes a column, what it drops depends on the bounds.

    ``drop`` takes out the records beyond a bound, ``flag`` only measures, and ``mask`` (secrets and
    personal data) keeps the records and blanks what was found in what is handed on.
    """

    name: str
    least: float | None = None
    most: float | None = None
    allow: Patterns = ()
    deny: Patterns = ()
    action: Literal["drop", "flag", "mask"] = "drop"


class Near(_Section):
    """Near duplicates: MinHash over shingles of tokens for code, perceptual hashes for images."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    ngram: Annotated[int, Field(ge=1, le=100)] = 5
    radius: Annotated[int, Field(ge=0, le=16)] = 4
    semantics: Literal["greedy", "components"] = "greedy"


class Highest(_Section):
    """Keeps the record of the highest score of a filter."""

    highest: str


class Duplicates(_Section):
    """Which kinds of duplicates go, and which record of a group stays."""

    exact: bool = True
    normalise: Patterns = ()
    keep: Literal["first", "longest"] | Highest = "first"
    near: Near | None = None
    semantic: None = None
    against: Patterns = ()


class Benchmark(_Section):
    """A benchmark whose items must not stand in the training data."""

    name: Annotated[str, Field(min_length=1)]
    uri: str
    text: Patterns = ("text",)
    item: str | None = None
    language: str | None = None


class Decontaminate(_Section):
    """Records that hold, or closely resemble, an item of a benchmark go."""

    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1)]
    ngram: Annotated[int, Field(ge=1, le=100)] = 10
    overlap: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    similarity: Annotated[float, Field(gt=0, le=1)] | None = 0.7
    model: str = "builtin:hashing"


class Embedding(_Section):
    """The encoder, and how it runs."""

    model: str
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float16"] = "float32"
    batch_size: Annotated[int, Field(gt=0)] = 256


class Index(_Section):
    """The nearest-neighbour index of the live records."""

    kind: Literal["flat"] = "flat"


class Clusters(_Section):
    """Spherical k-means on the embeddings."""

    k: Annotated[int, Field(gt=0)] = 100
    seed: Annotated[int, Field(ge=0)] = 0
    start: Literal["sample", "k-means++"] = "sample"
    precision: Literal["exact", "fast"] = "exact"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Prune(_Section):
    """SCIP's Algorithm 1: a fraction of the records goes, alpha of it by cluster size."""

    method: Literal["scip"] = "scip"
    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    alpha: Share = 0.8


class Shards(_Section):
    """The hand-off to the training job."""

    format: Literal["mds"] = "mds"
    size: Bytes = 64_000_000
    seed: Annotated[int, Field(ge=0)] = 0
    split: dict[str, Share] = {"train": 0.99, "validation": 0.01}
    group_by: Literal["repository", "label", "language", "content_sha256"] | None = None

    @model_validator(mode="after")
    def _split_is_whole(self) -> "Shards":
        if not self.split or abs(sum(self.split.values()) - 1) > 1e-9:
            raise ValueError(
                f"split {self.split} adds up to {sum(self.split.values()):g}; make it add up to 1"
            )
        for name in self.split:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(
                    f"split name {name!r} becomes a folder; use letters, digits, '_' and '-'"
                )
        return self


class Recipe(_Section):
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
    prune: Prune | None = Prune()
    shards: Shards = Shards()
    runner: dict[str, tuple[str, ...]] = {}

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
        keep = self.duplicates.keep
        if isinstance(keep, Highest) and (
            keep.highest not in names or known[keep.highest].kind != "number"
        ):
            raise ValueError(
                f"duplicates.keep: {keep.highest!r} is no filter of this recipe that measures a "
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
    def _prune_needs_embedding(self) -> "Recipe":
        if self.embedding is None and self.prune is not None:
            raise ValueError(
                f"prune.method {self.prune.method!r} works on embeddings, and embedding is null; "
                "set an embedding, or set prune to null"
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
    if not isinstance(entry, dict) or entry.get("name") not in known:
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
        data = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise UserError(f"recipe {path}: {error.strerror}; name a readable YAML file") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"recipe {path}: no valid YAML: {' '.join(str(error).split())}") from None
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
        problem = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r})"
        if first["type"] in ("none_required", "too_long"):
            problem = "is not in this version; leave it empty"
        if first["type"] == "extra_forbidden":
            problem, given = "no such key; see docs/recipe.md for the keys there are", ""
        raise UserError(f"recipe {path}: {place}: {problem}{given}") from None


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override!r}: write it as key=value, like prune.fraction=0.1")
    try:
        value = yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(
            f"--set {override!r}: the value is no YAML: {problem}; quote texts with special signs "
            "inside the value, like key='[\"**/*.py\"]'"
        ) from None
    *folders, last = key.split(".")
    target = data
    for folder in folders:
        below = target.setdefault(folder, {})
        if below is None:
            below = target[folder] = {}
        if not isinstance(below, dict):
            raise UserError(f"--set {override!r}: {folder!r} holds a value and no keys")
        target = below
    target[last] = value
