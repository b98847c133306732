"""Spherical k-means and the keys for seeded samples."""

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.embeddings import kmeans, sample_keys, spherical_kmeans
from shardwright.kernels import nearest


def unit(values):
    values = np.asarray(values, dtype=np.float64)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def blobs(seed=0, groups=6, each=80, dimension=24, spread=0.08):
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((groups, dimension)))
    noise = spread * rng.standard_normal((groups * each, dimension))
    return unit(np.repeat(centres, each, axis=0) + noise)


def test_recovers_groups():
    x = blobs()
    centroids = spherical_kmeans(x, 12, seed=0, iterations=50)
    labels, cosines = nearest(x, centroids)
    group = np.repeat(np.arange(6), 80)
    assert all(len(set(group[labels == cluster])) == 1 for cluster in range(12))
    assert cosines.min() > 0.8


def test_result_is_a_fixed_point_of_the_definition():
    x = blobs(spread=0.3)
    centroids = spherical_kmeans(x, 5, seed=3, iterations=200)
    labels, _ = nearest(x, centroids)
    sums = np.stack([x[labels == c].astype(np.float64).sum(axis=0) for c in range(5)])
    np.testing.assert_allclose(centroids, unit(sums), atol=1e-7)
    assert centroids.dtype == np.float32


def test_more_iterations_never_hurt():
    x = blobs(spread=0.5)
    quality = [
        nearest(x, spherical_kmeans(x, 7, seed=1, iterations=i))[1].sum() for i in range(1, 12)
    ]
    assert all(b >= a - 1e-3 for a, b in itertools.pairwise(quality))


def test_seed_decides_and_nothing_else():
    x = blobs()
    first = spherical_kmeans(x, 9, seed=5)
    assert spherical_kmeans(x.copy(), 9, seed=5).tobytes() == first.tobytes()
    assert spherical_kmeans(x, 9, seed=6).tobytes() != first.tobytes()


def test_bits_do_not_depend_on_threads():
    script = (
        "import hashlib, test_spherical_kmeans as t\n"
        "x = t.blobs(each=700, dimension=96, spread=0.2)\n"
        "print(hashlib.sha256(t.spherical_kmeans(x, 40, 1, 8).tobytes()).hexdigest())"
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


def test_one_cluster_is_the_mean_direction():
    x = blobs(groups=1)
    expected = unit(x.astype(np.float64).sum(axis=0, keepdims=True))
    np.testing.assert_allclose(spherical_kmeans(x, 1, seed=0), expected, atol=1e-7)


def test_as_many_clusters_as_rows():
    x = blobs(groups=3, each=5)
    centroids = spherical_kmeans(x, len(x), seed=0)
    labels, cosines = nearest(x, centroids)
    assert sorted(labels.tolist()) == list(range(len(x)))
    assert cosines.min() > 1 - 1e-6


def test_starts_from_distinct_rows():
    x = np.repeat(unit(np.eye(4)), 50, axis=0)
    for seed in range(20):
        assert len(np.unique(x[kmeans._start(x, 4, seed)], axis=0)) == 4
        centroids = spherical_kmeans(x, 4, seed=seed)
        assert sorted(nearest(unit(np.eye(4)), centroids)[0].tolist()) == [0, 1, 2, 3]


def test_fewer_distinct_rows_than_clusters():
    x = np.repeat(unit(np.eye(3)), 4, axis=0)
    centroids = spherical_kmeans(x, 5, seed=0)
    assert centroids.shape == (5, 3)
    assert nearest(x, centroids)[1].min() == 1


def test_fills_empty_clusters_with_the_worst_rows_of_the_largest():
    labels = np.array([0, 0, 0, 0, 2, 2])
    cosines = np.array([0.9, 0.5, 0.5, 0.95, 0.1, 0.2])
    kmeans._fill_empty(labels, cosines, 5)
    # cluster 1 takes row 1 (the first of two worst), 3 takes row 2; then sizes are 2, 1, 2, 1 and
    # the first of the largest, cluster 0, gives its worst, row 0, to 4
    assert labels.tolist() == [4, 1, 3, 0, 2, 2]


def test_empty_clusters_are_filled_during_the_iterations(monkeypatch):
    x = blobs(groups=2, each=40)
    monkeypatch.setattr(kmeans, "_start", lambda x, k, seed: np.zeros(k, dtype=np.int64))
    centroids = spherical_kmeans(x, 4, seed=0, iterations=30)
    assert np.bincount(nearest(x, centroids)[0], minlength=4).min() > 0


def test_stops_when_no_label_changes(monkeypatch):
    calls = []
    monkeypatch.setattr(kmeans, "nearest", lambda *args: calls.append(1) or nearest(*args))
    spherical_kmeans(blobs(), 6, seed=0, iterations=500)
    assert 1 < len(calls) < 50


def test_rows_that_cancel_keep_their_centroid():
    x = unit([[1, 0], [-1, 0]])
    assert np.isin(spherical_kmeans(x, 1, seed=0)[0], [1, -1, 0]).all()


def test_sums_do_not_hold_all_rows_in_float64(monkeypatch):
    x = blobs(each=30)
    labels = np.arange(len(x)) % 7
    expected = unit([x[labels == c].astype(np.float64).sum(axis=0) for c in range(7)])
    for block in (1, 17, 8192):
        monkeypatch.setattr(kmeans, "_BLOCK", block)
        np.testing.assert_allclose(kmeans._update(x, labels, expected), expected, atol=1e-7)


def test_refuses_what_it_cannot_do():
    x = unit(np.eye(3))
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k is {k}: .* number of rows, 3"):
            spherical_kmeans(x, k, seed=0)
    with pytest.raises(ValueError, match="iterations is 0"):
        spherical_kmeans(x, 2, seed=0, iterations=0)
    with pytest.raises(ValueError, match="row 1 has norm 2: rows must be unit rows"):
        spherical_kmeans(x * np.float32([[1], [2], [1]]), 2, seed=0)
    with pytest.raises(ValueError, match="row 0 has norm nan"):
        spherical_kmeans(x * np.float32("nan"), 2, seed=0)


def ids(count):
    return [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(count)]


def slow_key(record_id, seed):
    mask = 2**64 - 1

    def finalise(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    golden = 0x9E3779B97F4A7C15
    start = finalise((seed + 1) * golden & mask)
    return finalise((int(record_id[:16], 16) ^ start) + golden & mask)


@settings(max_examples=30, deadline=None)
@given(st.integers(-(2**70), 2**70), st.integers(0, 40))
def test_keys_follow_the_definition_in_any_container(seed, count):
    names = ids(count)
    expected = [slow_key(name, seed) for name in names]
    padded = pa.array(["f" * 32, *names, "0" * 32])
    chunked = pa.chunked_array([names[: count // 2], names[count // 2 :]], pa.string())
    for given_ids in (
        names,
        pa.array(names, pa.string()),
        pa.array(names, pa.large_string()),
        padded.slice(1, count),
        padded.cast(pa.large_string()).slice(1, count),
        chunked,
        pa.array(names, pa.string()).dictionary_encode(),
    ):
        keys = sample_keys(given_ids, seed)
        assert keys.dtype == np.uint64
        assert keys.tolist() == expected


def test_keys_are_spread_evenly_and_unrelated_across_seeds():
    names = ids(20000)
    first, second = sample_keys(names, 0), sample_keys(names, 1)
    for keys in (first, second, first ^ second):
        counts = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16)
        assert np.abs(counts - 1250).max() < 150


@pytest.mark.parametrize("bad", ["f" * 31, "F" * 32, "g" * 32, "", "f" * 33, "f" * 32 + "\n", None])
def test_malformed_ids_are_named(bad):
    with pytest.raises(ValueError, match="record id 1 is "):
        sample_keys(["0" * 32, bad], 0)
