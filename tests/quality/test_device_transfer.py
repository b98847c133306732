"""Transfer between groups: known answers, no leak from training to test, no say of the order."""

import numpy as np
import pytest

from shardwright.quality.heterogeneity.transfer import FOLDS, Transfer, fairness, transfer

IDS = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}{number:016x}" for number in range(5000)]


def made(
    moved: dict[str, float], each: int = 40, labels: int = 3, noise: float = 0.3, seed: int = 0
) -> tuple[list[str], list[str], list[str | None], np.ndarray]:
    """Groups of labelled points; a group's classes stand ``moved`` along the classes' circle."""
    rng = np.random.default_rng(seed)
    groups, answers, rows = [], [], []
    for group, turn in moved.items():
        for label in range(labels):
            angle = 2 * np.pi * (label / labels) + turn
            centre = np.r_[np.cos(angle), np.sin(angle), np.zeros(6)]
            rows.append(centre + noise * rng.standard_normal((each, 8)))
            groups += [group] * each
            answers += [f"label {label}"] * each
    return IDS[: len(groups)], groups, answers, np.concatenate(rows)


def table(found: Transfer) -> dict[tuple[str | None, str], float]:
    return {(row.train_group, row.test_group): row.accuracy for row in found.rows}


def test_known_answers() -> None:
    """Two groups that agree, and one whose classes are the next ones."""
    found = transfer(*made({"a": 0.0, "b": 0.0, "c": 2 * np.pi / 3}))
    seen = table(found)
    assert found.labels == ("label 0", "label 1", "label 2")
    for same in (("a", "a"), ("a", "b"), ("b", "a"), ("c", "c")):
        assert seen[same] > 0.85
    for other in (("a", "c"), ("c", "a"), ("c", "b"), (None, "c")):
        assert seen[other] < 0.15
    assert {row.n for row in found.rows} == {120}
    assert len(found.rows) == 12


def test_what_is_tested_was_not_learned() -> None:
    """Labels that are chance are told by chance, also where a row has as many dimensions."""
    rng = np.random.default_rng(0)
    n = 400
    labels: list[str | None] = [f"{label}" for label in rng.integers(0, 2, n)]
    found = transfer(IDS[:n], ["a", "b"] * (n // 2), labels, rng.standard_normal((n, 400)))
    assert all(abs(row.accuracy - 0.5) < 0.13 for row in found.rows)


def test_groups_are_cut_to_the_same_labels_and_sizes() -> None:
    ids, groups, labels, rows = made({"a": 0.0, "b": 0.0}, each=30)
    short = [i for i in range(len(ids)) if groups[i] == "a" or i % 3 or labels[i] == "label 2"]
    more = [i for i in short if not (groups[i] == "a" and labels[i] == "label 2")]
    found = transfer(*([part[i] for i in more] for part in (ids, groups, labels)), rows[more])
    assert found.labels == ("label 0", "label 1")
    assert {row.n for row in found.rows} == {40}


def test_order_of_rows_does_not_matter() -> None:
    ids, groups, labels, rows = made({"a": 0.0, "b": 0.5}, noise=0.8)
    back = np.random.default_rng(1).permutation(len(ids))
    again = transfer(*([part[i] for i in back] for part in (ids, groups, labels)), rows[back])
    assert again == transfer(ids, groups, labels, rows)


@pytest.mark.parametrize(
    ("groups", "labels", "says"),
    [
        (["a"] * 40, ["x", "y"] * 20, "one group"),
        (["a", "b"] * 20, [None] * 40, "no record has a label"),
        (["a", "b"] * 20, ["x"] * 40, "fewer than 2 labels"),
        (["a", "b"] * 20, ["x", "y"] * 20, "fewer than 2 labels"),
        (["a", "b"] * 4, ["x", "x", "y", "y"] * 2, "fewer than 2 labels"),
    ],
)
def test_not_enough_data(groups: list[str], labels: list[str | None], says: str) -> None:
    found = transfer(IDS[: len(groups)], groups, labels, np.zeros((len(groups), 3)))
    assert found.rows == ()
    assert says in str(found.missing)


def test_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match="each row needs all four"):
        transfer(IDS[:3], ["a"] * 3, ["x"] * 2, np.zeros((3, 2)))


def test_constant_vectors_are_no_fault() -> None:
    ids, groups, labels, rows = made({"a": 0.0, "b": 0.0}, each=FOLDS)
    found = transfer(ids, groups, labels, np.ones_like(rows))
    assert all(row.accuracy == pytest.approx(1 / 3) for row in found.rows)


def test_fairness() -> None:
    found = fairness({"b": 0.8, "a": 0.6, "c": 0.6}, {"a": 100, "b": 100, "c": 50})
    assert found.mean == pytest.approx(2 / 3)
    assert found.variance == pytest.approx(np.var([0.8, 0.6, 0.6]))
    assert found.floor == pytest.approx((0.16 / 99 + 0.24 / 99 + 0.24 / 49) / 3 * 2 / 3)
    assert (found.worst_group, found.worst) == ("a", 0.6)


def test_floor_is_what_chance_alone_makes() -> None:
    rng = np.random.default_rng(3)
    told = rng.binomial(60, 0.7, (2000, 4)) / 60
    found = [
        fairness(dict(zip("abcd", row, strict=True)), dict.fromkeys("abcd", 60)) for row in told
    ]
    assert np.mean([one.variance for one in found]) == pytest.approx(
        np.mean([one.floor for one in found]), rel=0.05
    )


def test_all_but_one_is_without_that_one() -> None:
    """Each group tells its labels by a coordinate of its own."""
    rng = np.random.default_rng(0)
    groups = ["a", "b", "c"] * 200
    labels: list[str | None] = [str(i // 3 % 2) for i in range(600)]
    rows = rng.standard_normal((600, 3))
    rows[np.arange(600), np.arange(600) % 3] += [4 * int(str(label)) for label in labels]
    seen = table(transfer(IDS[:600], groups, labels, rows))
    assert min(seen[name, name] for name in "abc") > 0.9
    assert max(seen[None, name] for name in "abc") < 0.65
