"""k-means: against plain float64 Lloyd, its objective, its bits, and what it refuses."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.embeddings import KMeans, kmeans
from shardwright.embeddings.kmeans import fill_empty
from shardwright.errors import UserError


def unit(values):
    values = np.asarray(values, dtype=np.float64)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def blobs(seed=0, groups=6, each=80, dimension=24, spread=0.08):
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((groups, dimension)))
    noise = spread * rng.standard_normal((groups * each, dimension))
    return unit(np.repeat(centres, each, axis=0) + noise)


def plain_lloyd(x, centroids, metric, iterations):
    """Lloyd with whole float64 matrices; centroids are kept as float32, as KMeans keeps them."""
    x, centroids = x.astype(np.float64), centroids.astype(np.float64)
    for _ in range(iterations + 1):
        if metric == "l2":
            distances = np.square(x[:, None] - centroids).sum(axis=2)
        else:
            norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(centroids, axis=1)
            distances = 1 - x @ centroids.T / norms
        labels = distances.argmin(axis=1)
        groups = [x[labels == cluster] for cluster in range(len(centroids))]
        assert min(map(len, groups)) > 0, "this data is not for this test"
        last, means = centroids, np.stack([group.mean(axis=0) for group in groups])
        if metric == "cosine":
            means /= np.linalg.norm(means, axis=1, keepdims=True)
        centroids = means.astype(np.float32).astype(np.float64)
    return labels, last, distances.min(axis=1)


@pytest.mark.parametrize("start", ["sample", "k-means++"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_plain_float64_lloyd(metric, start, seed):
    x = blobs(seed, spread=0.4)
    if metric == "l2":
        x = x * np.float32(3) + np.float32(0.5)
    settings_ = KMeans(8, metric, start, seed, iterations=7)
    found = settings_.fit(x)
    if start == "sample":
        chosen = kmeans.sample_start(torch.from_numpy(x), 8, seed)
    else:
        chosen = kmeans.plus_plus_start(torch.from_numpy(x), 8, seed)
    labels, centroids, distances = plain_lloyd(x, x[chosen], metric, 7)
    assert (found.labels == labels).all()
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-6)
    np.testing.assert_allclose(found.distances, distances, atol=1e-6)
    assert found.inertia == pytest.approx(distances.sum(), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_inertia_is_scikit_learn_s_from_the_same_start(seed):
    cluster = pytest.importorskip("sklearn.cluster")
    x = blobs(seed, groups=10, each=100, spread=0.3)
    chosen = kmeans.sample_start(torch.from_numpy(x), 15, seed)
    theirs = cluster.KMeans(15, init=x[chosen], n_init=1, max_iter=30, tol=0).fit(x)
    ours = KMeans(15, "l2", seed=seed, iterations=30).fit(x)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["cosine", "l2"]),
    st.sampled_from(["sample", "k-means++"]),
    st.integers(1, 30),
    st.booleans(),
)
def test_inertia_never_rises(seed, metric, start, k, copies):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((120, 6))
    if copies:
        x = x[rng.integers(0, 40, 120)]
    x = unit(x) if metric == "cosine" else x.astype(np.float32)
    inertias = [
        KMeans(k, metric, start, seed, iterations=moves).fit(x).inertia for moves in range(1, 9)
    ]
    # a mean rounded to float32 is off by 2^-24 of itself, and the inertia by the square of that
    slack = len(x) * (2.0**-23 * np.abs(x).max()) ** 2 + 1e-12 * len(x)
    assert all(after <= before + slack for before, after in itertools.pairwise(inertias))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_labels_and_distances_belong_to_the_centroids(metric):
    x = blobs(spread=0.5)
    for moves in (1, 3, 100):
        found = KMeans(7, metric, iterations=moves).fit(x)
        labels, distances = KMeans(7, metric).assign(x, found.centroids)
        assert (found.labels == labels).all()
        assert (found.distances == distances).all()
        assert found.iterations <= moves
        assert found.centroids.dtype == np.float32
        assert found.labels.dtype == np.int64
        assert found.distances.dtype == np.float64


def test_recovers_groups():
    x = blobs()
    group = np.repeat(np.arange(6), 80)
    for metric, start in itertools.product(["cosine", "l2"], ["sample", "k-means++"]):
        labels = KMeans(12, metric, start, iterations=50).fit(x).labels
        assert all(len(set(group[labels == cluster])) == 1 for cluster in range(12))


def test_plus_plus_finds_distinct_groups_that_a_sample_misses():
    x = blobs(groups=40, each=25, spread=0.02)
    lower = [
        KMeans(40, "l2", "k-means++", seed).fit(x).inertia
        < KMeans(40, "l2", "sample", seed).fit(x).inertia
        for seed in range(5)
    ]
    assert all(lower)


def test_seed_decides_and_nothing_else():
    x = blobs()
    first = KMeans(9, seed=5).fit(x).centroids
    assert KMeans(9, seed=5).fit(x.copy()).centroids.tobytes() == first.tobytes()
    assert KMeans(9, seed=6).fit(x).centroids.tobytes() != first.tobytes()


def test_bits_do_not_depend_on_threads():
    script = (
        "import hashlib, test_kmeans as t\n"
        "x = t.blobs(each=700, dimension=96, spread=0.2)\n"
        "for metric in ('cosine', 'l2'):\n"
        "    found = t.KMeans(40, metric, 'k-means++', 1, 8).fit(x)\n"
        "    for part in (found.centroids, found.labels, found.distances):\n"
        "        print(hashlib.sha256(part.tobytes()).hexdigest(), found.inertia)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={
                "OMP_NUM_THREADS": threads,
                "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_tiles_that_travel_change_nothing(monkeypatch):
    x = blobs(spread=0.4)
    whole = KMeans(9, "l2").fit(x)
    monkeypatch.setattr(kmeans, "_TILE_BYTES", 1000)
    tiled = KMeans(9, "l2").fit(x)
    assert tiled.centroids.tobytes() == whole.centroids.tobytes()
    assert tiled.distances.tobytes() == whole.distances.tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_in_tensors_out(dtype):
    x = torch.from_numpy(blobs()).to(dtype)
    found = KMeans(6).fit(x)
    assert isinstance(found.centroids, torch.Tensor)
    assert (found.centroids.dtype, found.labels.dtype) == (torch.float32, torch.int64)
    if dtype != torch.bfloat16:
        other = KMeans(6).fit(x.numpy())
        assert isinstance(other.labels, np.ndarray)
        assert found.centroids.numpy().tobytes() == other.centroids.tobytes()
        assert found.inertia == other.inertia


def test_half_precision_is_taken_as_it_is():
    x = blobs().astype(np.float16)
    assert (KMeans(6).fit(x).centroids == KMeans(6).fit(x.astype(np.float32)).centroids).all()


def test_read_only_and_strided_rows():
    x = blobs()
    expected = KMeans(5).fit(x).centroids
    wide = np.concatenate([x, x], axis=1)
    for same in (x.copy(), wide[:, :24], np.asfortranarray(x), x[::-1].copy()[::-1]):
        same.flags.writeable = False
        assert (KMeans(5).fit(same).centroids == expected).all()


def test_one_cluster_is_the_mean():
    x = blobs(groups=1)
    mean = x.astype(np.float64).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(KMeans(1).fit(x).centroids, unit(mean), atol=1e-7)
    np.testing.assert_allclose(KMeans(1, "l2").fit(x).centroids, mean, atol=1e-7)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_as_many_clusters_as_rows(metric):
    x = blobs(groups=3, each=5)
    found = KMeans(len(x), metric).fit(x)
    assert sorted(found.labels.tolist()) == list(range(len(x)))
    assert found.inertia < 1e-6


@pytest.mark.parametrize("start", ["sample", "k-means++"])
def test_fewer_distinct_rows_than_clusters(start):
    x = np.repeat(unit(np.eye(3)), 4, axis=0)
    found = KMeans(5, start=start).fit(x)
    assert found.centroids.shape == (5, 3)
    assert found.inertia == 0


def test_fills_empty_clusters_with_the_farthest_rows_of_the_largest():
    labels = np.array([0, 0, 0, 0, 2, 2])
    fill_empty(labels, -np.array([0.9, 0.5, 0.5, 0.95, 0.1, 0.2]), 5)
    # cluster 1 takes row 1 (the first of two worst), 3 takes row 2; then sizes are 2, 1, 2, 1 and
    # the first of the largest, cluster 0, gives its worst, row 0, to 4
    assert labels.tolist() == [4, 1, 3, 0, 2, 2]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_empty_clusters_are_filled_during_the_iterations(monkeypatch, metric):
    x = blobs(groups=2, each=40)
    monkeypatch.setattr(kmeans, "sample_start", lambda x, k, seed: np.zeros(k, dtype=np.int64))
    found = KMeans(4, metric, iterations=30).fit(x)
    assert np.bincount(found.labels, minlength=4).min() > 0


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_empty_cluster_takes_the_farthest_row(monkeypatch, metric):
    x = blobs(groups=2, each=40, spread=0.3)
    monkeypatch.setattr(kmeans, "sample_start", lambda x, k, seed: np.zeros(k, dtype=np.int64))
    found = KMeans(2, metric, iterations=1).fit(x)
    farthest = (x @ x[0]).argmin()
    np.testing.assert_allclose(found.centroids[1], x[farthest], atol=1e-6)


def test_stops_when_no_label_changes():
    found = KMeans(6, iterations=500).fit(blobs())
    assert 0 < found.iterations < 50
    again = KMeans(6, iterations=found.iterations).fit(blobs())
    assert again.centroids.tobytes() == found.centroids.tobytes()


def test_tolerance_stops_sooner():
    x = blobs(spread=0.5)
    full = KMeans(20, "l2", iterations=200).fit(x)
    loose = KMeans(20, "l2", iterations=200, tolerance=0.01).fit(x)
    assert 0 < loose.iterations < full.iterations
    assert full.inertia < loose.inertia < 1.1 * full.inertia
    step = KMeans(20, "l2", iterations=loose.iterations - 1).fit(x)
    assert step.inertia - loose.inertia <= 0.01 * step.inertia


def test_rows_that_cancel_keep_their_centroid():
    x = unit([[1, 0], [-1, 0]])
    assert np.isin(KMeans(1).fit(x).centroids, [1, -1, 0]).all()


def test_counts_what_was_certified():
    assert 0.9 < KMeans(7).fit(blobs(spread=0.5)).certified <= 1
    assert KMeans(7, precision="fast").fit(blobs()).certified == 0


def test_fast_takes_the_filter_s_answer():
    x = blobs(spread=0.4)
    fast, exact = KMeans(6, precision="fast").fit(x), KMeans(6).fit(x)
    assert (fast.labels == exact.labels).mean() > 0.99


def test_refuses_what_it_cannot_do(monkeypatch):
    x = unit(np.eye(3))
    with pytest.raises(ValueError, match=r"k is 4: .* number of rows, 3"):
        KMeans(4).fit(x)
    for wrong, message in [
        ({"k": 0}, "k is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"tolerance": 1.0}, "tolerance is 1.0"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"metric": "dot"}, "metric is 'dot': use cosine or l2"),
        ({"start": "random"}, "start is 'random': use sample or k-means"),
        ({"precision": "exakt"}, "precision is 'exakt'"),
        ({"device": "gpu"}, "device is 'gpu'"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(KMeans(2), **wrong)
    with pytest.raises(ValueError, match="row 1 of x has norm 2: cosine needs unit rows"):
        KMeans(2).fit(x * np.float32([[1], [2], [1]]))
    for metric in ("cosine", "l2"):
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = x.copy()
            spoilt[2, 1] = bad
            with pytest.raises(ValueError, match="row 2 of x holds NaN or infinity"):
                KMeans(2, metric).fit(spoilt)
    with pytest.raises(TypeError, match=r"x is torch.float64: use float32"):
        KMeans(2).fit(x.astype(np.float64))
    with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
        KMeans(2).fit(x[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device is cuda, but torch sees no GPU"):
        KMeans(2, device="cuda").fit(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("start", ["sample", "k-means++"])
def test_same_bits_on_cpu_and_gpu(monkeypatch, metric, start):
    x = blobs(groups=40, each=500, dimension=96, spread=0.4)
    settings_ = KMeans(150, metric, start, iterations=6, device="cpu")
    here, there = settings_.fit(x), replace(settings_, device="cuda").fit(x)
    on_card = replace(settings_, device="cuda").fit(torch.from_numpy(x).cuda())
    assert on_card.labels.is_cuda
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 0))
    monkeypatch.setattr(kmeans, "_TILE_BYTES", 1 << 20)
    travelled = replace(settings_, device="cuda").fit(x)
    for other in (there, travelled):
        for name in ("centroids", "labels", "distances"):
            assert getattr(here, name).tobytes() == getattr(other, name).tobytes()
    assert here.inertia == there.inertia == on_card.inertia
    assert on_card.centroids.cpu().numpy().tobytes() == here.centroids.tobytes()
