"""Where a training job stands in its data: a few numbers that fit any number of ranks and workers.

A cursor binds a place in the delivered order to everything that this order depends on. What
differs is refused with both values, because going on would skip and repeat samples in silence.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from shardwright.errors import UserError

FORMAT: Final = 1

_REMEDY: Final = {
    "dataset_sha256": "open the curation that the cursor was made with",
    "order_algorithm": "give the shuffle and window that the cursor was made with, and the version "
    "of shardwright if these are the same",
    "seed": "give the cursor's seed",
    "canonical_nodes": "give the cursor's canonical_nodes",
    "global_batch": "choose batch_size so that batch_size times ranks (over replication) is the "
    "cursor's",
    "sources": "mix the sources and weights that the cursor was made with",
}


@dataclass(frozen=True)
class Cursor:
    """A place in the delivered order.

    Attributes:
        dataset_sha256: Names the contents.
        order_algorithm: Name and version of what makes the order.
        seed: Seed of the order.
        epoch: The epoch.
        global_samples: Samples that all ranks together have taken of the epoch.
        canonical_nodes: Streams of the order.
        global_batch: Samples of a step over all ranks.
        sources: Of a mixture, for each source by name its ``dataset_sha256``, its ``weight`` and
            its own ``epoch`` and ``samples`` up to here; else None.
    """

    dataset_sha256: str
    order_algorithm: str
    seed: int
    epoch: int
    global_samples: int
    canonical_nodes: int
    global_batch: int
    sources: Mapping[str, Mapping[str, Any]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain integers and strings, for a checkpoint or for JSON."""
        values = {"format": FORMAT, **asdict(self)}
        if self.sources is None:
            del values["sources"]
        return values


def read_cursor(values: Mapping[str, Any]) -> Cursor:
    """The cursor that ``Cursor.as_dict`` made into ``values``.

    Raises:
        UserError: They are no cursor, or one of another version.
    """
    if values.get("format") != FORMAT:
        raise UserError(
            f"the cursor has format {values.get('format')!r}, this version reads {FORMAT}"
        )
    kinds = {"dataset_sha256": str, "order_algorithm": str} | dict.fromkeys(
        ("seed", "epoch", "global_samples", "canonical_nodes", "global_batch"), int
    )
    for name, kind in kinds.items():
        if type(values.get(name)) is not kind:
            raise UserError(
                f"the cursor's {name} is {values.get(name)!r}; it must be of type {kind.__name__}"
            )
    strange = sorted(values.keys() - kinds.keys() - {"format", "sources"})
    if strange:
        raise UserError(f"the cursor has the unknown key {strange[0]!r}")
    sources = values.get("sources")
    if sources is not None and not isinstance(sources, Mapping):
        raise UserError(f"the cursor's sources are {sources!r}; they must be a mapping")
    return Cursor(**{name: values[name] for name in kinds}, sources=sources)


def check_cursor(given: Cursor, here: Cursor) -> None:
    """Refuses a cursor that was made with another order than the one here.

    Raises:
        UserError: Says what differs, both values, and the remedy.
    """
    for name, remedy in _REMEDY.items():
        theirs, ours = getattr(given, name), getattr(here, name)
        if name == "sources":
            theirs, ours = _fixed(theirs), _fixed(ours)
        if theirs != ours:
            raise UserError(f"the cursor has {name} {theirs!r}, the dataset has {ours!r}; {remedy}")


def _fixed(sources: Mapping[str, Mapping[str, Any]] | None) -> Any:
    """What of the sources does not move with the place."""
    if sources is None:
        return None
    names = ("dataset_sha256", "weight")
    return {key: {name: source.get(name) for name in names} for key, source in sources.items()}
