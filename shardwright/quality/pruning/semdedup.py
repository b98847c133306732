"""SemDeDup as a score: how unlike a record is to all that stand before it in its cluster.

Abbas, Tirumala, Simig, Ganguli and Morcos 2023 (arXiv 2303.09540), sec. 3: the records of a cluster
stand in order of their distance from the centroid, the farthest first, and a record goes if any
before it is more similar than a threshold. The greatest similarity to an earlier record therefore
answers for all thresholds at once: pruning a fraction is SemDeDup at the threshold that yields this
fraction, ties aside.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shardwright.quality.pruning.relations import Float64, Ids, evaluate, relation

if TYPE_CHECKING:
    from shardwright.quality.close_pairs import Rows


def semdedup_query(similarities: str) -> str:
    """SQL for the score: 1 - similarity, from 0 for a copy to 2 for the first of a cluster.

    Args:
        similarities: A relation with ``record_id`` and ``similarity``, of ``earlier_similarity``.

    Returns:
        A query that yields ``record_id`` and ``semdedup``.
    """
    return f"SELECT record_id, 1 - similarity AS semdedup FROM {similarities}"


def semdedup_score(
    record_ids: Ids,
    vectors: "Rows",
    clusters: npt.ArrayLike,
    distances: npt.ArrayLike,
    device: str | None = None,
) -> Float64:
    """The score in memory; equally far records stand in order of their ids.

    Args:
        record_ids: n ids.
        vectors: rows [n, d], see ``earlier_similarity``.
        clusters: int32 [n].
        distances: float64 [n], 1 - cosine to the own centroid.
        device: ``cpu`` or ``cuda``; by default where the vectors lie.

    Returns:
        float64 [n], from 0 to 2.

    Raises:
        TypeError, ValueError: see ``earlier_similarity``; or an id comes twice.
    """
    from shardwright.quality.pruning.similarity import earlier_similarity

    ties = np.asarray(record_ids, np.str_)
    similarity = earlier_similarity(vectors, clusters, distances, ties, device)
    table = relation(record_ids, similarity=similarity)
    score: Float64 = evaluate(semdedup_query("similarities"), record_ids, similarities=table)
    return score
