"""The sections of a recipe: their keys, defaults and bounds."""

import re
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from shardwright.embeddings.encoder import TorchOptions, Window
from shardwright.quality.budget import RepetitionLaw
from shardwright.quality.pruning.methods import METHODS

SOURCE_KINDS = ("files", "archive", "parquet", "jsonl", "git")
# Entry points of this group name further kinds; see docs/extending.md.
SOURCES = "shardwright.sources"
MASKED = ("secrets", "personal_data")
_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
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


def _parse_count(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = str(value)
    match = re.fullmatch(r"\s*(\d*\.?\d+(?:e[+-]?\d+)?)\s*([KMBT]?)\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{value!r} is no count; write a number, or like 300M, 100B, 1.5T")
    return float(match.group(1)) * _COUNTS[match.group(2).upper()]


def _known_method(name: str) -> str:
    known = [method.name for method in METHODS]
    if name not in known:
        raise ValueError(f"no such method; there are {', '.join(known)}")
    return name


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _known_source(kind: str) -> str:
    own = {entry.name for entry in entry_points(group=SOURCES)}
    if kind not in own.union(SOURCE_KINDS):
        known = ", ".join([*SOURCE_KINDS, *sorted(own)])
        raise ValueError(f"no such kind of source; there are {known}")
    return kind


Bytes = Annotated[int, BeforeValidator(_parse_bytes), Field(gt=0)]
Count = Annotated[float, BeforeValidator(_parse_count), Field(gt=0, allow_inf_nan=False)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(ge=0, le=1)]
MethodName = Annotated[str, AfterValidator(_known_method)]


class Section(BaseModel):
    """Values that do not change, and no key that is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """Where the raw collection lies and which of it is wanted."""

    kind: Annotated[str, AfterValidator(_known_source)]
    uri: str
    name: str | None = None
    include: Patterns = ("**/*",)
    exclude: Patterns = ()
    keep: Patterns = ()
    columns: dict[str, str] = {}
    revision: str = "HEAD"


class Limits(Section):
    """What is too large, what is too much damage, and how large a part is."""

    max_bytes: Bytes = 1_000_000
    max_pixels: Annotated[int, Field(gt=0)] = 178_956_970
    decode_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    reject_threshold: Share = 0.05
    part_bytes: Bytes = 16_000_000


class Filter(Section):
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


class Near(Section):
    """Near duplicates: MinHash over shingles of tokens for code, perceptual hashes for images."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    ngram: Annotated[int, Field(ge=1, le=100)] = 5
    radius: Annotated[int, Field(ge=0, le=16)] = 4
    semantics: Literal["greedy", "components"] = "greedy"


class Highest(Section):
    """Keeps the record of the highest score of a filter."""

    highest: str


class SemanticClusters(Section):
    """The k-means of the semantic stage, its own; ``auto`` is the root of the records alive."""

    k: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    probes: Literal[1, 2] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Semantic(Section):
    """SemDeDup: records whose vectors are more similar than a threshold, within a cluster."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    semantics: Literal["ranked", "greedy", "components"] = "greedy"
    keep: Literal["farthest", "nearest", "first", "longest"] | Highest = "farthest"
    clusters: SemanticClusters = SemanticClusters()

    @model_validator(mode="after")
    def _one_size(self) -> "Semantic":
        if (self.threshold is None) == (self.target is None):
            raise ValueError(
                "give either threshold, the cosine similarity above which records are duplicates "
                "(like 0.95), or target, the share of the records that is to stay (like 0.8)"
            )
        if self.clusters.probes == 2 and self.semantics != "ranked":
            raise ValueError(
                f"semantics {self.semantics!r} is decided within one cluster; with "
                "clusters.probes 2 use semantics: ranked"
            )
        return self


class Duplicates(Section):
    """Which kinds of duplicates go, and which record of a group stays."""

    exact: bool = True
    normalise: Patterns = ()
    keep: Literal["first", "longest"] | Highest = "first"
    near: Near | None = None
    semantic: Semantic | None = None
    against: Patterns = ()


class Benchmark(Section):
    """A benchmark whose items must not stand in the training data."""

    name: Annotated[str, Field(min_length=1)]
    uri: str
    text: Patterns = ("text",)
    item: str | None = None
    language: str | None = None


class Decontaminate(Section):
    """Records that hold, or closely resemble, an item of a benchmark go."""

    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1)]
    ngram: Annotated[int, Field(ge=1, le=100)] = 10
    overlap: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    similarity: Annotated[float, Field(gt=0, le=1)] | None = 0.7
    model: str = "builtin:hashing"


class ReadWindow(Section):
    """How long texts are read in overlapping windows of tokens."""

    tokens: Annotated[int, Field(gt=2)]
    stride: Annotated[int, Field(gt=0)]
    pool: Literal["mean", "max"] = "mean"


class Embedding(Section):
    """The encoder, and how it runs."""

    model: str
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float16"] = "float32"
    batch_size: Annotated[int, Field(gt=0)] = 256
    compute: Literal["float32", "float16", "bfloat16"] | None = None
    window: ReadWindow | None = None
    compile: bool = False
    draft: bool = False

    @property
    def options(self) -> TorchOptions:
        """What only torch models are told."""
        window = None if self.window is None else Window(**self.window.model_dump())
        return TorchOptions(self.compute, window, self.compile, self.draft)


class Index(Section):
    """The nearest-neighbour index of the live records."""

    kind: Literal["flat", "ivf_flat", "ivf_pq", "hnsw", "auto"] = "flat"
    recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    memory: Bytes | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Clusters(Section):
    """Spherical k-means on the embeddings."""

    k: Annotated[int, Field(gt=0)] | Literal["auto"] = 100
    seed: Annotated[int, Field(ge=0)] = 0
    start: Literal["sample", "k-means++"] = "sample"
    precision: Literal["exact", "fast"] = "exact"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Prototypes(Section):
    """SSL prototypes: which end of the distances is kept, and how evenly over clusters."""

    keep: Literal["hard", "easy"] = "hard"
    balance: Share = 0.0


class D4(Section):
    """D4: the share that its first step, SemDeDup, keeps."""

    dedup: Annotated[float, Field(gt=0, le=1)] = 0.75


class Density(Section):
    """Density-based pruning: temperature, and what each cluster keeps at least."""

    tau: Annotated[float, Field(gt=0)] = 0.1
    min_samples: Annotated[int, Field(ge=0)] = 1


class Study(Section):
    """Records that are damaged on purpose, to learn what damage looks like."""

    documents: Annotated[int, Field(ge=40)] = 400
    copies: Annotated[int, Field(ge=1, le=20)] = 3
    dose: Annotated[float, Field(gt=0, le=1)] = 0.5
    files: Annotated[int, Field(ge=0)] = 4000
    without: Patterns = ()
    seed: Annotated[int, Field(ge=0)] = 0


class Evaluate(Section):
    """Trials in which damage is planted into a sample, to see which methods find it."""

    files: Annotated[int, Field(ge=40)] = 2000
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    dose: Annotated[float, Field(gt=0, le=1)] = 0.5
    folds: Annotated[int, Field(ge=2)] = 4
    seed: Annotated[int, Field(ge=0)] = 0


class Learned(Section):
    """What the classifier learns from: a table that labels records, and files of one's own."""

    labels: str | None = None
    good: Patterns = ()
    bad: Patterns = ()

    @model_validator(mode="after")
    def _labels_something(self) -> "Learned":
        if self.labels is None and not (self.good and self.bad):
            raise ValueError(
                "give labels, a table of records with a column label, or good and bad, patterns "
                "of example files, or both"
            )
        return self


class Budget(Section):
    """A training run, for what ``--dry-run`` says of each fraction."""

    tokens: Count
    bytes_per_token: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.5
    data_decay: Annotated[float, Field(gt=0, allow_inf_nan=False)] = RepetitionLaw().data_decay


class Prune(Section):
    """A fraction of the records goes: those that a method finds least worth keeping."""

    method: MethodName = "scip"
    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    within: Literal["language", "license", "repository", "label"] | None = None
    scores: tuple[MethodName, ...] | None = None
    alpha: Share = 0.8
    ssl_prototypes: Prototypes = Prototypes()
    d4: D4 = D4()
    density: Density = Density()
    classifier: Learned | None = None
    budget: Budget | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _labels_are_there(self) -> "Prune":
        if self.classifier is None and "classifier" in (self.method, *(self.scores or ())):
            raise ValueError(
                "the method 'classifier' learns from labels, and classifier is null; give "
                "prune.classifier, like {labels: labels.csv}"
            )
        return self

    def methods(self, modality: str) -> tuple[str, ...]:
        """The scores that are computed, in the order of their columns."""
        wanted = None if self.scores is None else {*self.scores, self.method}
        return tuple(
            method.name
            for method in METHODS
            if modality in method.modalities
            and ("labels" not in method.needs or self.classifier is not None)
            and (wanted is None or method.name in wanted)
        )

    def parameters(self) -> dict[str, Any]:
        """What decides the scores, beside the tables that they are made from."""
        # where labels lie decides nothing, and what they say stands in the table `classified`
        aside = {"within", "method", "scores", "classifier", "budget"}
        return self.model_dump(mode="json", exclude=aside)


class Tokens(Section):
    """Sequences of tokens beside the shards: which tokenizer, how long, what is rearranged."""

    tokenizer: Annotated[str, Field(min_length=1)]
    length: Annotated[int, Field(ge=2, le=2**20)] = 2048
    end: str | None = None
    fim: Share = 0.0
    fim_mode: Literal["psm", "spm"] = "psm"


class Shards(Section):
    """The hand-off to the training job."""

    format: Literal["mds", "webdataset", "parquet"] = "mds"
    size: Bytes = 64_000_000
    seed: Annotated[int, Field(ge=0)] = 0
    split: dict[str, Share] = {"train": 0.99, "validation": 0.01}
    group_by: (
        Literal["repository", "label", "language", "content_sha256", "near_duplicates"] | None
    ) = None
    tokens: Tokens | None = None

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

    def parameters(self) -> dict[str, Any]:
        """What decides the shards; the sequences of tokens are made from them."""
        return self.model_dump(mode="json", exclude={"tokens"})
