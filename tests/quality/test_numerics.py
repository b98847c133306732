"""Numeric deviation, its bands, and flips of decisions: hand values, brute force, known answers."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import wasserstein_distance
from sklearn.metrics import adjusted_rand_score

from shardwright.quality.numerics.audit import Audit, Comparison, Variant, columns
from shardwright.quality.numerics.deviation import (
    deviation,
    fewer,
    ratio,
    sampling_band,
    share,
    stored,
    w1_per_dimension,
)
from shardwright.quality.numerics.flips import (
    DECISIONS,
    SHARED,
    Rules,
    adjusted_rand,
    decide,
    flips,
    jackknife_error,
    safe_for,
)
from shardwright.quality.numerics.inputs import Resizing, image_inputs, text_inputs

RULES = Rules(threshold=0.9, k=4, fraction=0.25)


def unit_rows(n, d, seed=0):
    """Rows around a few centres, so that there are clusters, and pairs near the threshold."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, d))
    rows = centres[rng.integers(0, 4, n)] + 0.35 * rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def moved(rows, amount, seed=1):
    noise = np.random.default_rng(seed).normal(size=rows.shape)
    rows = rows + amount * noise / np.sqrt(rows.shape[1])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ids(n):
    return [f"{i:032x}" for i in range(n)]


def test_deviation_by_hand():
    found = deviation([[3.0, 4.0], [0.0, 1.0]], [[3.0, 4.0], [1.0, 0.0]])
    assert found.max_abs == 1.0
    assert found.relative_l2 == pytest.approx(np.sqrt(2 / 26))
    assert found.cosine_mean == pytest.approx(0.5)
    assert found.cosine_max == pytest.approx(1.0)
    # sorted: 0, 3 against 1, 3; and 1, 4 against 0, 4
    assert found.w1 == pytest.approx((0.5 + 0.5) / 2)
    assert found.changed == 0.5


def test_both_surfaces_differ_where_rows_swap():
    rows = unit_rows(50, 8)
    found = deviation(rows, rows[::-1])
    assert found.w1 == 0
    assert found.relative_l2 > 0.5


def test_small_angles_do_not_cancel_out():
    angle = 1e-9
    found = deviation([[1.0, 0.0]], [[np.cos(angle), np.sin(angle)]])
    assert found.cosine_max == pytest.approx(angle**2 / 2, rel=1e-6, abs=0)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_w1_is_that_of_scipy(n, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n, d))
    expected = np.mean([wasserstein_distance(x[:, j], y[:, j]) for j in range(d)])
    assert w1_per_dimension(x, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bad", [np.ones((2, 3)), np.full((3, 2), np.nan), np.ones(3)])
def test_wrong_rows_are_refused(bad):
    with pytest.raises(ValueError, match=r"rows of shape|NaN"):
        deviation(np.ones((3, 2)), bad)


def test_sampling_band_holds_what_two_halves_do():
    rows = unit_rows(200, 6)
    band = sampling_band(rows, seed=3)
    assert 0 < band.low < band.mean < band.high
    assert band == sampling_band(rows, seed=3)
    order = np.random.default_rng(99).permutation(200)
    assert band.low / 1.3 < w1_per_dimension(rows[order[:100]], rows[order[100:]]) < 1.3 * band.high
    assert sampling_band(np.ones((9, 3))).high == 0
    with pytest.raises(ValueError, match="at least 4"):
        sampling_band(rows[:3])


def test_stored_rounds_to_nearest():
    rows = np.array([[1.0, 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-9]], np.float32)
    np.testing.assert_array_equal(stored(rows, "bfloat16"), [[1, 1, 1, 1 + 2**-7]])
    rows = unit_rows(20, 5)
    np.testing.assert_array_equal(stored(rows, "float16"), rows.astype(np.float16))


def test_ratio_and_share():
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(3.0, 0.0) is None
    found = share(np.array([True] * 3 + [False] * 7))
    assert (found.hits, found.records, found.share) == (3, 10, 0.3)
    assert (found.low, found.high) == pytest.approx((0.1078, 0.6032), abs=1e-4)  # Wilson


def test_fewer_needs_six_records_that_all_agree():
    n = 40
    harmless = np.zeros(n, bool)
    none = np.zeros(n, bool)
    assert not fewer(none, harmless)
    harmless[:5] = True
    assert not fewer(none, harmless)
    harmless[:6] = True
    assert fewer(none, harmless)
    assert not fewer(harmless, harmless)
    assert not fewer(harmless, none)
    one = none.copy()
    one[-1] = True
    assert not fewer(one, harmless)
    with pytest.raises(ValueError, match="same ones"):
        fewer(none[:3], harmless)


def test_fewer_errs_as_often_as_it_says():
    """Equal chances of a flip: at most 2.5% of the cases may seem shown."""
    rng = np.random.default_rng(0)
    shown = sum(fewer(*(rng.random((2, 200)) < 0.1)) for _ in range(200))
    assert shown <= 10  # binomial(200, 0.025) exceeds this about once in 100 times


def brute(rows, threshold):
    """Nearest neighbours and duplicates, each by its own loop."""
    x = rows.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x.T
    pairs = {(i, j) for i in range(len(x)) for j in range(i) if cosines[i, j] > threshold}
    np.fill_diagonal(cosines, -2)
    return cosines.argmax(axis=1), pairs


def test_decisions_and_flips_are_those_of_brute_force():
    rows = unit_rows(80, 12)
    other = moved(rows, 0.15)
    first = decide(ids(80), rows, RULES)
    second = decide(ids(80), other, RULES, first.centroids)
    found = flips(rows, first, second)
    (near, pairs), (near_then, pairs_then) = brute(rows, 0.9), brute(other, 0.9)
    np.testing.assert_array_equal(first.neighbours, near)
    np.testing.assert_array_equal(found.flipped["neighbour"], near != near_then)
    assert (found.pairs, found.lost, found.gained) == (
        len(pairs),
        len(pairs - pairs_then),
        len(pairs_then - pairs),
    )
    assert found.lost > 0
    assert found.gained > 0
    crossed = {i for pair in pairs ^ pairs_then for i in pair}
    assert set(np.flatnonzero(found.flipped["duplicates"])) == crossed
    nearest = (other.astype(float) @ first.centroids.T.astype(float)).argmax(axis=1)
    np.testing.assert_array_equal(found.flipped["cluster"], nearest != first.labels)
    for each in (first, second):
        assert each.pruned.sum() == each.pruned_anew.sum() == 20
    np.testing.assert_array_equal(found.flipped["pruning"], first.pruned != second.pruned)


def test_scip_prunes_by_size_and_distance():
    # three rows of cluster 1, one of them far out; cluster 0 has five
    angles = np.array([0.0, 0.01, -0.01, 0.02, -0.02, 1.5, 1.6, 1.9])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = decide(ids(8), rows, Rules(0.99, 2, fraction=0.25, alpha=1.0, start="k-means++"))
    assert found.labels[5:].tolist() == [found.labels[5]] * 3
    assert set(np.flatnonzero(found.pruned)) == {5, 7}


def test_a_twin_as_neighbour_is_no_flip():
    rows = unit_rows(30, 6)
    rows[4] = rows[3]
    first = decide(ids(30), rows, RULES)
    assert first.neighbours[[3, 4]].tolist() == [4, 3]  # and nobody is their own
    near = first.neighbours.copy()
    hits = np.flatnonzero(near == 3)
    near[hits[hits != 4]] = 4
    swapped = type(first)(**{**vars(first), "neighbours": near})
    assert not flips(rows, first, swapped).flipped["neighbour"].any()


def test_equal_vectors_flip_nothing():
    rows = unit_rows(60, 8)
    first = decide(ids(60), rows, RULES)
    found = flips(rows, first, decide(ids(60), rows, RULES, first.centroids))
    assert not any(found.flipped[name].any() for name in SHARED)
    assert (found.lost, found.gained, found.rand) == (0, 0, 1.0)
    assert found.rand_interval == (1.0, 1.0)


@given(st.integers(2, 25), st.integers(1, 5), st.integers(0, 10**6))
def test_rand_and_what_leaving_out_does(n, k, seed):
    x, y = np.random.default_rng(seed).integers(0, k, (2, n))
    found, without = adjusted_rand(x, y)
    assert found == pytest.approx(adjusted_rand_score(x, y), abs=1e-12)
    expected = [adjusted_rand_score(np.delete(x, i), np.delete(y, i)) for i in range(n)]
    np.testing.assert_allclose(without, expected, atol=1e-12)


def test_jackknife_error_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    without = (values.sum() - values) / 49
    assert jackknife_error(without) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def audit(rows, small, large, harmless=0.3):
    """An audit whose harmless change moves rows by ``harmless``."""
    held = Comparison.of(ids(len(rows)), rows, RULES)
    step = stored(rows, "bfloat16")
    return Audit(
        (
            held.variant("recipe", "recipe", "as it is", rows),
            held.variant("rerun", "recipe", "again", rows),
            held.variant("small", "forward", "less", moved(rows, small)),
            held.variant("large", "forward", "more", moved(rows, large)),
            Variant("absent", "forward", "nowhere", "needs a CUDA device"),
            held.variant("stored bfloat16", "storage", "a step", step),
            held.variant("blind", "input", "not seen", rows, harmless=True),
            held.variant("newline", "input", "a newline", moved(rows, harmless, 7), harmless=True),
        ),
        held.sampling,
        len(rows),
    )


def test_a_small_deviation_is_safe_and_a_large_one_is_not():
    found = audit(unit_rows(200, 16), 1e-5, 0.9)
    named = {variant.name: variant for variant in found.variants}
    assert found.harmless is named["newline"]
    assert found.safe(named["recipe"]) == DECISIONS
    assert {"neighbour", "duplicates"} <= set(found.safe(named["small"]))
    assert "cluster" not in found.safe(named["small"])  # not even the harmless change flips one
    assert found.safe(named["large"]) == ()
    assert found.safe(named["absent"]) == ()
    verdict = found.verdict()
    assert verdict.startswith("On 200 records recipe is safe for all decisions; ")
    assert "large is not shown to be safe for any decision" in verdict
    assert "a newline" in verdict
    assert "absent" not in verdict


def test_above_the_sampling_band_nothing_is_safe():
    rows = unit_rows(120, 8)
    found = audit(rows, 1e-5, 0.5)
    small = found.variants[2]
    assert found.safe(small) != ()
    assert safe_for(small.flips, found.harmless.flips, below_sampling=False) == ()
    assert safe_for(small.flips, None, below_sampling=True) == ()


def test_without_a_harmless_change_only_equal_bits_are_safe():
    rows = unit_rows(80, 8)
    held = Comparison.of(ids(80), rows, RULES)
    found = Audit(
        (
            held.variant("same", "forward", "", rows),
            held.variant("near", "forward", "", moved(rows, 1e-6)),
            held.variant("blind", "input", "not seen", rows, harmless=True),
        ),
        held.sampling,
        80,
    )
    assert found.harmless is None
    assert [found.safe(variant) for variant in found.variants[:2]] == [DECISIONS, ()]
    assert "sees no harmless change" in found.verdict()


def test_rows_have_the_columns_and_ratios():
    found = audit(unit_rows(100, 8), 1e-4, 0.2)
    names = [name for name, _ in columns()]
    assert len(names) == len(set(names))
    rows = {row["variant"]: row for row in found.rows()}
    assert set().union(*rows.values()) == set(names)
    large, newline = rows["large"], rows["newline"]
    assert large["w1_by_sampling"] == large["w1"] / found.sampling.mean
    assert large["relative_l2_by_harmless"] == large["relative_l2"] / newline["relative_l2"]
    assert large["max_abs_by_rerun"] is None  # which changed nothing
    assert large["neighbour_low"] <= large["neighbour_share"] <= large["neighbour_high"]
    assert newline["neighbour_by_harmless"] == 1
    assert rows["absent"]["missing"] == "needs a CUDA device"
    assert "w1" not in rows["absent"]


def test_harmless_changes_of_a_text():
    newline, comment = text_inputs()
    assert newline.change(b"x = 1\n", "Python") == b"x = 1\n\n"
    assert comment.change(b"x = 1\n", "Python") == b"#\nx = 1\n"
    assert comment.change(b"int x;", "C++") == b"//\nint x;"
    assert comment.change(b"text", None) == b"#\ntext"
    assert newline.harmless
    assert comment.harmless


def jpeg(width, height):
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def test_decoders_and_resizers_hand_on_the_size_of_the_model():
    data = jpeg(300, 200)
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    square = Resizing((64, 64), None, int(Image.Resampling.BOX))
    made = {each.name: each.change(data, None) for each in image_inputs(square, True)}
    pictures = {name: Image.open(io.BytesIO(each)) for name, each in made.items()}
    np.testing.assert_array_equal(np.asarray(pictures["no draft"]), np.asarray(whole))
    for name, filter in (("bilinear", 2), ("bicubic", 3), ("lanczos", 1)):
        expected = whole.resize((64, 64), Image.Resampling(filter))
        np.testing.assert_array_equal(np.asarray(pictures[name]), np.asarray(expected))
    box = whole.resize((64, 64), Image.Resampling.BOX, reducing_gap=2)
    np.testing.assert_array_equal(np.asarray(pictures["reducing gap"]), np.asarray(box))
    smooth, rough = pictures["torch with antialias"], pictures["torch without antialias"]
    near = np.abs(np.asarray(smooth, int) - np.asarray(pictures["bilinear"], int))
    assert near.max() <= 2  # the same filter in another arithmetic
    pixels = torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(pixels, (64, 64), mode="bilinear")
    found = np.asarray(rough).transpose(2, 0, 1)
    assert np.abs(found - expected[0].numpy()).max() <= 0.5
    assert pictures["JPEG 95"].format == "JPEG"
    assert pictures["JPEG 95"].size == (300, 200)


def test_the_shape_is_kept_where_the_model_keeps_it():
    kept = Resizing(None, 40, 3)
    assert kept.size(300, 200) == (60, 40)
    assert kept.size(200, 301) == (40, 60)
    assert kept.draft == 80
    (draft, *_) = image_inputs(kept, False)
    assert Image.open(io.BytesIO(draft.change(jpeg(1600, 1200), None))).size == (200, 150)


def test_what_an_encoder_does_not_say_is_said():
    found = {each.name: each for each in image_inputs(None, None)}
    assert found["JPEG 95"].change is not None
    others = [each for name, each in found.items() if name != "JPEG 95"]
    assert all(each.change is None and "does not say" in each.missing for each in others)
    assert len(others) == 7
