"""The variants of an audit beside each other: what each does, by which band, and what is safe."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from shardwright.quality.numerics.deviation import (
    Deviation,
    Float32,
    Sampling,
    deviation,
    ratio,
    sampling_band,
    share,
)
from shardwright.quality.numerics.flips import (
    DECISIONS,
    SHARED,
    Decisions,
    Flips,
    Rules,
    decide,
    flips,
    safe_for,
)

Layer = Literal["recipe", "forward", "storage", "input"]
RERUN = "rerun"
STEP = "stored bfloat16"
MEASURES = ("max_abs", "relative_l2", "cosine_mean", "cosine_max", "w1")
_SEEN = 0.5
"""Share of the records whose vectors a harmless change must change, to be a band."""
_WORDS = {
    "neighbour": "nearest neighbours",
    "duplicates": "duplicates",
    "cluster": "clusters with given centroids",
    "pruning": "pruning with given centroids",
    "pruning_anew": "pruning with new centroids",
    "clustering": "new centroids",
}


@dataclass(frozen=True, eq=False)
class Variant:
    """What one variant does.

    Attributes:
        name: Of it.
        layer: What is varied: the recipe as it is, the model's pass, the store, or the input.
        says: What differs.
        missing: Why it was not run; empty if it was.
        harmless: Whether it is a change of the input that nobody minds.
        deviation: From the golden vectors; of ``rerun`` from the first run.
        flips: Of decisions, likewise.
    """

    name: str
    layer: Layer
    says: str
    missing: str = ""
    harmless: bool = False
    deviation: Deviation | None = None
    flips: Flips | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Records, their golden vectors, and what was decided on these."""

    record_ids: Sequence[str]
    rules: Rules
    golden: Float32
    decisions: Decisions
    sampling: Sampling

    @staticmethod
    def of(record_ids: Sequence[str], golden: Float32, rules: Rules, seed: int = 0) -> "Comparison":
        """Decides on the golden vectors float32 [n, d]; ``seed`` is of the halves."""
        decisions = decide(record_ids, golden, rules)
        return Comparison(record_ids, rules, golden, decisions, sampling_band(golden, seed))

    def variant(self, name: str, layer: Layer, says: str, vectors: Float32, **rest: Any) -> Variant:
        """Compares vectors float32 [n, d] with the golden ones."""
        other = self.decisions
        if not np.array_equal(vectors, self.golden):
            other = decide(self.record_ids, vectors, self.rules, self.decisions.centroids)
        return Variant(
            name,
            layer,
            says,
            deviation=deviation(self.golden, vectors),
            flips=flips(self.golden, self.decisions, other),
            **rest,
        )


@dataclass(frozen=True, eq=False)
class Audit:
    """All variants of a model on some records.

    Attributes:
        variants: In order; those that are bands are among them.
        sampling: The band of sampling.
        records: How many.
        about: What else there is to know, by name: model, golden, rules and so on.
    """

    variants: tuple[Variant, ...]
    sampling: Sampling
    records: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def harmless(self) -> Variant | None:
        """The band of a harmless change: the first that changes at least half of the vectors."""
        for variant in self.variants:
            if variant.harmless and variant.deviation and variant.deviation.changed >= _SEEN:
                return variant
        return None

    @property
    def bands(self) -> dict[str, Variant | None]:
        """The bands that are variants, by what the columns call them."""
        named = {variant.name: variant for variant in self.variants}
        return {"rerun": named.get(RERUN), "step": named.get(STEP), "harmless": self.harmless}

    def safe(self, variant: Variant) -> tuple[str, ...]:
        """The decisions that a variant is shown to be safe for: all if it has the golden bits."""
        if variant.deviation is None or variant.flips is None:
            return ()
        if variant.deviation.changed == 0:
            return DECISIONS
        below = variant.deviation.w1 < self.sampling.low
        harmless = self.harmless
        return safe_for(variant.flips, None if harmless is None else harmless.flips, below)

    def rows(self) -> list[dict[str, Any]]:
        """A flat row for each variant, of the columns that ``precision.parquet`` has."""
        return [self._row(variant) for variant in self.variants]

    def _row(self, variant: Variant) -> dict[str, Any]:
        row: dict[str, Any] = {
            "variant": variant.name,
            "layer": variant.layer,
            "says": variant.says,
            "missing": variant.missing or None,
            "compared_with": "the first run" if variant.name == RERUN else "golden",
        }
        if variant.deviation is None or variant.flips is None:
            return row
        values = asdict(variant.deviation)
        row |= values
        row["w1_by_sampling"] = ratio(values["w1"], self.sampling.mean)
        shares = {name: share(variant.flips.flipped[name]) for name in SHARED}
        for name, found in shares.items():
            row |= {
                f"{name}_flips": found.hits,
                f"{name}_share": found.share,
                f"{name}_low": found.low,
                f"{name}_high": found.high,
            }
        for band, held in self.bands.items():
            if held is None or held.deviation is None or held.flips is None:
                continue
            for measure in MEASURES:
                by = ratio(values[measure], getattr(held.deviation, measure))
                row[f"{measure}_by_{band}"] = by
            for name, found in shares.items():
                by = ratio(found.share, share(held.flips.flipped[name]).share)
                row[f"{name}_by_{band}"] = by
        low, high = variant.flips.rand_interval
        return row | {
            "pairs": variant.flips.pairs,
            "pairs_lost": variant.flips.lost,
            "pairs_gained": variant.flips.gained,
            "rand": variant.flips.rand,
            "rand_low": low,
            "rand_high": high,
            "safe_for": list(self.safe(variant)),
        }

    def verdict(self) -> str:
        """One sentence: which variants, bands aside, are safe for which decisions."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for variant in self.variants:
            if variant.deviation and not variant.harmless and variant.name not in (RERUN, STEP):
                groups.setdefault(self.safe(variant), []).append(variant.name)
        said = [
            f"{listed(names)} {'is' if len(names) == 1 else 'are'} {_safe(decisions)}"
            for decisions, names in sorted(groups.items(), key=lambda item: -len(item[0]))
        ]
        harmless = self.harmless
        rule = "safe: the golden bits; the model sees no harmless change to compare others with"
        if harmless is not None:
            rule = (
                "safe: the golden bits, or below the sampling band and shown, at 95%, to flip no "
                f"more than {harmless.says}"
            )
        return f"On {self.records:,} records {'; '.join(said)} ({rule})."


def columns() -> list[tuple[str, type]]:
    """Names and types of the columns of ``Audit.rows``, in order."""
    texts = ("variant", "layer", "says", "missing", "compared_with")
    found: list[tuple[str, type]] = [(name, str) for name in texts]
    found += [(name, float) for name in (*MEASURES, "changed", "w1_by_sampling")]
    bands = ("rerun", "step", "harmless")
    found += [(f"{name}_by_{band}", float) for band in bands for name in MEASURES]
    for name in SHARED:
        found.append((f"{name}_flips", int))
        found += [(f"{name}_{part}", float) for part in ("share", "low", "high")]
        found += [(f"{name}_by_{band}", float) for band in bands]
    found += [(name, int) for name in ("pairs", "pairs_lost", "pairs_gained")]
    found += [(name, float) for name in ("rand", "rand_low", "rand_high")]
    return [*found, ("safe_for", list)]


def listed(names: Iterable[str]) -> str:
    """Names as words: a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _safe(decisions: tuple[str, ...]) -> str:
    if not decisions:
        return "not shown to be safe for any decision"
    if set(decisions) == set(DECISIONS):
        return "safe for all decisions"
    safe = [_WORDS[name] for name in DECISIONS if name in decisions]
    other = [_WORDS[name] for name in DECISIONS if name not in decisions]
    return f"safe for {listed(safe)} (not shown for {listed(other)})"
