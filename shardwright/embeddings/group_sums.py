"""Sums of rows by label whose bits depend on rows and labels alone, on every device.

An addition of two float64 numbers has the same bits on a CPU and on a GPU; what differs between
libraries, devices and thread counts is the order of additions. So the order is fixed here, and
every addition is one of torch's elementwise ones.
"""

import torch

_RUN = 32
"""Rows added one after the other before the sums of runs are added. Part of the order."""
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Float64 sums held while their runs are added; no part of the order. On a CPU they fit a cache."""


def group_sums(
    x: torch.Tensor, labels: torch.Tensor, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds up the rows of each label.

    The rows of a label, in their order, are cut into runs of 32. Those of a run are added one
    after the other; the sums of runs are then added in the same way, run by run of 32, until one
    sum is left.

    Args:
        x: float32, float16 or bfloat16 [n, d].
        labels: int64 [n], each in 0..groups-1, on the device of ``x``.
        groups: number of labels.

    Returns:
        ``sums`` float64 [groups, d], zero for a label without rows, and ``sizes`` int64 [groups].
        Besides them n / 32 + groups rows of float64 are held.
    """
    sizes = torch.bincount(labels, minlength=groups)
    values = x
    order = torch.sort(labels, stable=True).indices
    counts = sizes
    while True:
        runs = (counts + (_RUN - 1)) // _RUN
        values = _sums_of_runs(values, order, counts, runs)
        if int(runs.max()) <= 1:
            break
        counts = runs
        order = torch.arange(len(values), device=x.device)
    sums = torch.zeros(groups, x.shape[1], dtype=torch.float64, device=x.device)
    sums[sizes > 0] = values
    return sums, sizes


def _sums_of_runs(
    values: torch.Tensor, order: torch.Tensor, counts: torch.Tensor, runs: torch.Tensor
) -> torch.Tensor:
    """Sums float64 [runs.sum(), d] of the runs of each group, group by group.

    Args:
        values: rows [m, d].
        order: int64 [m], numbers of the rows, those of a group together.
        counts: int64 [groups], rows of each group.
        runs: int64 [groups], runs of each group.
    """
    group = torch.repeat_interleave(runs)
    number = torch.arange(len(group), device=values.device) - (runs.cumsum(0) - runs)[group]
    starts = (counts.cumsum(0) - counts)[group] + number * _RUN
    lengths = (counts[group] - number * _RUN).clamp_(max=_RUN)
    # the longest first: the runs that still have a row to add are then always a prefix
    lengths, place = torch.sort(lengths, descending=True, stable=True)
    starts = starts[place]
    longer = len(lengths) - torch.bincount(lengths, minlength=_RUN + 1).cumsum(0)
    longer_than: list[int] = longer.tolist()
    sums = torch.empty(len(group), values.shape[1], dtype=torch.float64, device=values.device)
    step = max(1, _BLOCK[values.device.type] // max(1, values.shape[1]))
    for first in range(0, len(group), step):
        block = starts[first : first + step]
        total = values[order[block]].double()
        for j in range(1, _RUN):
            still = min(longer_than[j] - first, len(block))
            if still <= 0:
                break
            total[:still] += values[order[block[:still] + j]]
        sums[place[first : first + step]] = total
    return sums
