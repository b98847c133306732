"""Which record of a group of duplicates stays: the order in which records are preferred."""

from shardwright.pipelines.sections import Highest


def keep_order(modality: str, keep: str | Highest) -> tuple[str, str]:
    """SQL that orders records, aliased ``r``, the best to keep first.

    Args:
        modality: ``code`` or ``image``.
        keep: ``first`` (by path), ``longest`` (bytes of code, pixels of an image), or the highest
            value of a filter.

    Returns:
        The terms of an ORDER BY, and the join that they need, which may be empty.
    """
    order = "r.path, r.source"  # no two records have both in common: their ids are made of them
    if isinstance(keep, Highest):
        join = "LEFT JOIN filter_scores f ON f.record_id = r.record_id"
        return f'f."{keep.highest}" DESC NULLS LAST, {order}', join
    if keep == "longest":
        size = "r.bytes" if modality == "code" else "r.width::BIGINT * r.height"
        return f"{size} DESC, r.bytes DESC, {order}", ""
    return order, ""
