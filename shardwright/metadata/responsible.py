"""Croissant RAI 1.0: what a reader must know before use, as stated and as measured.

What only a person knows comes from the recipe's ``about``; the rest is written from the tables and
from the parameters in their manifests. Terms are spelt as in the RAI vocabulary; mlcroissant 1.1.1
spells two of them otherwise (``dataDataManipulationProtocol``, ``dataCollectionTimeFrame``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

from shardwright.metadata.catalog import quoted
from shardwright.metadata.croissant_statistics import value_counts
from shardwright.metadata.layout import Layout
from shardwright.metadata.provenance import origins

RAI = "http://mlcommons.org/croissant/RAI/1.0"

# Property -> key of ``about``, for what is told as it is stated.
_STATED = {
    "rai:dataCollection": "collection",
    "rai:dataCollectionType": "collection_type",
    "rai:dataCollectionTimeframe": "timeframe",
    "rai:dataCollectionRawData": "raw_data",
    "rai:dataAnnotationProtocol": "annotation_protocol",
    "rai:dataUseCases": "use_cases",
    "rai:dataSocialImpact": "social_impact",
    "rai:dataReleaseMaintenancePlan": "maintenance",
    "rai:hasSyntheticData": "synthetic",
}
_DID = {
    "ingest": "read the inputs, refused what cannot be read, and kept contents as they came",
    "filter": "measured every record, and dropped those beyond a bound where the action is drop",
    "duplicates": "grouped equal and similar contents and kept one of each group",
    "embed": "turned contents into vectors",
    "decontaminate": "dropped records that hold or resemble an item of a benchmark",
    "semantic": "grouped records whose vectors all but agree and kept one of each group",
    "index": "built an index of the vectors",
    "cluster": "clustered the vectors by spherical k-means",
    "study": "damaged copies of some records to learn what damage looks like; none is in the data",
    "score": "scored how much each record is worth keeping",
    "heterogeneity": "measured how what made the images shows in them",
    "evaluate": "planted damage into a sample to measure the scores; none is in the data",
    "prune": "decided on every record, and dropped what the method chooses, if one is named",
    "shard": "put the kept records in random order, into splits and shards",
}
_LISTED = 8
"""Groups that a sentence names."""

_MIXES = {
    "language": "Programming languages",
    "license": "Stated licences",
    "label": "Labels",
    "device_make": "Makers of the cameras",
    "format": "Encodings of the images",
}
# Tables of ``heterogeneity``, empty where there was not enough, and what they answer.
_OF_DEVICES = {
    "device_shift": "Whether the images of different devices differ",
    "device_transfer": "Whether what is learnt on one device holds on others",
    "device_leakage": "Whether the device tells the label",
}
_FINDINGS = {
    "secrets": "secrets (keys, tokens of services, passwords)",
    "personal_data": "personal data (e-mail addresses, public IP addresses, phone numbers)",
}


def responsible(
    layout: Layout, connection: duckdb.DuckDBPyConnection, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The RAI properties of a curation.

    Args:
        layout: The output folder.
        connection: DuckDB with views of its tables.
        about: What the recipe states; empty values count as not stated.
    """
    found = {name: about[key] for name, key in _STATED.items() if _is_stated(about.get(key))}
    missing = [*_listed(about.get("missing_data")), *_missing(layout, connection)]
    several = {
        "rai:dataPreprocessingProtocol": list(_protocol(layout)),
        "rai:dataBiases": [*_listed(about.get("biases")), *_biases(layout, connection)],
        "rai:dataLimitations": [
            *_listed(about.get("limitations")),
            *_limitations(layout, connection),
        ],
        "rai:personalSensitiveInformation": [
            *_listed(about.get("sensitive_information")),
            *_sensitive(layout, connection),
        ],
    }
    found |= {name: texts for name, texts in several.items() if texts}
    if missing:
        found["rai:dataCollectionMissingData"] = " ".join(missing)
    return dict(sorted(found.items()))


def _is_stated(value: Any) -> bool:
    return value is not None and value != "" and value != []


def _listed(value: Any) -> list[str]:
    if not _is_stated(value):
        return []
    return [value] if isinstance(value, str) else list(value)


def _protocol(layout: Layout) -> Iterator[str]:
    """One text per stage that ran: what it did, and with which values."""
    decided = layout.need("decisions", "prune").origin.parameters
    for stage, outputs in origins(layout).items():
        parameters: dict[str, str] = {}
        for origin, _, _ in outputs:
            # the bounds of the filters are among the parameters of every stage that drops
            own = {name: value for name, value in origin.parameters.items() if name != "filters"}
            parameters |= dict(_flat(own))
        if stage == "filter":
            parameters |= dict(_flat({"filters": decided.get("filters", [])}))
        values = ", ".join(f"{name} = {value}" for name, value in sorted(parameters.items()))
        text = f"Stage {stage}: {_DID.get(stage, 'ran')}."
        yield f"{text} With {values}." if values else text


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (key.sub, value) of what is set; hashes stand in the lineage."""
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for place, item in enumerate(value):
                rest = {key: one for key, one in item.items() if key != "name"}
                yield from _flat(rest, f"{prefix}{name}.{item.get('name', place)}.")
        elif isinstance(value, list | tuple):
            if value:
                yield f"{prefix}{name}", " ".join(map(str, value))
        elif value is not None and value is not False and not _is_hash(value):
            yield f"{prefix}{name}", f"{value:g}" if isinstance(value, float) else str(value)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _missing(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    rejects = layout.need("rejects", "ingest")
    if rejects.rows:
        seen = layout.need("records", "ingest").rows + rejects.rows
        reasons = _named(value_counts(connection, "rejects", "reason", _LISTED), rejects.rows)
        yield f"Of {seen:,} inputs {rejects.rows:,} were refused: {reasons}."


def _named(counts: Sequence[tuple[Any, int]], total: int) -> str:
    """``python 61.0%, none stated 12.5%``."""
    return ", ".join(
        f"{'none stated' if name is None or name == '' else name} {count / total:.1%}"
        for name, count in counts
    )


def _biases(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    kept, all_records = layout.need("curated", "shard"), layout.need("records", "ingest")
    for column, what in _MIXES.items():
        if kept.rows and column in kept.schema.names:
            now = value_counts(connection, "curated", column, _LISTED)
            then = value_counts(connection, "records", column, _LISTED)
            if [name for name, _ in then] == [None]:
                continue  # nobody states any
            yield (
                f"{what} of the kept records, commonest first: {_named(now, kept.rows)}. "
                f"Of all accepted records: {_named(then, all_records.rows)}."
            )
    yield from _side_effects(layout, connection)
    yield from _devices(layout, connection)


def _side_effects(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Which groups the method prunes most and least; groups below a hundredth are left out."""
    method = layout.need("decisions", "prune").origin.parameters.get("method")
    if layout.manifest("side_effects") is None or method is None:
        return
    rows = connection.execute(
        'SELECT grouping, "group", share, records FROM side_effects '
        f"WHERE method = {quoted(str(method))} QUALIFY "
        'records >= 0.01 * sum(records) OVER (PARTITION BY grouping) ORDER BY grouping, "group"'
    ).fetchall()
    groupings = sorted({row[0] for row in rows})
    for grouping in groupings:
        of_it = sorted(
            ((share, name, records) for kind, name, share, records in rows if kind == grouping),
            key=lambda row: (row[0], row[1] or ""),
        )
        if len(of_it) < 2 or of_it[0][0] == of_it[-1][0]:
            continue
        (least, few, n), (most, many, m) = of_it[0], of_it[-1]
        yield (
            f"Pruning by {method} is uneven by {grouping}: it takes {most:.1%} of the {m:,} "
            f"records of {many or 'none stated'}, and {least:.1%} of the {n:,} of "
            f"{few or 'none stated'}."
        )


def _devices(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """What ``heterogeneity`` found: sizes of groups, shift and its stages, transfer, leakage."""
    if layout.manifest("device_groups") is None:
        return
    rows = connection.execute(
        'SELECT "group", records FROM device_groups ORDER BY records DESC, "group"'
    ).fetchall()
    if rows:
        groups = sum(1 for name, _ in rows if name is not None)
        yield (
            f"The images come from {groups} groups of devices; by size: "
            f"{_named(rows[:_LISTED], sum(count for _, count in rows))}."
        )
    for space, measure, matched, pairs, apart, effect, largest in connection.execute(
        "SELECT space, measure, matched, count(*), count(*) FILTER (p_adjusted < 0.05), "
        "max(effect_size) FILTER (p_adjusted < 0.05), "
        "arg_max(group_a || ' and ' || group_b, effect_size) FILTER (p_adjusted < 0.05) "
        "FROM device_shift GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        where = f"in {space} by {measure}{' on matched content' if matched else ''}"
        if apart:
            yield (
                f"{apart} of {pairs} pairs of device groups lie apart {where} (adjusted "
                f"p < 0.05), {largest} most (effect size {effect:.3g})."
            )
        else:
            yield f"Of {pairs} pairs of device groups none lies apart {where} (adjusted p < 0.05)."
    stages = connection.execute(
        "SELECT stage, count(*) FROM device_attribution WHERE rank = 1 GROUP BY stage "
        "ORDER BY count(*) DESC, stage"
    ).fetchall()
    if stages:
        told = ", ".join(f"{stage} ({count})" for stage, count in stages)
        yield f"What tells two groups apart goes most with, by pairs of groups: {told}."
    for own, other, worst, least in connection.execute(
        "SELECT avg(accuracy) FILTER (train_group = test_group), "
        "avg(accuracy) FILTER (train_group IS NULL), "
        "arg_min(test_group, accuracy) FILTER (train_group IS NULL), "
        "min(accuracy) FILTER (train_group IS NULL) FROM device_transfer HAVING count(*) > 0"
    ).fetchall():
        yield (
            f"A probe tells {own:.1%} of the labels of the device group that it learnt on, and "
            f"{other:.1%} of a group that was left out, {worst} least ({least:.1%})."
        )
    for information, chance, accuracy, baseline, p_value in connection.execute(
        "SELECT information, null_information, accuracy, baseline, p_value FROM device_leakage"
    ).fetchall():
        yield (
            f"Device and label share information {information:.3g} (by chance {chance:.3g}, "
            f"p = {p_value:.3g}): the device alone tells {accuracy:.1%} of the labels, the "
            f"commonest label {baseline:.1%}."
        )


def _devices_unknown(layout: Layout) -> Iterator[str]:
    """What of the devices behind the images nobody measured."""
    if layout.manifest("device_groups") is None:
        yield (
            "Whether the images of different devices differ, and what that does to a model, was "
            "not measured."
        )
        return
    for table, what in _OF_DEVICES.items():
        found = layout.manifest(table)
        if found is None or not found.rows:
            yield f"{what} was not measured: images, labels or vectors were too few."


def _limitations(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """What was approximate, what was left out, and what is not known."""
    parameters = {manifest.table: manifest.origin.parameters for manifest in layout.manifests()}
    kept = layout.need("curated", "shard")
    limit = parameters["records"].get("limit")
    if limit is not None:
        yield f"At most {limit:,} inputs were taken; the source may hold more."
    if parameters.get("duplicates", {}).get("near"):
        yield (
            "Near duplicates were found by hashes of sketches, which is approximate: some pairs "
            "beyond the threshold remain."
        )
    if layout.manifest("semantic_summary") is not None:
        for share, low, high in connection.execute(
            "SELECT crossing, crossing_low, crossing_high FROM semantic_summary WHERE chosen"
        ).fetchall():
            yield (
                "Semantic duplicates were sought within clusters: of a sample "
                f"{share:.2%} (95% interval {low:.2%} to {high:.2%}) are close only to a record "
                "of another cluster."
            )
    if parameters.get("clusters", {}).get("precision") == "fast":
        yield "Clusters were computed in fast precision: records near a border may fall either way."
    if "contamination" in parameters:
        names = ", ".join(parameters["contamination"].get("benchmarks", ()))
        yield f"Contamination was sought from these benchmarks alone: {names}."
    else:
        yield "The records were compared with no benchmark: items of test sets may be among them."
    if "image" in layout.need("records", "ingest").schema.names:
        yield from _devices_unknown(layout)
    for column in ("language", "license", "label"):
        if column in kept.schema.names and kept.rows:
            none = connection.execute(
                f"SELECT count(*) FROM curated WHERE {column} IS NULL"
            ).fetchall()[0][0]
            if none:
                yield f"Of {kept.rows:,} kept records {none:,} state no {column}."


def _sensitive(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """How many records hold what the filters for secrets and personal data find."""
    if "image" in layout.need("records", "ingest").schema.names:
        yield (
            "The images stand as they came, with the metadata in their files. They were not "
            "searched for people, nor for places and times in that metadata."
        )
        return
    scores = layout.manifest("filter_scores")
    masked = layout.need("curated", "shard").origin.parameters.get("masked", [])
    for name, what in _FINDINGS.items():
        if scores is None or name not in scores.schema.names:
            yield f"The records were not searched for {what}."
            continue
        found, kept = connection.execute(
            f"SELECT count(*), count(*) FILTER (keep) FROM filter_scores "
            f'JOIN decisions USING (record_id) WHERE "{name}" > 0'
        ).fetchall()[0]
        text = f"Searched for {what}: found in {found:,} of {scores.rows:,} records"
        if not found:
            yield f"Searched for {what}: found in none of {scores.rows:,} records."
        elif name in masked:
            yield f"{text}, {kept:,} of them kept with the findings blanked."
        else:
            yield f"{text}, {kept:,} of them kept as they are."
