"""What records are grouped by: columns of ``records``, and the device of an image."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from shardwright.errors import UserError

if TYPE_CHECKING:
    from shardwright.metadata.layout import Layout
    from shardwright.metadata.manifest import Manifest

Grouping: TypeAlias = Literal["device", "label", "language", "license", "repository"]

_OF_MODALITY: dict[str, tuple[Grouping, ...]] = {
    "code": ("language", "license", "repository"),
    "image": ("device", "label", "repository"),
}
_NEEDED = "device_statistics"


def check_grouping(key: str, grouping: Grouping | None, modality: str, devices: bool) -> None:
    """Raises ValueError where records of the modality are in no such groups.

    Args:
        key: Of the recipe, for the message.
        grouping: What it says.
        modality: ``code`` or ``image``.
        devices: Whether the recipe has ``heterogeneity``.
    """
    if grouping is None:
        return
    known = _OF_MODALITY[modality]
    if grouping not in known:
        raise ValueError(
            f"{key} {grouping!r}: {modality} records are not in such groups; there are "
            f"{', '.join(known)}"
        )
    if grouping == "device" and not devices:
        raise ValueError(
            f"{key} 'device': groups by device are found by heterogeneity, and it is null; give "
            "heterogeneity: {}"
        )


def group_of(grouping: Grouping | None) -> str:
    """SQL for the group of a record, beside ``records`` and the tables that ``with_groups`` joins.

    Without a grouping all records are in one.
    """
    if grouping is None:
        return "''"
    if grouping == "device":
        return f"coalesce({_NEEDED}.\"group\", '')"
    return f"coalesce(records.{grouping}, '')"


def with_groups(*groupings: Grouping | None) -> str:
    """SQL that joins ``records`` with what these groupings need."""
    return f"JOIN {_NEEDED} USING (record_id)" if "device" in groupings else ""


def grouping_tables(
    layout: "Layout", rule: str | None, *groupings: Grouping | None
) -> "list[Manifest]":
    """The tables beside ``records`` that tell the groups.

    Args:
        layout: The output.
        rule: The recipe's rule of devices.
        groupings: What is grouped by.

    Raises:
        UserError: They were made by another rule, or not at all.
    """
    if "device" not in groupings:
        return []
    table = layout.need(_NEEDED, "heterogeneity")
    if table.origin.parameters != {"group": rule}:
        raise UserError(
            f"{table.folder}: grouped by another rule than the recipe's; run stage "
            "'heterogeneity' first"
        )
    return [table]
