"""Averages of weights along a training run: of every step, and of the valley of the loss.

SWAD (Cha et al., "SWAD: Domain Generalization by Seeking Flat Minima", NeurIPS 2021) averages the
weights of every step between the step where the held-out loss has stopped falling and the one where
it rises again. The rules here are those of its authors' code (khanrc/swad), which was read; two
things differ, see ``LossValley``.

Weights are mappings from names to arrays of NumPy, tensors of torch, or whatever has their
arithmetic, a ``dtype`` and no gradient::

    average.add({name: value.detach() for name, value in model.named_parameters()})
    model.load_state_dict(average.mean, strict=False)

Only parameters are averaged. Running statistics of batch norm belong to the weights that they were
measured with: measure them anew afterwards (``torch.optim.swa_utils.update_bn``).
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

from shardwright.errors import UserError

Weights: TypeAlias = Mapping[str, Any]


class Average:
    """The running mean of weights."""

    def __init__(self) -> None:
        self._mean: dict[str, Any] = {}
        self._count = 0

    @property
    def count(self) -> int:
        """Weights that were added."""
        return self._count

    @property
    def mean(self) -> dict[str, Any]:
        """Their mean, in arrays of its own: later steps do not change it.

        Raises:
            UserError: Nothing was added.
        """
        if not self._count:
            raise UserError("the average has no weights yet; add those of one step at least")
        return dict(self._mean)

    def add(self, weights: Weights) -> None:
        """Adds the weights as they are after a step.

        Raises:
            UserError: The names or shapes are others than before, or a value is no array of
                floating point of 32 bits or more: a mean of counters means nothing, and one in
                fewer bits stands still after some hundred steps.
        """
        if self._count and weights.keys() != self._mean.keys():
            differing = sorted(weights.keys() ^ self._mean.keys())
            raise UserError(f"other weights than before: {', '.join(differing[:5])}")
        for name, value in weights.items():
            if not self._count:
                _check(name, value)
                self._mean[name] = value * 1  # a copy
            elif value.shape != self._mean[name].shape:
                raise UserError(
                    f"weights {name} have shape {tuple(value.shape)}, before "
                    f"{tuple(self._mean[name].shape)}"
                )
            else:  # not in place: who took the mean before keeps it
                mean = self._mean[name]
                self._mean[name] = mean + (value - mean) / (self._count + 1)
        self._count += 1


class LossValley:
    """The average over the valley of the held-out loss.

    A run is given in segments of as many steps each: the ``Average`` of the weights of every step
    of the segment, and the held-out loss of the model at its end. The valley starts with the first
    segment that has the least loss of ``n_converge`` segments, itself and those after it. Its bound
    is the mean loss of these, and ``tolerance_ratio`` more. It ends with the last segment whose
    loss is within the bound; after ``n_tolerance`` in a row beyond it, training may stop.

    In two things this is not the authors' code. There, segments before the start may belong to the
    valley too, and where the valley starts early its first segment is averaged in several times.
    Here each segment from the start to the end counts once.

    Args:
        n_converge: 3, as in the authors' configuration, and so the other two.
        n_tolerance: 6.
        tolerance_ratio: 0.3.

    Raises:
        UserError: A number is out of its range.
    """

    def __init__(
        self, n_converge: int = 3, n_tolerance: int = 6, tolerance_ratio: float = 0.3
    ) -> None:
        if n_converge < 1 or n_tolerance < 1 or not 0 <= tolerance_ratio < math.inf:
            raise UserError(
                f"n_converge {n_converge} and n_tolerance {n_tolerance} must be 1 or more, "
                f"tolerance_ratio {tolerance_ratio} 0 or more"
            )
        self._n_tolerance, self._ratio = n_tolerance, tolerance_ratio
        self._window: deque[tuple[Weights, float]] = deque(maxlen=n_converge)
        self._valley = Average()
        self._beyond: list[Weights] = []
        self._bound: float | None = None

    @property
    def bound(self) -> float | None:
        """Loss beyond which a segment is out of the valley; None before the valley starts."""
        return self._bound

    @property
    def ended(self) -> bool:
        """Whether the valley has ended: further segments change nothing."""
        return len(self._beyond) >= self._n_tolerance

    @property
    def segments(self) -> int:
        """Segments that the valley has."""
        return self._valley.count

    @property
    def mean(self) -> dict[str, Any]:
        """The average over the valley; the last segment where none has started.

        Raises:
            UserError: There was no segment.
        """
        if self.segments:
            return self._valley.mean
        if not self._window:
            raise UserError("the valley has no segments yet; add one at least")
        return dict(self._window[-1][0])

    def add(self, weights: Weights, loss: float) -> None:
        """Adds a segment.

        Args:
            weights: The mean over its steps.
            loss: Held-out loss of the model at its end.

        Raises:
            UserError: The loss is below 0 or no number, or the weights do not fit those before.
        """
        if not loss >= 0:
            raise UserError(f"the held-out loss of a segment is {loss}; it must be 0 or more")
        if self.ended:
            return
        if self._bound is not None:
            self._take(weights, loss)
            return
        self._window.append((weights, loss))
        losses = [other for _, other in self._window]
        if len(losses) == self._window.maxlen and losses[0] == min(losses):
            self._bound = sum(losses) / len(losses) * (1 + self._ratio)
            for segment in self._window:
                if not self.ended:
                    self._take(*segment)
            self._window.clear()

    def _take(self, weights: Weights, loss: float) -> None:
        assert self._bound is not None
        self._beyond.append(weights)
        if loss <= self._bound:
            for segment in self._beyond:
                self._valley.add(segment)
            self._beyond.clear()


def _check(name: str, value: Any) -> None:
    if (value / 2).dtype != value.dtype or value.dtype.itemsize < 4:
        raise UserError(
            f"weights {name} are {value.dtype}; average parameters of 32 bits or more, not "
            "counters, and convert shorter ones before"
        )
