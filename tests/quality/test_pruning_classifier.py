"""The learned quality score: planted quality, the same bits always, and what it refuses."""

from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from shardwright.errors import UserError
from shardwright.quality.pruning import classifier as module
from shardwright.quality.pruning.classifier import BINS, Classifier, bags, fit, fit_held_out

GOOD = ["lemma", "induction", "bound", "error", "proof", "steps", "converges", "therefore"]
BAD = ["click", "free", "offers", "subscribe", "cheap", "deals", "today", "winner"]
BOTH = ["the", "a", "of", "to", "in", "is", "it", "that", "was", "for", "on", "are", "as", "with"]


def labelled(n: int, share: float = 0.5, seed: int = 0, signal: tuple[float, float] = (0.3, 0.5)):
    """Texts and vectors that tell good from bad, each only in part."""
    rng = np.random.default_rng(seed)
    good = np.arange(n) < round(share * n)
    rng.shuffle(good)
    texts = []
    for is_good in good:
        own = rng.random(30) < signal[0]
        words = np.where(own, rng.choice(GOOD if is_good else BAD, 30), rng.choice(BOTH, 30))
        texts.append(" ".join(words))
    x = rng.standard_normal((n, 16))
    x[:, 0] += np.where(good, 1, -1) * signal[1] * 2
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return texts, x.astype(np.float32), good


def auc(score: np.ndarray, good: np.ndarray) -> float:
    return float((score[good][:, None] > score[~good]).mean())


@pytest.fixture(autouse=True)
def few_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two penalties are as good as five to show what they do, and sooner tried."""
    monkeypatch.setattr(module, "STRENGTHS", (1.0, 100.0))


def same(a: Classifier, b: Classifier) -> bool:
    names = [field.name for field in fields(Classifier)]
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in names)


@pytest.mark.parametrize("share", [0.5, 0.15])
def test_planted_quality_is_found(share: float) -> None:
    learned = fit(*labelled(200, share, 0))
    texts, x, good = labelled(300, 0.5, 1)
    score = learned.score(texts, x)
    assert score.dtype == np.float64
    assert auc(score, good) > 0.95
    # labels weigh the same whatever their shares, so 0 lies between good and bad
    assert np.mean((score > 0) == good) > 0.85


def test_either_head_sees_what_the_other_does_not() -> None:
    test_texts, test_x, good = labelled(300, seed=1, signal=(0.3, 2.0))
    by_vectors = fit(*labelled(200, signal=(0.0, 2.0)))
    assert auc(by_vectors.score(test_texts, test_x), good) > 0.9
    by_texts = fit(*labelled(200, signal=(0.5, 0.0)))
    assert auc(by_texts.score(test_texts, test_x), good) > 0.9


def test_the_score_is_the_mean_of_the_logits() -> None:
    texts, x, good = labelled(80)
    learned = fit(texts, x, good)
    first = x.astype(float) @ learned.weights + learned.bias
    second = bags(texts) @ learned.words + learned.words_bias
    np.testing.assert_allclose(learned.score(texts, x), (first + second) / 2, atol=1e-12)


def test_the_heads_are_logistic_regressions() -> None:
    """The gradient of the penalised, balanced log loss vanishes."""
    texts, x, good = labelled(90, 0.3)
    learned = fit(texts, x, good)
    weight = np.where(good, 0.5 / good.mean(), 0.5 / (~good).mean())
    heads = (
        (x.astype(float), learned.weights, learned.bias),
        (bags(texts).toarray(), learned.words, learned.words_bias),
    )
    for (rows, weights, bias), strength in zip(heads, learned.strengths, strict=True):
        chance = 1 / (1 + np.exp(-(rows @ weights + bias)))
        slope = strength * rows.T @ (weight * (chance - good)) + weights
        assert np.abs(slope).max() < 0.02 * strength
        assert abs((weight * (chance - good)).sum()) < 0.02


def test_the_penalty_is_that_of_the_least_held_out_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, x, good = labelled(100, signal=(0.2, 0.1))
    chosen = fit(texts, x, good)
    for strength in (1.0, 100.0):
        monkeypatch.setattr(module, "STRENGTHS", (strength,))
        alone = fit(texts, x, good)
        assert (chosen.losses <= alone.losses).all()
    assert set(chosen.strengths) <= {1.0, 100.0}
    assert (chosen.losses > 0).all()


def test_held_out_scores_are_those_of_the_other_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the folds done by hand, in the order that records are learned in."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    monkeypatch.setattr(module, "STRENGTHS", (10.0,))
    texts, x, good = labelled(90, 0.4, signal=(0.2, 0.1))
    learned, held = fit_held_out(texts, x, good)
    assert same(learned, fit(texts, x, good))
    order = np.argsort([module._digest(texts, x, good, row) for row in range(90)])
    expected = np.zeros(90)
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(order, good[order])
    for train, test in folds:
        seen, unseen = order[train], order[test]
        for rows in (x.astype(float), bags(texts).toarray()):
            model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=2000)
            model.fit(rows[seen], good[seen])
            expected[unseen] += model.decision_function(rows[unseen]) / 2
    np.testing.assert_allclose(held, expected, atol=0.02)
    shuffled = np.random.default_rng(5).permutation(90)
    again = fit_held_out([texts[i] for i in shuffled], x[shuffled], good[shuffled])[1]
    np.testing.assert_array_equal(again, held[shuffled])


def test_held_out_scores_do_not_know_the_labels() -> None:
    """Of labels at random the model's own scores find much, those held out nothing."""
    texts, x, good = labelled(120, signal=(0.0, 0.0))
    learned, held = fit_held_out(texts, x, good)
    assert auc(learned.score(texts, x), good) > 0.75
    assert 0.3 < auc(held, good) < 0.65
    pictures, of_pictures = fit_held_out(None, x, good)
    assert len(pictures.words) == 0
    assert np.isfinite(of_pictures).all()


def test_the_same_records_give_the_same_bits_in_any_order() -> None:
    texts, x, good = labelled(80)
    order = np.random.default_rng(5).permutation(80)
    first = fit(texts, x, good)
    assert same(first, fit(texts, x, good))
    assert same(first, fit([texts[i] for i in order], x[order], good[order]))


def test_a_score_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, x, good = labelled(80)
    learned = fit(texts, x, good)
    whole = learned.score(texts, x)
    alone = [learned.score(texts[i : i + 1], x[i : i + 1])[0] for i in range(80)]
    np.testing.assert_array_equal(alone, whole)
    monkeypatch.setattr(module, "_ROWS", 7)
    np.testing.assert_array_equal(learned.score(texts, x), whole)
    assert learned.score([], x[:0]).shape == (0,)


def test_saved_and_loaded_it_is_the_same_bits(tmp_path: Path) -> None:
    texts, x, good = labelled(60)
    learned = fit(texts, x, good)
    learned.save(tmp_path / "a")
    learned.save(tmp_path / "b")
    loaded = Classifier.load(tmp_path / "a")
    assert same(learned, loaded)
    np.testing.assert_array_equal(loaded.score(texts, x), learned.score(texts, x))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pictures_have_the_vectors_alone(tmp_path: Path) -> None:
    _, x, good = labelled(150, signal=(0.0, 1.0))
    learned = fit(None, x, good)
    assert auc(learned.score(None, x), good) > 0.9
    assert np.isnan(learned.strengths[1])
    learned.save(tmp_path / "c")
    assert same(learned, Classifier.load(tmp_path / "c"))
    with pytest.raises(ValueError, match="texts must be given if"):
        learned.score(["a"] * 150, x)


def test_half_precision_vectors_are_taken() -> None:
    texts, x, good = labelled(60)
    half = fit(texts, x.astype(np.float16), good)
    assert auc(half.score(texts, x.astype(np.float16)), good) > 0.9


@pytest.mark.parametrize(("good", "bad"), [(19, 40), (40, 19), (60, 0), (0, 60), (0, 0)])
def test_too_few_labels_are_refused(good: int, bad: int) -> None:
    texts, x, _ = labelled(good + bad)
    which = "good" if good < 20 else "bad"
    with pytest.raises(UserError, match=f"{min(good, bad)} of {good + bad} records are {which}"):
        fit(texts, x, np.arange(good + bad) < good)


def test_twenty_of_either_label_are_enough() -> None:
    texts, x, good = labelled(40)
    assert np.isfinite(fit(texts, x, good).score(texts, x)).all()


def test_shapes_must_fit() -> None:
    texts, x, good = labelled(60)
    learned = fit(texts, x, good)
    with pytest.raises(ValueError, match="59 texts and 60 vectors"):
        fit(texts[1:], x, good)
    with pytest.raises(ValueError, match=r"labels have shape \(59,\)"):
        fit(texts, x, good[1:])
    with pytest.raises(ValueError, match="3 dimensions: it was learned on 16"):
        learned.score(texts, x[:, :3])
    with pytest.raises(ValueError, match="texts must be given"):
        learned.score(None, x)
    with pytest.raises(ValueError, match="must be"):
        fit(texts, x[0], good)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    learned = fit(*labelled(40))
    learned.save(path)
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    texts = [b"", b"text", whole[:-30], bytes(damaged)]
    texts += [(tmp_path / name).read_bytes() for name in ("other.npz", "one.npy", "objects.npy")]
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(UserError, match="holds no classifier"):
            Classifier.load(path)
    with pytest.raises(UserError, match="holds no classifier"):
        Classifier.load(tmp_path / "nothing")


def test_a_bag_counts_words_and_pairs() -> None:
    rows = bags(["a b a b", "", "b a", "\ud800 lone"])
    assert rows.shape == (4, BINS)
    counts = Counter("abab") + Counter(zip("aba", "bab", strict=True))
    expected = np.sort(np.log1p(list(counts.values())))
    np.testing.assert_allclose(np.sort(rows[0].data), expected / np.linalg.norm(expected))
    assert rows[1].nnz == 0
    # one word each alone is the same bin in either text; the pairs (a, b) and (b, a) differ
    assert len(np.intersect1d(rows[0].indices, rows[2].indices)) == 3
    np.testing.assert_allclose(np.sqrt(rows.multiply(rows).sum(1)), [[1], [0], [1], [1]])
