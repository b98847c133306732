"""Arrow schemas of every table, the single source of truth for columns and types.

Hashes and ids are hex strings; ``record_id`` is the first 16 bytes of
sha256(source, NUL, path) as 32 hex digits.
"""

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa

SKETCH = 256
"""Numbers in the MinHash sketch of a text."""

_ID = pa.field("record_id", pa.string(), nullable=False)

_RECORD_HEAD = [
    _ID,
    pa.field("source", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("repository", pa.string()),
    pa.field("revision", pa.string()),
    pa.field("modality", pa.string(), nullable=False),
    pa.field("bytes", pa.int64(), nullable=False),
    pa.field("content_sha256", pa.string(), nullable=False),
]
_ATTRIBUTES = pa.field("attributes", pa.map_(pa.string(), pa.string()), nullable=False)

CODE_RECORDS = pa.schema(
    [
        *_RECORD_HEAD,
        pa.field("content", pa.large_string(), nullable=False),
        _ATTRIBUTES,
        pa.field("language", pa.string()),
        pa.field("lines", pa.int64(), nullable=False),
        pa.field("license", pa.string()),
    ]
)

IMAGE_RECORDS = pa.schema(
    [
        *_RECORD_HEAD,
        pa.field("image", pa.large_binary(), nullable=False),
        _ATTRIBUTES,
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("device_make", pa.string()),
        pa.field("device_model", pa.string()),
        pa.field("software", pa.string()),
        pa.field("label", pa.string()),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)

LOOKUP = pa.schema(
    [
        _ID,
        pa.field("part", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)

DUPLICATES = pa.schema(
    [
        _ID,
        pa.field("kind", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("representative_id", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)

NEAR_LINKS = pa.schema([_ID, pa.field("representative_id", pa.string(), nullable=False)])

DUPLICATE_SEMANTICS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("semantics", pa.string(), nullable=False),
        pa.field("chosen", pa.bool_(), nullable=False),
        pa.field("removed", pa.int64(), nullable=False),
    ]
)

SEMANTIC_DUPLICATES = DUPLICATES.append(pa.field("threshold", pa.float64(), nullable=False))

SEMANTIC_SUMMARY = pa.schema(
    [
        pa.field("semantics", pa.string(), nullable=False),
        pa.field("chosen", pa.bool_(), nullable=False),
        pa.field("removed", pa.int64(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("clusters", pa.int64(), nullable=False),
        pa.field("sampled", pa.int64(), nullable=False),
        pa.field("crossing", pa.float64(), nullable=False),
        pa.field("crossing_low", pa.float64(), nullable=False),
        pa.field("crossing_high", pa.float64(), nullable=False),
    ]
)

CODE_SIGNATURES = pa.schema(
    [
        _ID,
        pa.field("normal_sha256", pa.string()),
        pa.field("near_key", pa.string()),
        # no list of fixed size: Arrow does not read back one that is null
        pa.field("sketch", pa.list_(pa.uint32())),
        pa.field("shingles", pa.list_(pa.uint64())),
    ]
)

IMAGE_SIGNATURES = pa.schema(
    [
        _ID,
        pa.field("normal_sha256", pa.string()),
        pa.field("near_key", pa.string()),
        pa.field("perceptual_hash", pa.uint64()),
    ]
)

CONTAMINATION = pa.schema(
    [
        _ID,
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)

CLUSTERS = pa.schema(
    [
        _ID,
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),
    ]
)

DETECTORS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("data", pa.large_binary(), nullable=False),
    ]
)

CORRUPTED = pa.schema(
    [
        _ID,
        pa.field("corruption", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("cluster_before", pa.int32(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("cluster_size_before", pa.int64(), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),
        pa.field("distance_before", pa.float64(), nullable=False),
    ]
)

CORRUPTION_STUDY = pa.schema(
    [
        pa.field("corruption", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("moved", pa.float64(), nullable=False),
        pa.field("size", pa.float64(), nullable=False),
        pa.field("size_effect", pa.float64(), nullable=False),
        pa.field("size_p", pa.float64(), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),
        pa.field("distance_effect", pa.float64(), nullable=False),
        pa.field("distance_p", pa.float64(), nullable=False),
    ]
)

SIMILARITIES = pa.schema([_ID, pa.field("similarity", pa.float64(), nullable=False)])

SCORE_EXPLANATIONS = pa.schema(
    [
        _ID,
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),
        pa.field("criterion", pa.string()),
    ]
)

EVALUATION = pa.schema(
    [
        pa.field("method", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("area", pa.float64(), nullable=False),
        pa.field("area_low", pa.float64()),
        pa.field("area_high", pa.float64()),
        pa.field("recall", pa.float64(), nullable=False),
        pa.field("recall_low", pa.float64()),
        pa.field("recall_high", pa.float64()),
        pa.field("damaged", pa.int64(), nullable=False),
        pa.field("trials", pa.int64(), nullable=False),
    ]
)

SIDE_EFFECTS = pa.schema(
    [
        pa.field("method", pa.string(), nullable=False),
        pa.field("grouping", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("records", pa.int64(), nullable=False),
        pa.field("pruned", pa.int64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
    ]
)

STABILITY = pa.schema(
    [
        pa.field("method", pa.string(), nullable=False),
        pa.field("overlap", pa.float64(), nullable=False),
    ]
)

DECISIONS = pa.schema(
    [
        _ID,
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("representative_id", pa.string()),
    ]
)

TOKENS = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
    ]
)
"""Where each kept record begins in the sequences of its split, and how many tokens it has."""

SHARDS = pa.schema(
    [
        _ID,
        pa.field("split", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
    ]
)


def records(modality: str) -> pa.Schema:
    """Schema of ``records`` for ``code`` or ``image``."""
    return {"code": CODE_RECORDS, "image": IMAGE_RECORDS}[modality]


def blob(modality: str) -> str:
    """Name of the column that holds a record's payload."""
    return {"code": "content", "image": "image"}[modality]


DEVICE_GROUPS = pa.schema(
    [
        pa.field("group", pa.string()),
        pa.field("records", pa.int64(), nullable=False),
        pa.field("enough", pa.bool_(), nullable=False),
        pa.field("compared", pa.bool_(), nullable=False),
    ]
)

_PAIR = [
    pa.field("group_a", pa.string(), nullable=False),
    pa.field("group_b", pa.string(), nullable=False),
]

DEVICE_SHIFT = pa.schema(
    [
        *_PAIR,
        pa.field("n_a", pa.int64(), nullable=False),
        pa.field("n_b", pa.int64(), nullable=False),
        pa.field("space", pa.string(), nullable=False),
        pa.field("matched", pa.bool_(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("effect_size", pa.float64(), nullable=False),
        pa.field("null_mean", pa.float64(), nullable=False),
        pa.field("p_value", pa.float64(), nullable=False),
        pa.field("p_adjusted", pa.float64(), nullable=False),
        pa.field("ruler_stage", pa.string()),
        pa.field("ruler_amount", pa.float64()),
        pa.field("ruler_where", pa.string()),
    ]
)

DEVICE_ATTRIBUTION = pa.schema(
    [
        *_PAIR,
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
    ]
)

DEVICE_TRANSFER = pa.schema(
    [
        pa.field("train_group", pa.string()),
        pa.field("test_group", pa.string(), nullable=False),
        pa.field("accuracy", pa.float64(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
    ]
)

DEVICE_LEAKAGE = pa.schema(
    [
        pa.field("information", pa.float64(), nullable=False),
        pa.field("null_information", pa.float64(), nullable=False),
        pa.field("accuracy", pa.float64(), nullable=False),
        pa.field("baseline", pa.float64(), nullable=False),
        pa.field("null_accuracy", pa.float64(), nullable=False),
        pa.field("p_value", pa.float64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("groups", pa.int64(), nullable=False),
        pa.field("labels", pa.int64(), nullable=False),
    ]
)


def device_statistics(names: Sequence[str]) -> pa.Schema:
    """Schema of ``device_statistics``: a column per statistic, null where one does not apply."""
    return pa.schema(
        [_ID, pa.field("group", pa.string()), *(pa.field(name, pa.float64()) for name in names)]
    )


def filter_scores(kinds: Mapping[str, str]) -> pa.Schema:
    """Schema of ``filter_scores``: a column per filter, of kind ``number`` or ``text``."""
    types = {"number": pa.float64(), "text": pa.string()}
    return pa.schema([_ID, *(pa.field(name, types[kind]) for name, kind in kinds.items())])


def scores(methods: Sequence[str]) -> pa.Schema:
    """Schema of ``scores``: a column per pruning method, higher is more worth keeping."""
    return pa.schema([_ID, *(pa.field(name, pa.float64(), nullable=False) for name in methods)])


def views(names: Sequence[str]) -> pa.Schema:
    """Schema of ``views``: a column per view, null where one does not apply, and judgements."""
    return pa.schema(
        [
            _ID,
            *(pa.field(name, pa.float64()) for name in names),
            pa.field("scip_probe", pa.float64(), nullable=False),
            pa.field("damage", pa.float64(), nullable=False),
            pa.field("damage_view", pa.string()),
        ]
    )


def signatures(modality: str) -> pa.Schema:
    """Schema of ``signatures``: what tells duplicates without their contents."""
    return {"code": CODE_SIGNATURES, "image": IMAGE_SIGNATURES}[modality]


def embeddings(dimension: int, dtype: str) -> pa.Schema:
    """Schema of ``embeddings``: a vector per live record, with what the cache looks up by."""
    value = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
    return pa.schema(
        [
            _ID,
            pa.field("vector", pa.list_(value, dimension), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("content_sha256", pa.string(), nullable=False),
        ]
    )


def centroids(dimension: int) -> pa.Schema:
    """Schema of ``centroids``: the unit vector of each cluster."""
    return pa.schema(
        [
            pa.field("cluster", pa.int32(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )


def curated(modality: str) -> pa.Schema:
    """Schema of ``curated``: a kept record whole, and its split."""
    return records(modality).append(pa.field("split", pa.string(), nullable=False))


def record_id(source: str, path: str) -> str:
    """32 hex digits that name a record wherever its data lies."""
    return hashlib.sha256(f"{source}\0{path}".encode()).hexdigest()[:32]
