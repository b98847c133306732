"""Pruning methods: what each record is worth, one number a record, higher is more worth keeping.

A method prunes the ``round(fraction * n)`` records of the lowest scores, ties by ``record_id``. All
that is arithmetic on narrow columns is a query, which runs out of core where the tables are, and
in memory over arrays by the function of the same method.

Names are loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwright.quality.pruning.added import AddedScore, LiveRecords
    from shardwright.quality.pruning.classifier import Classifier, fit
    from shardwright.quality.pruning.cut import pruned, pruned_count
    from shardwright.quality.pruning.d4 import d4_score
    from shardwright.quality.pruning.density import density_score
    from shardwright.quality.pruning.methods import METHODS, Method
    from shardwright.quality.pruning.prototypes import ssl_prototypes_score
    from shardwright.quality.pruning.semdedup import semdedup_score
    from shardwright.quality.pruning.similarity import earlier_similarity
    from shardwright.quality.pruning.simple import length_score, random_score

__all__ = [
    "METHODS",
    "AddedScore",
    "Classifier",
    "LiveRecords",
    "Method",
    "d4_score",
    "density_score",
    "earlier_similarity",
    "fit",
    "length_score",
    "pruned",
    "pruned_count",
    "random_score",
    "semdedup_score",
    "ssl_prototypes_score",
]

_HOMES = {
    "METHODS": "methods",
    "AddedScore": "added",
    "Classifier": "classifier",
    "LiveRecords": "added",
    "Method": "methods",
    "d4_score": "d4",
    "density_score": "density",
    "earlier_similarity": "similarity",
    "fit": "classifier",
    "length_score": "simple",
    "pruned": "cut",
    "pruned_count": "cut",
    "random_score": "simple",
    "semdedup_score": "semdedup",
    "ssl_prototypes_score": "prototypes",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
