"""What ``shardwright audit-precision`` ends with: a table for a terminal, and a sentence."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from shardwright.quality.numerics.audit import Audit, listed
from shardwright.quality.numerics.deviation import share
from shardwright.quality.numerics.flips import SHARED
from shardwright.service.text import shown

_HEADS = ("near.", "dupl.", "clus.", "prun.", "anew")


def shown_audit(audit: Audit) -> Iterator[Table | Text]:
    """The variants that ran, what was not run and why, and which are safe for what."""
    table = Table(
        "variant",
        title="distance from the golden vectors, and records whose decisions flip",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for head in ("rel. L2", "W1*", *_HEADS, "Rand"):
        table.add_column(head, justify="right", no_wrap=True)
    for variant in audit.variants:
        if variant.deviation is None or variant.flips is None:
            continue
        apart = variant.deviation.w1 / audit.sampling.mean if audit.sampling.mean else 0.0
        table.add_row(
            shown(variant.name, 24),
            f"{variant.deviation.relative_l2:.1e}",
            f"{apart:.1e}",
            *(f"{100 * share(variant.flips.flipped[name]).share:.1f}%" for name in SHARED),
            f"{variant.flips.rand:.3f}",
        )
    yield table
    yield Text("* Wasserstein distance in multiples of that between halves of the records")
    reasons: dict[str, list[str]] = {}
    for variant in audit.variants:
        if variant.missing:
            reasons.setdefault(variant.missing, []).append(shown(variant.name, 24))
    for reason, names in reasons.items():
        yield Text(f"not run: {listed(names)}: {shown(reason, 200)}")
    yield Text(audit.verdict())
