"""The federated world of heteroswitch.py: photographs' tiles, the devices that see them, clients.

The task is to tell which photograph a tile of 64 x 64 pixels comes from. Tiles of a photograph do
not overlap, and each is either for training or for the test; two photographs of one scene are two
answers. A device changes white balance, tone, noise, sharpness and compression, by amounts drawn
for each seed; devices have unequally many clients, and some have none. Each training tile lies with
one client, as its device sees it; each test tile is seen by every device.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from shardwright.quality.heterogeneity import changes

Pixels = npt.NDArray[np.uint8]
Random = np.random.Generator

TILE, SHORTER = 64, 416  # pixels: of a tile, and of the shorter side of what tiles are cut from
FLAT = 8.0  # levels: tiles whose luma deviates less show too little


@dataclass(frozen=True)
class Market:
    """How many tiles, devices and clients there are.

    Attributes:
        photographs: Classes.
        train: Tiles of a photograph to train on.
        test: And to test on.
        clients: Of each trained device, so unequal as markets are.
        unseen: Devices without clients.
    """

    photographs: int = 20
    train: int = 26
    test: int = 26
    clients: tuple[int, ...] = (8, 6, 4, 3, 2, 1)
    unseen: int = 4


def tiles(path: Path) -> Pixels:
    """Tiles of a photograph that show something, uint8 [n, 64, 64, 3]; none where it is grey."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * SHORTER, 2 * SHORTER))
        whole = image.convert("RGB")
    scale = SHORTER / min(whole.size)
    size = (math.ceil(scale * whole.width), math.ceil(scale * whole.height))
    pixels = np.array(whole.resize(size, Image.Resampling.LANCZOS))
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    cut = pixels[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
    found = cut.swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    luma = found @ np.array([0.299, 0.587, 0.114])
    return found[luma.std(axis=(1, 2)) >= FLAT]


def photographs(folder: Path, cache: Path) -> dict[str, Pixels]:
    """Tiles of each photograph, by name; made once."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise SystemExit(f"{folder}: no photographs; run python tests/photographs.py {folder}")
    names = [str(path.relative_to(folder)) for path in paths]
    path = cache / f"tiles-{hashlib.sha256('|'.join(names).encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".staged.npz")
        np.savez(staged, **{name: tiles(p) for name, p in zip(names, paths, strict=True)})
        staged.rename(path)
    with np.load(path) as found:
        return {name: found[name] for name in names}


@dataclass(frozen=True)
class Device:
    """What a device does to a tile, in the order of a camera's pipeline.

    Attributes:
        noise: Levels.
        red: Stops.
        blue: Stops.
        tone: Exponent of the levels.
        blur: Sigma in pixels.
        quality: Of JPEG.
    """

    noise: float
    red: float
    blue: float
    tone: float
    blur: float
    quality: int

    @classmethod
    def drawn(cls, rng: Random) -> "Device":
        """A device by chance."""
        return cls(
            noise=float(rng.uniform(0, 8)),
            red=float(rng.uniform(-0.6, 0.6)),
            blue=float(rng.uniform(-0.6, 0.6)),
            tone=float(2 ** rng.uniform(-0.7, 0.7)),
            blur=float(rng.uniform(0.1, 1.0)),
            quality=int(rng.integers(30, 96)),
        )

    def see(self, pixels: Pixels, seed: int) -> Pixels:
        """A tile as this device gives it."""
        pixels = changes.change(pixels, "noise", self.noise, seed)
        pixels = changes.white_balance(pixels, self.red, self.blue)
        pixels = changes.change(pixels, "tone", self.tone)
        pixels = changes.change(pixels, "sharpness", -self.blur)
        return changes.change(pixels, "compression", self.quality)


@dataclass(frozen=True)
class Tiles:
    """Tiles with their answers.

    Attributes:
        images: uint8 (n, 3, 64, 64).
        answers: int64 (n,).
        names: What the transformation draws by.
    """

    images: Tensor
    answers: Tensor
    names: list[str]


@dataclass(frozen=True)
class World:
    """What a seed draws: clients with their tiles, and the tests of trained and unseen devices."""

    clients: list[Tiles]
    owners: list[str]
    tests: dict[str, Tiles]

    @classmethod
    def drawn(cls, found: Mapping[str, Pixels], seed: int, market: Market) -> "World":
        """The world of a seed."""
        rng = np.random.default_rng([seed, 0])
        each = market.train + market.test
        names = [name for name, cut in found.items() if len(cut) >= each]
        if len(names) < market.photographs:
            raise SystemExit(f"{len(names)} photographs have {each} tiles that show something")
        chosen = [names[i] for i in rng.permutation(len(names))[: market.photographs]]
        train: list[tuple[Pixels, int]] = []
        test: list[tuple[Pixels, int]] = []
        for answer, name in enumerate(chosen):
            order = rng.permutation(len(found[name]))[:each]
            own = [(found[name][i], answer) for i in order]
            train += own[: market.train]
            test += own[market.train :]
        trained = [Device.drawn(rng) for _ in market.clients]
        unseen = [Device.drawn(rng) for _ in range(market.unseen)]
        owners = [i for i, count in enumerate(market.clients) for _ in range(count)]
        shares = np.array_split(rng.permutation(len(train)), len(owners))
        clients = [
            _seen([train[i] for i in share], trained[owner], 1000 * number)
            for number, (share, owner) in enumerate(zip(shares, owners, strict=True))
        ]
        tests = {
            f"{kind} {number}": _seen(test, device, 10**6 * (1 + number))
            for kind, devices in (("trained", trained), ("unseen", unseen))
            for number, device in enumerate(devices)
        }
        return cls(clients, [f"trained {owner}" for owner in owners], tests)


def _seen(cut: Sequence[tuple[Pixels, int]], device: Device, seed: int) -> Tiles:
    images = np.stack([device.see(pixels, seed + i) for i, (pixels, _) in enumerate(cut)])
    return Tiles(
        torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        torch.tensor([answer for _, answer in cut]),
        [f"{seed}-{i}" for i in range(len(cut))],
    )
