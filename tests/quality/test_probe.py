"""The probe on planted damage: vectors on a sphere, moved or with one odd window."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from shardwright.quality.evaluation import area
from shardwright.quality.probe import Mixture, Vectors, fit_mixture, fit_probe

DIMENSIONS = 16
TOPICS = np.linalg.qr(np.random.default_rng(9).normal(size=(DIMENSIONS, 6)))[0].T
FAMILIES = ("moved", "moved_too", "one_window", "blurred")


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def joined(pieces):
    """Records from their windows: a document is the mean direction of them."""
    counts = np.array([len(piece) for piece in pieces])
    documents = unit(np.stack([piece.mean(axis=0) for piece in pieces]))
    return Vectors(documents, np.concatenate(pieces), np.cumsum(counts) - counts)


def pieces_of(seed, records):
    """One to seven windows of each record, all about one of four topics."""
    rng = np.random.default_rng(seed)
    noise = [rng.normal(scale=0.12, size=(rng.integers(1, 8), DIMENSIONS)) for _ in range(records)]
    return [unit(TOPICS[rng.integers(4)] + each) for each in noise]


def damage(family, windows, rng):
    windows = windows.copy()
    if family == "moved":
        return unit(windows + 0.25 * TOPICS[4])
    if family == "moved_too":
        return unit(windows + 0.2 * TOPICS[4] + 0.15 * TOPICS[5])
    if family == "one_window":
        windows[rng.integers(len(windows))] = unit(rng.normal(size=DIMENSIONS))
        return windows
    return unit(windows + rng.normal(scale=0.12, size=windows.shape))


def planted(seed, records):
    """Clean records, a damaged copy of each in every family, and what each was made of."""
    rng = np.random.default_rng(seed + 1)
    clean = pieces_of(seed, records)
    damaged = [damage(family, windows, rng) for family in FAMILIES for windows in clean]
    pairs = np.tile(np.arange(records), len(FAMILIES))
    return joined(clean), joined(damaged), pairs, np.repeat(FAMILIES, records)


@pytest.fixture(scope="module")
def reference():
    return joined(pieces_of(0, 400))


@pytest.fixture(scope="module")
def learned():
    return planted(10, 150)


@pytest.fixture(scope="module")
def judged():
    return planted(20, 150)


def train(reference, learned, families):
    clean, damaged, pairs, named = learned
    rows = np.flatnonzero(np.isin(named, families))
    return fit_probe(
        reference.documents,
        clean,
        damaged.take(rows),
        pairs[rows],
        named[rows].tolist(),
    )


def found(scores_clean, scores_damaged):
    scores = -np.concatenate([scores_clean, scores_damaged])
    rows = np.arange(len(scores))
    return area(scores, rows >= len(scores_clean), rows).value


@pytest.mark.parametrize("family", FAMILIES)
def test_unseen_damage_is_found(reference, learned, judged, family):
    probe = train(reference, learned, [name for name in FAMILIES if name != family])
    clean, damaged, _, named = judged
    held = damaged.take(np.flatnonzero(named == family))
    ours = found(probe.judge(clean), probe.judge(held))
    centroids = unit(TOPICS[:4])
    far = [1 - (v.documents @ centroids.T).max(axis=1) for v in (clean, held)]
    assert ours > 0.7
    assert ours > found(*far) + 0.02


def test_a_shared_direction_is_learned(reference, learned, judged):
    """Moves too small to be unlikely are seen where all damage goes the same way."""
    probe = train(reference, learned, ["moved", "moved_too"])
    direction = probe.direction
    assert np.linalg.norm(direction) == pytest.approx(1)
    assert direction @ TOPICS[4] > 0.8
    assert found(probe.judge(judged[0]), probe.judge(judged[1].take(np.arange(150)))) > 0.9


def test_unlikely_never_speaks_for_a_record(reference, learned):
    """Taught by damage that makes records more ordinary, it holds nothing against odd ones."""
    clean, _, pairs, _ = learned
    noise = np.random.default_rng(0).normal(scale=0.001, size=(150, 1, DIMENSIONS))
    dull = joined([unit(TOPICS[i % 4] + noise[i]) for i in range(150)])
    probe = fit_probe(reference.documents, clean, dull, pairs[:150], ["a", "b", "c"] * 50)
    assert (probe.weights[:3] >= 0).all()


def test_a_record_is_judged_alone(reference, learned, judged):
    probe = train(reference, learned, FAMILIES)
    damaged = judged[1]
    together = probe.judge(damaged)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(together))
    np.testing.assert_allclose(probe.judge(damaged.take(order)), together[order], atol=1e-4)
    alone = [probe.judge(damaged.take(np.array([i])))[0] for i in range(40)]
    np.testing.assert_allclose(alone, together[:40], atol=1e-4)


def test_the_order_of_windows_does_not_count(reference, learned):
    probe = train(reference, learned, FAMILIES)
    pieces = pieces_of(30, 50)
    one, other = joined(pieces), joined([piece[::-1] for piece in pieces])
    other = Vectors(one.documents, other.windows, other.starts)
    np.testing.assert_allclose(probe.judge(one), probe.judge(other), atol=1e-4)


def test_more_of_the_same_windows_do_not_count(reference, learned):
    probe = train(reference, learned, FAMILIES)
    pieces = pieces_of(31, 50)
    one = joined(pieces)
    twice = joined([np.repeat(piece, 3, axis=0) for piece in pieces])
    twice = Vectors(one.documents, twice.windows, twice.starts)
    np.testing.assert_allclose(probe.judge(one), probe.judge(twice), atol=1e-4)


def test_the_order_of_families_does_not_count(reference, learned, judged):
    clean, damaged, pairs, named = learned
    order = np.random.default_rng(0).permutation(len(named))
    again = fit_probe(
        reference.documents,
        clean,
        damaged.take(order),
        pairs[order],
        named[order].tolist(),
    )
    first = train(reference, learned, FAMILIES)
    np.testing.assert_allclose(again.judge(judged[1]), first.judge(judged[1]), atol=0.05)


def test_novelty_of_one_component_is_scipys():
    rng = np.random.default_rng(3)
    mean = rng.normal(size=5)
    root = rng.normal(size=(5, 5))
    covariance = root @ root.T + np.eye(5)
    lower = np.linalg.cholesky(covariance)
    offset = np.linalg.slogdet(covariance)[1]
    mixture = Mixture(mean[None], np.linalg.inv(lower)[None], np.array([offset]))
    x = rng.normal(size=(9000, 5)).astype(np.float32)  # more than a block
    expected = -2 * multivariate_normal(mean, covariance).logpdf(x) - 5 * np.log(2 * np.pi)
    np.testing.assert_allclose(mixture.likeliest(x)[0], expected, rtol=1e-9)


def test_novelty_is_that_of_the_likeliest_component():
    rng = np.random.default_rng(4)
    means = rng.normal(size=(3, 4))
    factors = np.stack([np.diag(rng.uniform(0.5, 2, 4)) for _ in range(3)])
    offsets = np.array([-2 * np.log(np.diag(factor)).sum() for factor in factors])
    whole = Mixture(means, factors, offsets)
    x = rng.normal(size=(100, 4)).astype(np.float32)
    each = [
        Mixture(means[j : j + 1], factors[j : j + 1], offsets[j : j + 1]).likeliest(x)[0]
        for j in range(3)
    ]
    np.testing.assert_array_equal(whole.likeliest(x)[0], np.min(each, axis=0))
    assert len({int(j) for j in np.argmin(each, axis=0)}) == 3


def test_a_fitted_mixture_knows_its_own(reference):
    """What it was fitted to is likelier than what lies elsewhere, for 1 component and for many."""
    elsewhere = unit(np.random.default_rng(5).normal(size=(200, DIMENSIONS)))
    for rows in (60, 400):
        mixture = fit_mixture(reference.documents[:rows], 0)
        assert len(mixture.means) == max(1, rows // 50)
        own = mixture.likeliest(joined(pieces_of(6, 200)).documents)[0]
        assert found(own, mixture.likeliest(elsewhere)[0]) > 0.99
    one = fit_mixture(reference.documents[:60], 0)
    np.testing.assert_allclose(one.means[0], reference.documents[:60].mean(axis=0), atol=1e-6)


def test_take():
    pieces = pieces_of(7, 12)
    whole = joined(pieces)
    for rows in ([3], [0, 11, 5, 5], list(range(12)), list(range(11, -1, -1))):
        taken = whole.take(np.array(rows))
        expected = joined([pieces[row] for row in rows])
        np.testing.assert_array_equal(taken.documents, expected.documents)
        np.testing.assert_array_equal(taken.windows, expected.windows)
        np.testing.assert_array_equal(taken.starts, expected.starts)
    nothing = whole.take(np.array([], int))
    assert (len(nothing.documents), len(nothing.windows), len(nothing.starts)) == (0, 0, 0)


def test_one_window_each(reference, learned):
    clean, damaged, pairs, named = learned
    alone = [
        Vectors(v.documents, v.documents, np.arange(len(v.documents))) for v in (clean, damaged)
    ]
    probe = fit_probe(reference.documents, alone[0], alone[1], pairs, named.tolist())
    judged = [probe.judge(v) for v in alone]
    assert found(*judged) > 0.7


def test_tiny_inputs():
    """As few as a study of 40 records can have, of a single family."""
    clean = pieces_of(8, 3)
    damaged = [damage("moved", windows, np.random.default_rng(0)) for windows in clean]
    few = joined(pieces_of(9, 3))
    probe = fit_probe(few.documents, joined(clean), joined(damaged), np.arange(3), ["moved"] * 3)
    assert np.isfinite(probe.judge(joined(damaged))).all()
    assert np.isfinite(probe.judge(few)).all()
