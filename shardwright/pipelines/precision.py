"""``shardwright audit-precision``: a sample embedded in other ways, and which decisions that turns.

The source is ingested into the output folder (what is committed there is not read again), a seeded
sample of the live records is drawn, and every variant embeds this same sample in the driver.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shardwright.embeddings.encoder import Encoder
from shardwright.embeddings.model import Model
from shardwright.embeddings.sampling import automatic_k
from shardwright.errors import DataError, UserError
from shardwright.metadata.files import write_whole
from shardwright.metadata.layout import Layout
from shardwright.pipelines.alive import alive_parts, drops_query
from shardwright.pipelines.curate import curate
from shardwright.pipelines.damage import smallest
from shardwright.pipelines.progress import Reporter
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.run import Run, locked
from shardwright.pipelines.stages.ingest import plan as plan_ingest
from shardwright.quality.numerics.audit import RERUN, STEP, Audit, Comparison, Variant, columns
from shardwright.quality.numerics.deviation import Float32, stored
from shardwright.quality.numerics.flips import Rules, decide
from shardwright.quality.numerics.forward import Golden, encode, golden, vectors, ways
from shardwright.quality.numerics.inputs import Change, image_inputs, text_inputs

RECORDS = 500
LEAST = 40
"""On fewer records nothing is said."""
THRESHOLD = 0.95
"""Cosine similarity of duplicates where the recipe has no semantic ones."""
_MEMBERS = 10
"""Records of a sample that a cluster has at least, on average."""


@dataclass(frozen=True)
class Sample:
    """Records that every variant embeds.

    Attributes:
        record_ids: n ids.
        contents: Bytes of each.
        languages: Of texts; None for pictures.
        copies: Records that were drawn and left out, as they are copies of others.
    """

    record_ids: tuple[str, ...]
    contents: tuple[bytes, ...]
    languages: tuple[str | None, ...]
    copies: int

    def inputs(self, modality: str, change: Change | None = None) -> list[Any]:
        """Texts or encoded pictures, as an encoder takes them, or changed ones."""
        changed = self.contents
        if change is not None:
            pairs = zip(self.contents, self.languages, strict=True)
            changed = tuple(change(data, language) for data, language in pairs)
        return [data.decode() for data in changed] if modality == "code" else list(changed)


def audit_precision(
    recipe: Recipe,
    output: Path,
    *,
    records: int = RECORDS,
    seed: int = 0,
    beam_arguments: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Audit:
    """Embeds a sample in all ways there are here, and writes what came of it.

    Args:
        recipe: Its source, its model, and the decisions that it asks for.
        output: Folder of a curation, or of one to come; gets ``precision.json`` and
            ``precision.parquet``.
        records: How many different ones are drawn at most.
        seed: Of the sample and of halves of it.
        beam_arguments: For the stage ``ingest``.
        reporter: Says what goes on.

    Raises:
        UserError: Wrong usage, recipe or output.
        DataError: The data failed, or the records are too few.
    """
    run = Run(
        recipe, Layout(output.absolute()), beam_arguments, None, False, reporter or Reporter()
    )
    encoder = run.encoder  # a model that is not there is known before anything is read,
    _check_curation(run)  # and so is a curation that this one would spoil
    curate(
        recipe,
        output,
        stages=("ingest",),
        beam_arguments=beam_arguments,
        reporter=run.reporter,
    )
    with locked(run.layout.root):
        sample = _sample(run, records, seed)
        Image.MAX_IMAGE_PIXELS = None  # ingest has decoded them whole, under the recipe's limit
        found = _audit(run, encoder, sample, seed)
        _write(run.layout.root, found)
    return found


def _check_curation(run: Run) -> None:
    """What was made of records that are there must be of this recipe, as ingest would redo them.

    Raises:
        UserError: The folder holds the curation of another recipe, or a stale one.
    """
    layout = run.layout
    records = layout.manifest("records")
    if records is None or all(one.origin.stage == "ingest" for one in layout.manifests()):
        return
    remedy = "name another folder, or run `shardwright curate` with this recipe there"
    planned = [(task.key, task.fingerprint) for task in plan_ingest(run)]
    if planned != [(part.key, part.fingerprint) for part in records.parts()]:
        raise UserError(
            f"--output {layout.root}: holds a curation of other inputs or of another recipe, whose "
            f"records an audit would replace: {remedy}"
        )
    _, dropping = drops_query(run, "embed")
    wanted = {item.name for item in run.recipe.filters if item.action == "drop"}
    for table in dropping:
        lacking = sorted(wanted - set(table.schema.names)) if table.origin.stage == "filter" else []
        if lacking:
            raise UserError(
                f"--output {layout.root}: was filtered by another recipe, without "
                f"{', '.join(lacking)}: {remedy}"
            )
        for name, content in table.origin.inputs.items():
            now = layout.manifest(name)
            if now is None or now.content_sha256 != content:
                raise UserError(
                    f"--output {layout.root}: its {table.table} are stale, made from {name} that "
                    f"have changed since: {remedy}"
                )


def _sample(run: Run, records: int, seed: int) -> Sample:
    """The live records whose sample keys are smallest.

    Raises:
        DataError: They are too few.
    """
    table = run.layout.need("records", "ingest")
    live = list(alive_parts(run, table, "embed"))
    drawn = records
    while True:
        rows = smallest(table, live, drawn, seed, run.recipe.modality)
        once = {row["content"]: row for row in reversed(rows)}
        different = [row for row in rows if once[row["content"]] is row]
        if len(different) >= records or len(rows) < drawn:
            break
        drawn *= 2  # in place of copies
    kept = different[:records]
    if len(kept) < LEAST:
        raise DataError(
            f"{run.recipe.source.uri}: {len(kept)} different records are not enough data for an "
            f"audit; at least {LEAST} are needed"
        )
    ids, contents, languages = (
        tuple(row[key] for row in kept) for key in ("record_id", "content", "language")
    )
    return Sample(ids, contents, languages, len(rows) - len(different))


def _audit(run: Run, encoder: Encoder, sample: Sample, seed: int) -> Audit:
    recipe, model = run.recipe, run.model
    plain = sample.inputs(recipe.modality)
    run.reporter.note("precision  golden")
    best, rows = golden(model, encoder, plain)
    rules, threshold_from = _rules(recipe, rows)
    held = Comparison.of(sample.record_ids, rows, rules, seed)
    variants = (
        *_forward(run, model, encoder, held, plain),
        *_inputs(run, best, held, sample),
    )
    about = {
        "recipe": recipe.name,
        "modality": recipe.modality,
        "model": encoder.name,
        "encoder": encoder.description,
        "golden": best.says,
        "seed": seed,
        "copies_left_out": sample.copies,
        "dimension": int(rows.shape[1]),
        "rules": {**asdict(rules), "threshold_from": threshold_from},
    }
    return Audit(variants, held.sampling, len(plain), about)


def _rules(recipe: Recipe, rows: Float32) -> tuple[Rules, str]:
    """How the recipe decides, and where its threshold of duplicates comes from.

    A sample has fewer records than the collection, so it gets fewer clusters.
    """
    semantic, clusters, prune = recipe.duplicates.semantic, recipe.clusters, recipe.prune
    threshold, origin = THRESHOLD, "the recipe has no semantic duplicates"
    if semantic is not None and semantic.threshold is not None:
        threshold, origin = semantic.threshold, "duplicates.semantic.threshold"
    elif semantic is not None and semantic.target is not None:
        from shardwright import kernels
        from shardwright.quality.semdedup import threshold_for

        _, highest = kernels.group_max(rows, np.array([0, len(rows)]))
        threshold = threshold_for(highest, semantic.target)
        origin = f"what leaves duplicates.semantic.target {semantic.target:g} of the sample"
    k = clusters.k if isinstance(clusters.k, int) else automatic_k(len(rows))
    rest = {} if prune is None else {"fraction": prune.fraction, "alpha": prune.alpha}
    few = max(2, len(rows) // _MEMBERS)
    return Rules(threshold, min(k, few), clusters.seed, clusters.start, **rest), origin


def _forward(
    run: Run, model: Model, encoder: Encoder, held: Comparison, plain: list[Any]
) -> Iterator[Variant]:
    """The recipe, the same again, other ways to run the model, and other stores."""
    run.reporter.note("precision  recipe")
    first = encode(encoder, plain)
    kept = stored(first, "float16") if model.dtype == "float16" else first
    says = f"as the recipe says, stored as {model.dtype}"
    yield held.variant("recipe", "recipe", says, kept)
    run.reporter.note(f"precision  {RERUN}")
    decisions = decide(held.record_ids, first, held.rules)
    again = replace(held, golden=first, decisions=decisions)
    yield again.variant(RERUN, "recipe", "the recipe again", encode(encoder, plain))
    for way in ways(model):
        if way.missing:
            yield Variant(way.name, "forward", way.says, way.missing)
            continue
        run.reporter.note(f"precision  {way.name}")
        try:
            found = vectors(way, model, plain)
        except DataError as error:
            yield Variant(way.name, "forward", way.says, str(error))
            continue
        yield held.variant(way.name, "forward", way.says, found)
    says = "the recipe's vectors stored as float16"
    yield held.variant("stored float16", "storage", says, stored(first, "float16"))
    says = "the golden vectors stored as bfloat16"
    yield held.variant(STEP, "storage", says, stored(held.golden, "bfloat16"))


def _inputs(run: Run, best: Golden, held: Comparison, sample: Sample) -> Iterator[Variant]:
    """Other inputs of the golden encoder."""
    modality = run.recipe.modality
    other = text_inputs() if modality == "code" else image_inputs(best.resizing, best.drafts)
    for each in other:
        if each.change is None:
            yield Variant(each.name, "input", each.says, each.missing, each.harmless)
            continue
        run.reporter.note(f"precision  {each.name}")
        rows = best.vectors(sample.inputs(modality, each.change))
        yield held.variant(each.name, "input", each.says, rows, harmless=each.harmless)


def _write(root: Path, found: Audit) -> None:
    """Writes ``precision.parquet`` and ``precision.json``."""
    rows = found.rows()
    kinds = {str: pa.string(), float: pa.float64(), int: pa.int64(), list: pa.list_(pa.string())}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns()])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer, compression="zstd")
    write_whole(root / "precision.parquet", buffer.getvalue())
    bands = {name: band and band.name for name, band in found.bands.items()}
    whole = {
        **found.about,
        "records": found.records,
        "bands": {"sampling": asdict(found.sampling), **bands},
        "variants": rows,
        "verdict": found.verdict(),
    }
    write_whole(root / "precision.json", json.dumps(whole, indent=1, allow_nan=False) + "\n")
