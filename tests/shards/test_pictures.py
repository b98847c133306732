"""Pictures come out with the wanted shape, centred, as Pillow decodes them."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import default_collate

from shardwright.errors import DataError, UserError
from shardwright.shards.pictures import Pictures


def encoded(pixels: NDArray[np.uint8], kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample(data: bytes) -> dict[str, Any]:
    return {"record_id": "r", "image": data, "width": 3}


def test_picture_of_the_size_is_as_decoded() -> None:
    pixels = noise(12, 20)
    for fit in ("crop", "stretch"):
        found = Pictures((12, 20), fit=fit)(sample(encoded(pixels)))
        assert found["image"].dtype == torch.uint8
        assert found["image"].numpy().transpose(1, 2, 0).tolist() == pixels.tolist()
        assert (found["record_id"], found["width"]) == ("r", 3)
    scaled = Pictures((12, 20), dtype="float32")(sample(encoded(pixels)))["image"]
    assert torch.equal((scaled * 255).round().to(torch.uint8), found["image"])


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8)])
def test_crop_keeps_the_centre(height: int, width: int) -> None:
    pixels = noise(height, width)
    found = Pictures(8)(sample(encoded(pixels)))["image"].numpy().transpose(1, 2, 0)
    centre = pixels[:, 8:16] if width > height else pixels[8:16]
    assert found.tolist() == centre.tolist()


@pytest.mark.parametrize("shape", [(1, 1), (7, 301), (333, 5), (640, 479)])
def test_every_shape_fits(shape: tuple[int, int]) -> None:
    for fit in ("crop", "stretch"):
        found = Pictures((17, 31), fit=fit)(sample(encoded(noise(*shape))))["image"]
        assert found.shape == (3, 17, 31)


def test_pictures_of_any_mode_and_size_collate() -> None:
    grey = encoded(noise(30, 40)[:, :, 0])
    clear = np.concatenate([noise(9, 9), np.zeros((9, 9, 1), np.uint8)], axis=2)
    batch = default_collate(
        [Pictures(16)(sample(data)) for data in (grey, encoded(clear), encoded(noise(50, 20)))]
    )
    assert batch["image"].shape == (3, 3, 16, 16)
    assert (batch["image"][1] == 255).all()  # transparent is white


def test_draft_is_near_to_the_whole_picture() -> None:
    ramp = np.linspace(0, 255, 640, dtype=np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (640, 640, 3)).copy()
    data = encoded(pixels, "jpeg")
    whole = Pictures(64)(sample(data))["image"].to(torch.int16)
    draft = Pictures(64, draft=True)(sample(data))["image"].to(torch.int16)
    assert (whole - draft).abs().max() <= 2


def test_change_gets_pixels_and_sample() -> None:
    def darker(pixels: NDArray[np.uint8], given: Mapping[str, Any]) -> NDArray[np.uint8]:
        assert given["record_id"] == "r"
        return pixels >> np.uint8(1)

    pixels = noise(6, 6)
    found = Pictures(6, change=darker)(sample(encoded(pixels)))["image"]
    assert found.numpy().transpose(1, 2, 0).tolist() == (pixels // 2).tolist()
    with pytest.raises(UserError, match=r"change gave uint8 \(3, 6, 3\)"):
        Pictures(6, change=lambda changed, _: changed[:3])(sample(encoded(pixels)))


def test_mistakes_and_damage_are_named() -> None:
    with pytest.raises(DataError, match="record r: the image does not decode"):
        Pictures(6)(sample(encoded(noise(9, 9))[:60]))
    with pytest.raises(UserError, match="no image, only content"):
        Pictures(6)({"content": ""})
    with pytest.raises(UserError, match="size is 0"):
        Pictures(0)
    with pytest.raises(UserError, match="fit is 'pad'"):
        Pictures(6, fit="pad")  # type: ignore[arg-type]
