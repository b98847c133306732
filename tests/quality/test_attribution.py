"""Attribution: the model on drawn numbers, and known answers on a few photographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage
from PIL import Image

from shardwright.quality.heterogeneity import changes
from shardwright.quality.heterogeneity.attribution import (
    Attribution,
    Settings,
    attribute,
    significance,
)
from shardwright.quality.heterogeneity.changes import PIPELINE, change
from shardwright.quality.heterogeneity.device_statistics import STAGES, measure
from shardwright.quality.heterogeneity.fit_features import (
    FEATURES,
    LEAST,
    NAMES,
    Float64,
    bounded,
    features,
)
from shardwright.quality.heterogeneity.fit_model import (
    PRICE,
    Difference,
    Model,
    candidates,
    difference,
)
from shardwright.quality.heterogeneity.fit_responses import (
    VARIANTS,
    Curve,
    coded,
    respond,
    synthesise,
)

Pixels = npt.NDArray[np.uint8]

SIZE = len(NAMES)
QUICK = Settings(least=30, images=6, side=96, permutations=99)
FILES = ("astronaut.png", "chelsea.png", "coffee.png")


def crops() -> list[Pixels]:
    """Crops of photographs made smaller, 96 x 96: no traces of the cameras' own."""
    found = []
    for name in FILES:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            whole = image.convert("RGB")
        small = np.array(whole.resize((whole.width * 2 // 3, whole.height * 2 // 3)))
        rows, columns = ((size - 96) // 3 for size in small.shape[:2])
        found += [
            np.ascontiguousarray(small[row : row + 96, column : column + 96])
            for row in range(0, 3 * rows, rows)
            for column in range(0, 3 * columns + 1, columns)
        ]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


CROPS = crops()
STATISTICS = [measure(one) for one in CROPS]


def device(stages: dict[str, float]) -> list[Pixels]:
    """The crops as a device makes them."""
    made = []
    for place, pixels in enumerate(CROPS):
        for stage in PIPELINE:
            if stage in stages:
                pixels = change(pixels, stage, stages[stage], 50 + place)
        made.append(pixels)
    return made


def compared(images: Sequence[Pixels], swap: bool = False) -> Attribution:
    """The crops as they are against a device's pictures of the same."""
    of_b = [measure(one) for one in images]
    if swap:
        return attribute(of_b, STATISTICS, images, CROPS, paired=True, settings=QUICK)
    return attribute(STATISTICS, of_b, CROPS, images, paired=True, settings=QUICK)


@pytest.mark.parametrize(
    ("stage", "amount"),
    [
        ("white_balance", 0.35),
        ("tone", 1.4),
        ("noise", 5.0),
        pytest.param("sharpness", -0.9, marks=pytest.mark.slow),
        ("compression", 55.0),
        pytest.param("demosaic", 1.0, marks=pytest.mark.slow),
        ("gamut", 0.65),
    ],
)
def test_one_changed_stage_of_pairs_is_named_alone(stage: str, amount: float) -> None:
    found = compared(device({stage: amount}), swap=stage in ("noise", "tone"))
    assert found.stages == (stage,)
    assert [part.rank for part in found.parts] == [1]
    assert found.p_value == 0.01
    assert found.parts[0].share > 0.3
    assert found.left == pytest.approx(found.distance * (1 - found.parts[0].share))


@pytest.mark.slow
def test_amounts_and_sides_are_told() -> None:
    part = compared(device({"compression": 55.0})).parts[0]
    assert part.moved == "a"
    assert part.moves[0][0] == "jpeg"
    assert part.moves[0][1] == pytest.approx(55, abs=8)
    part = compared(device({"noise": 5.0}), swap=True).parts[0]
    assert part.moved == "b"
    assert part.moves[0][1] == pytest.approx(5, abs=1.5)


def test_two_stages_are_both_named_and_shares_add_up() -> None:
    found = compared(device({"compression": 50.0, "white_balance": -0.4}))
    assert set(found.stages) == {"compression", "white_balance"}
    assert [part.rank for part in found.parts] == [1, 2]
    total = sum(part.share for part in found.parts)
    assert found.left == pytest.approx(found.distance * (1 - total))


@pytest.mark.slow
def test_the_same_bits_again() -> None:
    images = device({"noise": 4.0})
    assert compared(images) == compared(images)


def test_groups_alike_get_no_attribution() -> None:
    found = attribute(STATISTICS, STATISTICS, CROPS[:2], CROPS[:2], settings=QUICK)
    assert found.stages == ()
    assert found.p_value > 0.05
    assert found.distance == 0
    assert "random" in found.note


def test_too_few_images_is_said() -> None:
    found = attribute(STATISTICS[:29], STATISTICS, CROPS, CROPS)
    assert found.note == "not enough data, 29 images"
    assert np.isnan(found.p_value)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        attribute(STATISTICS, STATISTICS[1:], CROPS, CROPS, paired=True)
    with pytest.raises(ValueError, match="each group needs some"):
        attribute(STATISTICS, STATISTICS, CROPS, [], settings=QUICK)


# --- features ------------------------------------------------------------------------------------


def test_features_are_on_their_scales() -> None:
    assert {one.stage for one in FEATURES} == set(STAGES)
    assert (LEAST > 0).all()
    table = features(STATISTICS)
    assert table.shape == (len(CROPS), SIZE)
    place = NAMES.index("noise_flat")
    assert table[0, place] == pytest.approx(np.log2(STATISTICS[0]["noise_flat"] + 0.25))
    assert np.isnan(table[:, NAMES.index("jpeg_quality")]).all()


def test_outliers_are_moved_in_and_gaps_filled() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(0, 1, (50, SIZE))
    table[0, 0], table[1, 1] = 1000, np.nan
    table[:, 2] = np.nan
    found = bounded(table)
    assert found[0, 0] < 1000
    assert found[1, 1] == pytest.approx(np.nanmedian(table[:, 1]))
    assert np.isnan(found[:, 2]).all()
    np.testing.assert_array_equal(found[2:, 3], np.clip(table[2:, 3], -9, 9))


# --- the model on drawn numbers ------------------------------------------------------------------


def curves(rng: Any) -> list[Curve]:
    """Each variant moves its stage's own features by much and others by little."""
    found = []
    for name, variant in VARIANTS.items():
        own = np.array([one.stage == variant.stage for one in FEATURES])
        one = LEAST * np.where(own, 12, 2) * rng.choice([-1, 1], SIZE)
        steps = np.linspace(0.5, 1.5, len(variant.amounts))
        moved = np.outer(steps, one)
        found.append(Curve(name, variant.amounts, moved, 0 * moved, moved))
    return found


CURVES = curves(np.random.default_rng(3))
CHOICES = candidates([CURVES, [one for one in CURVES if VARIANTS[one.variant].both]])


def drawn(mean: Float64, seed: int, count: int = 60) -> Difference:
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(0, 4 * LEAST, (count, SIZE)) for _ in range(2))
    return difference(a, b + mean)


def test_candidates_know_their_side_and_lie_between_marks() -> None:
    noise = [one for one in CHOICES["noise"] if one.moves[0][0] == "noise"]
    curve = next(one for one in CURVES if one.variant == "noise")
    for side, sign in ((0, 1), (1, -1)):
        own = {one.moves[0][1]: one.moved for one in noise if one.side == side}
        for amount, moved in zip(curve.amounts, curve.moved, strict=True):
            np.testing.assert_allclose(own[amount], sign * moved)
        assert min(own) == pytest.approx(curve.amounts[0] / 3)
    assert {one.side for one in CHOICES["tone"]} == {0}


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_candidate_did_is_found(stage: str) -> None:
    wanted = CHOICES[stage][-1]
    model = Model(drawn(wanted.moved, 1), CHOICES)
    assert list(model.search()[0][0]) == [stage]
    assert model.first_gains(model.pair.mean[None])[0] > 10


def test_first_gains_are_the_first_step_of_the_search() -> None:
    pair = drawn(CHOICES["gamut"][2].moved, 5)
    model = Model(pair, CHOICES)
    singles = [score for chosen, score in model.search() if len(chosen) == 1]
    assert model.first_gains(pair.mean[None])[0] == pytest.approx(max(singles) + PRICE)


def test_three_at_once_are_found() -> None:
    stages = ("noise", "gamut", "white_balance")
    mean = sum(CHOICES[stage][-1].moved for stage in stages)
    model = Model(drawn(np.asarray(mean), 2), CHOICES)
    assert set(model.search()[0][0]) == set(stages)


def test_p_is_uniform_where_groups_are_alike() -> None:
    settings = Settings(permutations=19)
    found = [significance(Model(drawn(np.zeros(SIZE), s), CHOICES), settings) for s in range(40)]
    assert 0.3 < np.mean(found) < 0.7
    assert min(found) >= 0.05


def test_a_feature_that_a_group_lacks_says_nothing() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0, 4 * LEAST, (60, SIZE)) for _ in range(2))
    place = NAMES.index("jpeg_quality")
    a[:, place] = np.nan
    b[:, place] = 10
    pair = difference(a, b)
    assert pair.mean[place] == 0
    assert Model(pair, CHOICES).search()[0][0] == {}


def test_pairs_tell_more_than_strangers() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 50 * LEAST, (60, SIZE))
    b = a + CHOICES["tone"][1].moved
    assert list(Model(difference(a, b, paired=True), CHOICES).search()[0][0]) == ["tone"]
    assert Model(difference(a, b), CHOICES).search()[0][0] == {}


# --- responses -----------------------------------------------------------------------------------


def test_responses_are_means_of_changed_less_unchanged() -> None:
    images = CROPS[:2]
    own = features([measure(one) for one in images])
    curve = respond(images, own, ["dark"])[0]
    assert curve.amounts == VARIANTS["dark"].amounts
    after = features([measure(change(one, "tone", 1.25)) for one in images])
    np.testing.assert_allclose(curve.moved[0], np.nan_to_num((after - own).mean(axis=0)))


def test_what_was_compressed_is_compressed_again() -> None:
    images = [changes.encoded(one, 60) for one in CROPS[:2]]
    own = features([measure(one) for one in images])
    quality = coded(own[0])
    assert quality == pytest.approx(60, abs=3)
    assert coded(features([measure(CROPS[0])])[0]) is None
    curve = respond(images, own, ["noise"])[0]
    # noise alone wipes the comb out, and would seem to undo the compression
    wiped = features([measure(change(one, "noise", 2.5)) for one in images]).mean(axis=0)
    place = NAMES.index("dct_comb")
    lost = own.mean(axis=0)[place] - wiped[place]
    assert lost > 0.2
    assert abs(curve.moved[1, place]) < lost / 2


def test_moves_are_made_in_the_order_of_the_pipeline() -> None:
    moves = [("jpeg", 50.0), ("noise", 4.0), ("dark", 1.3)]
    pixels = CROPS[0]
    expected = change(change(change(pixels, "noise", 4.0, 7), "tone", 1.3), "compression", 50.0)
    assert np.array_equal(synthesise(pixels, moves, None, 7), expected)
    again = changes.encoded(change(pixels, "tone", 1.3), 70)
    assert np.array_equal(synthesise(pixels, [("dark", 1.3)], 70, 7), again)
    assert np.array_equal(synthesise(pixels, [], 70, 7), pixels)
