"""The sections of a recipe about what comes in and what goes out; more in ``quality_sections``."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from shardwright.embeddings.encoder import TorchOptions, Window
from shardwright.errors import UserError
from shardwright.pipelines.section_types import Bytes, Patterns, Section, Share, known
from shardwright.plugins import find, installed
from shardwright.shards.added import find_format

SOURCE_KINDS = ("files", "archive", "parquet", "jsonl", "git", "croissant")
# Entry points of this group name further kinds; see docs/extending.md.
SOURCES = "shardwright.sources"
MASKED = ("secrets", "personal_data")


def _known_format(name: str) -> str:
    return known(find_format, name)


def _known_source(kind: str) -> str:
    return known(_source, kind)


def _source(kind: str) -> None:
    if find(SOURCES, kind, SOURCE_KINDS) is None and kind not in SOURCE_KINDS:
        known = ", ".join([*SOURCE_KINDS, *(added.name for added in installed(SOURCES))])
        raise UserError(f"no such kind of source; there are {known}")


class Source(Section):
    """Where the raw collection lies and which of it is wanted."""

    kind: Annotated[str, AfterValidator(_known_source)]
    uri: str
    name: str | None = None
    include: Patterns = ("**/*",)
    exclude: Patterns = ()
    keep: Patterns = ()
    columns: dict[str, str] = Field(default={})
    revision: str = "HEAD"
    record_set: str | None = None
    mapping: dict[str, str] = Field(default={})


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


class Tokens(Section):
    """Sequences of tokens beside the shards: which tokenizer, how long, what is rearranged."""

    tokenizer: Annotated[str, Field(min_length=1)]
    length: Annotated[int, Field(ge=2, le=2**20)] = 2048
    end: str | None = None
    fim: Share = 0.0
    fim_mode: Literal["psm", "spm"] = "psm"


class Shards(Section):
    """The hand-off to the training job."""

    format: Annotated[str, AfterValidator(_known_format)] = "mds"
    size: Bytes = 64_000_000
    seed: Annotated[int, Field(ge=0)] = 0
    split: dict[str, Share] = Field(default={"train": 0.99, "validation": 0.01})
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
        added = find_format(self.format)
        rest = {} if added is None else {"package": added[0].package}
        return {**self.model_dump(mode="json", exclude={"tokens"}), **rest}
