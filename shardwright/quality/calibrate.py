"""From records that were damaged on purpose to detectors of damage, and what these say of records.

The study of a curation and every fold of a trial calibrate by this one function; they differ in the
families of damage that they learn from.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.errors import UserError
from shardwright.quality import observations
from shardwright.quality.corruptions import corruptions
from shardwright.quality.damage import fit_damage
from shardwright.quality.detectors import Detectors
from shardwright.quality.probe import Float32, Vectors, fit_probe, folds_of

Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]

DOCUMENTS = 4096
"""So many records at the most tell what documents are like."""
EXTRA = ("scip_probe", "rare", "far", "length")
"""Views of ``damage`` beside those of ``observations``: the probe, the cluster, and the length."""


@dataclass(frozen=True)
class Observed:
    """What is known of n records or copies.

    Attributes:
        vectors: Of them and of their windows.
        values: float64 [n, m], the views of ``observations``; NaN where one does not apply.
        languages: Of each, or None.
        sizes: int64 [n], how many records the nearest cluster holds, 1 at least.
        distances: float64 [n], 1 - cosine to its centroid.
        lengths: int64 [n], bytes.
    """

    vectors: Vectors
    values: Float64
    languages: Sequence[str | None]
    sizes: Int64
    distances: Float64
    lengths: Int64

    def with_probe(self, probed: Float64) -> Float64:
        """All views of ``damage`` side by side, float64 [n, m + 4]; ``probed`` is the probe's."""
        extra = [probed, -np.log(self.sizes), self.distances, np.log1p(self.lengths)]
        return np.column_stack([self.values, *extra])


def calibrate(
    modality: str,
    documents: Float32,
    study: Observed,
    sources: Int64,
    kinds: npt.NDArray[np.str_],
    without: Collection[str] = (),
) -> Detectors:
    """Calibrates the probe and ``damage`` on records and damaged copies of them.

    Args:
        modality: ``code`` or ``image``.
        documents: float32 [r, d], what documents are like.
        study: n records and copies. Every record stands there once as it is, in order of its
            number.
        sources: int64 [n], the number of the record that each is, or is a copy of.
        kinds: [n], the kind of damage; empty for a record as it is.
        without: Families of damage whose copies are left out.

    Raises:
        UserError: No copy is left to learn from.
    """
    families = {kind.name: kind.family for kind in corruptions(modality).values()}
    clean = np.flatnonzero(kinds == "")
    bad = np.flatnonzero([kind != "" and families[kind] not in without for kind in kinds.tolist()])
    if not len(bad):
        raise UserError(
            "of the records that are to teach what damage looks like none can be damaged; take "
            "more of them, or leave fewer families of damage out"
        )
    named = [families[kind] for kind in kinds[bad].tolist()]
    probe = fit_probe(
        documents, study.vectors.take(clean), study.vectors.take(bad), sources[bad], named
    )
    folds = folds_of(study.vectors.documents[clean])[sources]
    values = study.with_probe(probe.judge(study.vectors, folds))
    seen = observations.views(modality)
    languages = np.array(study.languages, dtype=object)
    damage = fit_damage(
        [view.name for view in seen] + list(EXTRA),
        [view.odd for view in seen] + [name == "length" for name in EXTRA],
        values[clean],
        languages[clean].tolist(),
        values[bad],
        languages[bad].tolist(),
        named,
    )
    return Detectors(probe, damage)


def judge(detectors: Detectors, records: Observed) -> tuple[Float64, Float64, list[str | None]]:
    """Log odds [n] of the probe and of ``damage``, and the view that says most for damage."""
    probed = detectors.probe.judge(records.vectors)
    full = records.with_probe(probed)
    added = detectors.damage.contributions(full, records.languages)
    judged = added.sum(axis=1) + detectors.damage.bias
    most = added.argmax(axis=1)
    names = detectors.damage.names
    spoke = [names[j] if added[i, j] > 0 else None for i, j in enumerate(most)]
    return probed, judged, spoke
