"""Random white balance and gamma: pictures as other cameras would have developed them.

The image signal processor of a camera makes pixels of what its sensor saw; white balance and tone
are two of its stages, and models trained on one camera's choice fail on another's. HeteroSwitch
(Kim et al., MLSys 2024) trains on random white balance and random gamma where it finds a bias
towards a device. That is known second-hand: its formulas and degrees could not be read. Those here
are ours, and the degrees have no default.

White balance multiplies red and blue in linear light (IEC 61966-2-1), green stays; gamma is a power
of the levels. Both act on each channel by itself, so a picture's change is a table of 256 levels
for each channel. NumPy and torch look up in the same tables, and give the same bits on all devices.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.errors import UserError

if TYPE_CHECKING:
    import torch

Pixels: TypeAlias = NDArray[np.uint8]
Float64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class RandomIsp:
    """Changes white balance and gamma of a picture by chance; ``change`` of ``Pictures``.

    What a picture gets depends on the seed, the epoch and its ``record_id`` alone: not on workers,
    batches or the order.

    Attributes:
        white_balance: Gains of red and of blue are even in stops, from so many below to so many
            above those that the picture has; 0 leaves it.
        gamma: The exponent is even in its logarithm, from ``1 / gamma`` to ``gamma``; 1 leaves it.
        seed: Of the draws.
        epoch: Of the draws; ``at`` makes the transformation of another one.
        where: Which samples are changed; None for all.

    Raises:
        UserError: A degree is out of its range.
    """

    white_balance: float
    gamma: float
    seed: int = 0
    epoch: int = 0
    where: Callable[[Mapping[str, Any]], bool] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.white_balance < float("inf"):
            raise UserError(
                f"RandomIsp: white_balance is {self.white_balance}; it is in stops, 0 or more"
            )
        if not 1 <= self.gamma < float("inf"):
            raise UserError(f"RandomIsp: gamma is {self.gamma}; it must be 1 or more")

    def at(self, epoch: int) -> "RandomIsp":
        """The same transformation with the draws of an epoch."""
        return replace(self, epoch=epoch)

    def __call__(self, pixels: Pixels, sample: Mapping[str, Any]) -> Pixels:
        """The pixels as another camera would have developed them.

        Args:
            pixels: uint8 ``[height, width, 3]``, sRGB; they stay as they are.
            sample: With its ``record_id``.

        Returns:
            Pixels of that shape and type; the same array where the sample is not changed.

        Raises:
            UserError: The pixels are no such array.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UserError(
                f"RandomIsp: pixels are {pixels.dtype} {pixels.shape}; they must be uint8 "
                "[height, width, 3]"
            )
        if self.where is not None and not self.where(sample):
            return pixels
        table = self.tables([str(sample["record_id"])])[0]
        return np.stack([table[channel][pixels[..., channel]] for channel in range(3)], axis=2)

    def batch(self, images: "torch.Tensor", samples: Mapping[str, Sequence[Any]]) -> "torch.Tensor":
        """A batch as ``__call__`` changes its pictures one by one, on the tensor's own device.

        Args:
            images: uint8 ``(n, 3, height, width)``.
            samples: The collated columns of the batch, each of n values, with ``record_id``.

        Returns:
            A tensor of that shape and type.

        Raises:
            UserError: The images are no such tensor, or there are not as many ids.
        """
        import torch

        record_ids = [str(record_id) for record_id in samples["record_id"]]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UserError(
                f"RandomIsp: the batch is {images.dtype} {tuple(images.shape)}; it must be "
                "torch.uint8 (n, 3, height, width)"
            )
        if len(record_ids) != len(images):
            raise UserError(f"RandomIsp: {len(record_ids)} record ids for {len(images)} images")
        tables = self.tables(record_ids)
        if self.where is not None:
            for row in range(len(images)):
                if not self.where({name: column[row] for name, column in samples.items()}):
                    tables[row] = np.arange(256)
        found = torch.empty_like(images)
        levels = torch.from_numpy(tables).to(images.device)
        for row in range(len(images)):  # indexes are larger than pixels: one picture's at a time
            for channel in range(3):
                flat = images[row, channel].reshape(-1).to(torch.int32)
                looked_up = levels[row, channel].index_select(0, flat)
                found[row, channel] = looked_up.reshape(found.shape[2:])
        return found

    def draws(self, record_ids: Sequence[str]) -> Float64:
        """What records get: float64 ``[n, 3]``, gain of red, gain of blue, and gamma."""
        seeds = f"isp\0{self.seed}\0{self.epoch}\0"
        digests = b"".join(
            hashlib.sha256(f"{seeds}{record_id}".encode()).digest() for record_id in record_ids
        )
        words = np.frombuffer(digests, "<u8").reshape(-1, 4)[:, :3]
        even = (words >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1  # in [-1, 1)
        found: Float64 = np.exp2(
            even * [self.white_balance, self.white_balance, np.log2(self.gamma)]
        )
        return found

    def tables(self, record_ids: Sequence[str]) -> Pixels:
        """The level that each level of each channel becomes: uint8 ``[n, 3, 256]``."""
        red, blue, gamma = self.draws(record_ids).T[..., None]
        gains = np.stack([red, np.ones_like(red), blue], axis=1)
        light = np.minimum(_LIGHT * gains, 1)
        level = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        found: Pixels = np.rint(255 * np.clip(level, 0, 1) ** gamma[:, None]).astype(np.uint8)
        return found


def _light() -> Float64:
    """Linear light of each level, of IEC 61966-2-1."""
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


_LIGHT = _light()
