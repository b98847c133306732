"""White balance and gamma against the formulas, pixel by pixel; the same draws everywhere."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import default_collate

from shardwright.errors import UserError
from shardwright.shards.isp import RandomIsp
from shardwright.shards.pictures import Pictures

IDS = [f"{i:032x}" for i in range(2000)]


def picture(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def developed(level: int, gain: float, gamma: float) -> int:
    """One level, by the standard's formulas in plain Python."""
    value = level / 255
    light = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
    light = min(1.0, light * gain)
    value = 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
    return round(255 * min(1.0, max(0.0, value)) ** gamma)


def test_pixels_are_as_the_formulas_say() -> None:
    isp = RandomIsp(1.0, 2.0, seed=3, epoch=2)
    for record_id in IDS[:5]:
        pixels = picture(int(record_id, 16))
        before = pixels.copy()
        red, blue, gamma = isp.draws([record_id])[0]
        found = isp(pixels, {"record_id": record_id})
        for channel, gain in enumerate((red, 1.0, blue)):
            wanted = [developed(int(v), gain, gamma) for v in pixels[..., channel].ravel()]
            assert found[..., channel].ravel().tolist() == wanted
        assert (pixels == before).all()


def test_degree_zero_changes_nothing() -> None:
    assert (RandomIsp(0, 1).tables(IDS[:9]) == np.arange(256)).all()
    only_gamma = RandomIsp(0, 2).tables(IDS[:9])
    assert (only_gamma[:, 0] == only_gamma[:, 2]).all()
    assert (only_gamma != np.arange(256)).any(axis=(1, 2)).all()
    only_white = RandomIsp(1, 1).tables(IDS[:9])
    assert (only_white[:, 1] == np.arange(256)).all()  # green stays
    assert (only_white[:, [0, 2]] != np.arange(256)).any(axis=2).all()


def test_draws_are_even_in_their_range_and_independent() -> None:
    draws = RandomIsp(0.5, 1.5).draws(IDS)
    even = np.log2(draws) / [0.5, 0.5, np.log2(1.5)]
    assert even.min() >= -1
    assert even.max() <= 1
    for column in even.T:  # Kolmogorov and Smirnov's bound at p = 0.001
        gap = np.abs(np.sort(column) - np.linspace(-1, 1, len(column))).max() / 2
        assert gap < 1.95 / len(column) ** 0.5
    apart = np.abs(np.corrcoef(even.T) - np.eye(3)).max()
    assert apart < 4 / len(IDS) ** 0.5


def test_draws_know_seed_epoch_and_record_only() -> None:
    isp = RandomIsp(0.5, 1.5, seed=1)
    one = isp.draws(IDS[:50])
    assert (one == np.concatenate([isp.draws([record_id]) for record_id in IDS[:50]])).all()
    assert (pickle.loads(pickle.dumps(isp)).draws(IDS[:50]) == one).all()
    for other in (isp.at(1), RandomIsp(0.5, 1.5, seed=2), RandomIsp(0.5, 1.5, seed=11)):
        assert (other.draws(IDS[:50]) != one).all()
    assert (isp.at(1).at(0).draws(IDS[:50]) == one).all()


def test_draws_are_the_same_as_ever() -> None:
    found = RandomIsp(0.5, 1.5, seed=1, epoch=2).draws(["0" * 32])[0]
    assert found.tolist() == pytest.approx(
        [0.9114645933203883, 0.8515366032320664, 1.1076209473665855], rel=1e-12
    )  # a change of these is a change of every training run


def test_batch_is_the_pictures_one_by_one() -> None:
    samples = {"record_id": IDS[:6], "camera": ["a", "b", "a", "c", "b", "a"]}
    images = [picture(seed) for seed in range(6)]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # not contiguous
    isp = RandomIsp(0.7, 1.8, seed=5, where=_is_a)
    for one in (isp, RandomIsp(0.7, 1.8, seed=5)):
        found = one.batch(batch, samples)
        assert found.dtype == torch.uint8
        for row, pixels in enumerate(images):
            sample = {name: column[row] for name, column in samples.items()}
            assert (found[row].permute(1, 2, 0).numpy() == one(pixels, sample)).all()
    same = [(isp.batch(batch, samples)[row] == batch[row]).all().item() for row in range(6)]
    assert same == [False, True, False, True, True, False]
    assert isp(images[1], {"record_id": IDS[1], "camera": "b"}) is images[1]


def _is_a(sample: Any) -> bool:
    return bool(sample["camera"] == "a")


def test_it_changes_what_the_loader_decodes() -> None:
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "png")
    samples = [{"record_id": record_id, "image": file.getvalue()} for record_id in IDS[:3]]
    isp = RandomIsp(0.5, 1.5)
    plain = default_collate([Pictures((16, 24))(sample) for sample in samples])
    changed = default_collate([Pictures((16, 24), change=isp)(sample) for sample in samples])
    assert torch.equal(changed["image"], isp.batch(plain["image"], plain))
    assert not torch.equal(changed["image"], plain["image"])


def test_pictures_hand_the_epoch_on() -> None:
    isp = RandomIsp(0.5, 1.5)
    assert Pictures(16, change=isp).at(2) == Pictures(16, change=isp.at(2))
    assert Pictures(16).at(2) == Pictures(16)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"white_balance is -0\.1"):
        RandomIsp(-0.1, 1.5)
    with pytest.raises(UserError, match=r"gamma is 0\.9"):
        RandomIsp(0.5, 0.9)
    isp = RandomIsp(0.5, 1.5)
    with pytest.raises(UserError, match="pixels are float64"):
        isp(np.zeros((4, 4, 3)), {"record_id": IDS[0]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"the batch is torch\.float32"):
        isp.batch(torch.zeros(1, 3, 4, 4), {"record_id": IDS[:1]})
    with pytest.raises(UserError, match="2 record ids for 1 images"):
        isp.batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), {"record_id": IDS[:2]})
