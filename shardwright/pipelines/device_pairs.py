"""The job of ``heterogeneity`` that compares two groups: shift, attribution and ruler."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shardwright.pipelines.devices import Sample
from shardwright.pipelines.encoding import Encoding
from shardwright.pipelines.jobs import Output

if TYPE_CHECKING:
    from shardwright.quality.heterogeneity.attribution import Part
    from shardwright.quality.heterogeneity.shift import Settings, Space

_RULED = "mmd"
"""The measure that is read on a ruler."""
_SIDE, _GRID = 512, 16
"""Pixels each way of the middle of an image that changes are tried on, and of a JPEG's unit."""

Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ComparePair:
    """Compares two groups on a sample, and tells which stages make them differ.

    Attributes:
        sample: File of the sample.
        images: File of images of each group, by ``write_images``; None to attribute nothing.
        settings: How groups are compared.
        encoding: How images are embedded, if they are.
    """

    sample: Path
    images: Path | None
    settings: "Settings"
    encoding: Encoding | None

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Leaves the rows of ``payload["pair"]`` and notes on it."""
        from shardwright.quality.heterogeneity.device_statistics import STATISTICS
        from shardwright.quality.heterogeneity.shift import NOT_ENOUGH, device_shift

        pair = payload["pair"]
        ours = Sample.load(self.sample).of(pair)
        rows, notes = [], []
        names = [one.name for one in STATISTICS]
        spaces: list[tuple[Space, npt.NDArray[Any] | None, list[str]]] = [
            ("statistics", ours.statistics, names),
            ("embedding", ours.vectors, []),
        ]
        for space, values, columns in spaces:
            if values is None:
                continue
            found = device_shift(
                ours.record_ids,
                ours.groups,
                values,
                space,
                columns=columns,
                strata=ours.strata,
                settings=self.settings,
            )
            rows += [asdict(row) for row in found.rows]
            notes += [note for note in found.notes if NOT_ENOUGH in note]
        output.result = {"shift": rows, "notes": notes, "stages": [], "p_value": None}
        if self.images is not None:
            output.result |= self._explained(pair, ours, read_images(self.images, pair), rows)

    def _explained(
        self,
        pair: Sequence[str],
        ours: Sample,
        images: dict[str, list[Pixels]],
        rows: list[dict[str, Any]],
    ) -> dict[str, Any]:
        """The stages by rank, their p, and the readings of ``rows``."""
        from shardwright.quality.heterogeneity import attribution
        from shardwright.quality.heterogeneity.device_statistics import STATISTICS

        names = [one.name for one in STATISTICS]
        sides = ours.sides(pair, self.settings.least, self.settings.seed)
        told = [
            [dict(zip(names, values, strict=True)) for values in ours.statistics[side].tolist()]
            for side in sides
        ]
        found = attribution.attribute(
            told[0],
            told[1],
            images[pair[0]],
            images[pair[1]],
            settings=attribution.Settings(
                least=self.settings.least,
                permutations=self.settings.permutations,
                seed=self.settings.seed,
            ),
        )
        if found.parts:
            self._read(pair, ours, images, found.parts[0], rows)
        return {
            "stages": [(part.stage, part.share) for part in found.parts],
            "p_value": None if np.isnan(found.p_value) else found.p_value,
        }

    def _read(
        self,
        pair: Sequence[str],
        ours: Sample,
        images: dict[str, list[Pixels]],
        part: "Part",
        rows: list[dict[str, Any]],
    ) -> None:
        """Puts the reading of the MMD into ``rows``."""
        from shardwright.quality.heterogeneity.reading import read_shift, shown_statistics

        moved = images[pair["ab".index(part.moved)]]
        for row in rows:
            if row["measure"] != _RULED:
                continue
            least = self.settings.least if row["matched"] else None
            a, b = ours.sides(pair, least, self.settings.seed)
            if row["space"] == "statistics":
                x, y, represent = shown_statistics(ours.statistics[a], ours.statistics[b])
                reading = read_shift(x, y, moved, represent, part, self.settings.seed)
            elif self.encoding is not None and ours.vectors is not None:
                reading = read_shift(
                    ours.vectors[a], ours.vectors[b], moved, self._embed, part, self.settings.seed
                )
            else:
                continue
            row |= {
                "ruler_stage": reading.stage,
                "ruler_amount": reading.amount,
                "ruler_where": reading.where,
            }

    def _embed(self, images: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        assert self.encoding is not None
        return np.asarray(self.encoding.encoder.encode([_png(one) for one in images]), np.float32)


def write_images(path: Path, images: Iterable[tuple[str, str, bytes]]) -> None:
    """Writes the middle of encoded images: group, id, and content, those of a group in a row."""
    schema = pa.schema([("group", pa.string()), ("image", pa.large_binary())])
    staged = path.with_suffix(".staged")
    with pq.ParquetWriter(staged, schema) as writer:
        for group, members in groupby(images, key=lambda one: one[0]):
            shown = [_png(_middle(content)) for _, _, content in members]
            table = pa.table({"group": [group] * len(shown), "image": shown}, schema)
            writer.write_table(table, row_group_size=len(shown))
    staged.rename(path)


def read_images(path: Path, groups: Sequence[str]) -> dict[str, list[Pixels]]:
    """The images of some groups, uint8 [height, width, 3] each."""
    from shardwright.embeddings.pixels import decode_rgb

    found: dict[str, list[Pixels]] = {name: [] for name in groups}
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            name = file.read_row_group(number, columns=["group"]).column("group")[0].as_py()
            if name in found:
                column = file.read_row_group(number, columns=["image"]).column("image")
                found[name] += [np.asarray(decode_rgb(data)) for data in column.to_pylist()]
    return found


def _middle(data: bytes) -> Pixels:
    from shardwright.embeddings.pixels import decode_rgb

    pixels = np.asarray(decode_rgb(data))
    rows, columns = (max(0, (size - _SIDE) // 2) // _GRID * _GRID for size in pixels.shape[:2])
    return pixels[rows : rows + _SIDE, columns : columns + _SIDE]


def _png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def pairs(groups: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every two groups, each pair once."""
    for place, name in enumerate(sorted(groups)):
        for other in sorted(groups)[:place]:
            yield other, name


def adjusted(rows: Sequence[Mapping[str, Any]], correction: Any) -> list[dict[str, Any]]:
    """Rows of all pairs, with p adjusted over the pairs of one measure, space and matching."""
    from shardwright.quality.heterogeneity.multiplicity import adjust

    found = [dict(row) for row in rows]
    for kind in sorted({(row["space"], row["matched"], row["measure"]) for row in found}):
        ours = [row for row in found if (row["space"], row["matched"], row["measure"]) == kind]
        values = adjust([row["p_value"] for row in ours], correction)
        for row, value in zip(ours, values.tolist(), strict=True):
            row["p_adjusted"] = value
    return found
