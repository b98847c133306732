"""Groups of one camera: p of attribution is uniform, and nothing is named more than chance does."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage
from PIL import Image
from scipy.stats import binomtest, kstest

from shardwright.quality.heterogeneity.attribution import Settings, significance
from shardwright.quality.heterogeneity.changes import change
from shardwright.quality.heterogeneity.device_statistics import measure
from shardwright.quality.heterogeneity.fit_features import Float64, features
from shardwright.quality.heterogeneity.fit_model import Model, candidates, difference
from shardwright.quality.heterogeneity.fit_responses import VARIANTS, respond

Pixels = npt.NDArray[np.uint8]

REPEATS = 60
QUICK = Settings(permutations=39)
FILES = ("astronaut.png", "chelsea.png", "coffee.png")


def crops() -> list[Pixels]:
    """Crops of photographs made smaller, 64 x 64: some look alike, so chance is not that of iid."""
    found = []
    for name in FILES:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            small = image.convert("RGB").resize((image.width // 2, image.height // 2))
        pixels = np.array(small)
        found += [
            np.ascontiguousarray(pixels[row : row + 64, column : column + 64])
            for row in range(0, pixels.shape[0] - 63, 40)
            for column in range(0, pixels.shape[1] - 63, 40)
        ]
    return found


@pytest.fixture(scope="module")
def own() -> tuple[list[Pixels], Float64]:
    images = crops()
    return images, features([measure(one) for one in images])


def assert_uniform(found: list[float]) -> None:
    assert kstest(found, "uniform").pvalue > 0.01
    low = sum(p <= 0.05 for p in found)
    assert binomtest(low, len(found), 0.05).pvalue > 0.01


def test_p_is_uniform_on_halves_of_real_pictures(own: tuple[list[Pixels], Float64]) -> None:
    images, table = own
    few = np.random.default_rng(0).permutation(len(images))[:4]
    tried = [images[place] for place in few]
    names = ["noise", "mosaic", "warm", "tint", "dull", "dark", "blur", "jpeg"]
    curves = respond(tried, table[few], names)
    choices = candidates([curves, [one for one in curves if VARIANTS[one.variant].both]])
    found = []
    for seed in range(REPEATS):
        order = np.random.default_rng(seed).permutation(len(images))
        a, b = order[: len(images) // 2], order[len(images) // 2 :]
        pair = difference(table[a], table[b])
        found.append(significance(Model(pair, choices), QUICK))
    assert_uniform(found)


def test_p_is_uniform_on_pairs_of_real_pictures(own: tuple[list[Pixels], Float64]) -> None:
    images, table = own
    noisy = [change(one, "noise", 3.0, place) for place, one in enumerate(images)]
    both = np.stack([table, features([measure(one) for one in noisy])])
    places = np.arange(len(images))
    found = []
    for seed in range(REPEATS):
        dealt = np.random.default_rng(seed).integers(0, 2, len(images))
        pair = difference(both[dealt, places], both[1 - dealt, places], paired=True)
        found.append(significance(Model(pair, {}), Settings(permutations=39, seed=seed + 1000)))
    assert_uniform(found)
