"""When a client or a group of records is trained with more care: the two switches.

After HeteroSwitch (Kim et al., "HeteroSwitch: Characterizing and Taming System-Induced Data
Heterogeneity in Federated Learning", MLSys 2024) as far as its abstract and secondary sources tell:
techniques of generalisation, random white balance and gamma and averaged weights, are switched on
by the bias that losses show. Its algorithm could not be read; what exactly is compared, and all
constants, are ours.

A model that fits a device's data better than it fits others is biased towards that device. So a
client whose loss is below what clients usually have is switched on: by its loss before it trains
for the transformation of its pictures, and by its loss while it trained, with the transformation,
for the average of its weights. What is usual is an exponential average over the rounds so far. It
lags behind, so where losses fall fast more than half of the clients are below it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardwright.errors import UserError


@dataclass(frozen=True)
class Switches:
    """What decides a round; a value that goes to the clients and into checkpoints.

    Before the first round nothing is usual, and both switches are off.

    Attributes:
        memory: Weight of the past in the averages, 0 (the last round alone) to below 1. The
            default is ours.
        before: Usual loss of the model that clients are given.
        after: Usual loss of clients while they train.

    Raises:
        UserError: ``memory`` is out of its range.
    """

    memory: float = 0.5
    before: float | None = None
    after: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.memory < 1:
            raise UserError(f"Switches: memory is {self.memory}; it must be 0 to below 1")

    def transforms(self, loss: float) -> bool:
        """The first switch: whether pictures are transformed.

        Args:
            loss: Mean loss of the model as it was given, on the pictures as they are: of the
                client, or of the group that is switched as one.
        """
        return self.before is not None and loss < self.before

    def averages(self, before: float, after: float) -> bool:
        """The second switch: whether averaged weights are returned, and not the last ones.

        Args:
            before: As in ``transforms``; the second switch is off where the first one is.
            after: Mean loss of the client's or group's steps of training.
        """
        return self.transforms(before) and self.after is not None and after < self.after

    def next_round(self, before: Sequence[float], after: Sequence[float]) -> "Switches":
        """The switches of the next round.

        Args:
            before: Of all clients or groups of the round, one at least.
            after: The same.

        Raises:
            UserError: There is none, there are not as many of both, or one is no finite number.
        """
        if not before or len(before) != len(after):
            raise UserError(
                f"{len(before)} losses before and {len(after)} after; give one of each for every "
                "client of the round"
            )
        if not all(map(math.isfinite, (*before, *after))):
            raise UserError("a loss of the round is no finite number; leave that client out")
        return replace(
            self,
            before=self._moved(self.before, before),
            after=self._moved(self.after, after),
        )

    def _moved(self, usual: float | None, losses: Sequence[float]) -> float:
        mean = math.fsum(losses) / len(losses)
        return mean if usual is None else self.memory * usual + (1 - self.memory) * mean
