"""The pruning methods: what each is called, what it needs, and what a decision by it says.

Packages add further ones, see ``added``.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Need: TypeAlias = Literal["clusters", "vectors", "contents", "calibration", "labels"]

_BOTH = frozenset({"code", "image"})
_CODE = frozenset({"code"})


@dataclass(frozen=True)
class Method:
    """A pruning method, and the column of ``scores`` of the same name.

    Attributes:
        name: Its name.
        modalities: ``code``, ``image`` or both.
        needs: What it is computed from, beside the narrow columns of ``records``: the stage
            ``cluster``, the stage ``embed``, contents, records that are damaged on purpose, or
            records that a user labelled.
        reasons: Codes of ``decisions.reason`` for what it prunes. Where there are two: ``scip``
            says which by its criterion (size, distance), ``ssl_prototypes`` by what is kept (hard,
            easy), ``length`` by the modality (code, image).
        paper: Where it comes from; empty for baselines.
        description: One line.
    """

    name: str
    modalities: frozenset[str]
    needs: frozenset[Need]
    reasons: tuple[str, ...]
    paper: str
    description: str


METHODS: tuple[Method, ...] = (
    Method(
        "scip",
        _BOTH,
        frozenset({"clusters"}),
        ("small_cluster", "far_from_centroid"),
        "Yang et al. 2023, arXiv 2312.02418",
        "Prunes small clusters, then what is far from its centroid.",
    ),
    Method(
        "ssl_prototypes",
        _BOTH,
        frozenset({"clusters"}),
        ("near_prototype", "far_from_prototype"),
        "Sorscher et al. 2022, arXiv 2206.14486",
        "Prunes what is nearest to its centroid: the easy, ordinary records.",
    ),
    Method(
        "semdedup",
        _BOTH,
        frozenset({"clusters", "vectors"}),
        ("semantic_duplicate",),
        "Abbas et al. 2023, arXiv 2303.09540",
        "Prunes what is most similar to a record before it in its cluster.",
    ),
    Method(
        "d4",
        _BOTH,
        frozenset({"clusters", "vectors"}),
        ("d4",),
        "Tirumala et al. 2023, arXiv 2308.12284",
        "Prunes semantic duplicates, clusters anew, then prunes what is nearest to its centroid.",
    ),
    Method(
        "density",
        _BOTH,
        frozenset({"clusters"}),
        ("dense_cluster",),
        "Abbas et al. 2024, arXiv 2401.04578",
        "Prunes most from clusters that are dense and lie close to others.",
    ),
    Method(
        "length",
        _BOTH,
        frozenset(),
        ("short", "small"),
        "",
        "Prunes the shortest texts or the smallest pictures; a baseline.",
    ),
    Method(
        "perplexity",
        _CODE,
        frozenset({"contents"}),
        ("surprising",),
        "",
        "Prunes what surprises a language model of the corpus most.",
    ),
    Method(
        "random",
        _BOTH,
        frozenset(),
        ("at_random",),
        "",
        "Prunes records drawn by their ids; a baseline.",
    ),
    Method(
        "scip_probe",
        _BOTH,
        frozenset({"clusters", "vectors", "calibration"}),
        ("like_damaged",),
        "after Yang et al. 2023, arXiv 2312.02418",
        "Prunes what lies where records lie that were damaged on purpose.",
    ),
    Method(
        "damage",
        _BOTH,
        frozenset({"clusters", "vectors", "contents", "calibration"}),
        ("damaged",),
        "",
        "Prunes records that views of many kinds together find damaged.",
    ),
    Method(
        "classifier",
        _BOTH,
        frozenset({"vectors", "contents", "labels"}),
        ("low_quality",),
        "Li et al. 2024, arXiv 2406.11794; Penedo et al. 2024, arXiv 2406.17557",
        "Prunes what a model that learned from labelled records finds bad.",
    ),
)
"""All methods that ship, in the order of the columns of ``scores``."""
