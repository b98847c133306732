"""A quality score that is learned from records of which a user said which are good.

Two ways are in use: a linear head on the embeddings of a text (FineWeb-Edu: Penedo et al. 2024,
arXiv 2406.17557) and a linear model of its hashed words and word pairs, as fastText is
(DCLM: Li et al. 2024, arXiv 2406.11794; Joulin et al. 2016, arXiv 1607.01759). This one
has both heads, each a logistic regression, and takes the mean of their logits. Pictures have the
first head alone.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from shardwright.errors import UserError
from shardwright.quality.shingles import hash_sequences, token_hashes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Float64 = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]

BINS = 1 << 18
"""Bins that words and pairs of words are hashed to."""
LEAST_LABELS = 20
"""Records of either label that there must be."""
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse strengths of the l2 penalty that are tried; inputs are unit rows."""

_UNREADABLE = (KeyError, ValueError, TypeError, OSError, EOFError, BadZipFile, zlib.error)
"""What NumPy raises for a file that is missing, cut short, damaged, or another one."""
_FOLDS = 5
_MOVES = 2000
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Classifier:
    """What ``fit`` learned.

    Attributes:
        weights: float64 [d], of the vectors.
        bias: float64 [1].
        words: float64 [BINS], of the bins; [0] if it was learned without texts.
        words_bias: float64 [1].
        strengths: float64 [2], the inverse penalties that were chosen; NaN for no head.
        losses: float64 [2], their log loss on held-out folds, both labels weighing the same.
    """

    weights: Float64
    bias: Float64
    words: Float64
    words_bias: Float64
    strengths: Float64
    losses: Float64

    def score(self, texts: Sequence[str] | None, vectors: Vectors) -> Float64:
        """Log odds of good, were both labels equally frequent: above 0 is rather good.

        Args:
            texts: n texts, or None if it was learned without.
            vectors: unit rows [n, d].

        Returns:
            float64 [n]; each depends on its own record only.

        Raises:
            ValueError: shapes do not fit, or texts are missing or too many.
        """
        import torch

        from shardwright.kernels.exact import fold

        _check(texts, vectors)
        if vectors.shape[1] != len(self.weights):
            raise ValueError(
                f"vectors have {vectors.shape[1]} dimensions: it was learned on {len(self.weights)}"
            )
        if (texts is None) != (len(self.words) == 0):
            raise ValueError("texts must be given if it was learned with them, and only then")
        score = np.empty(len(vectors))
        for start in range(0, len(vectors), _ROWS):
            part = slice(start, start + _ROWS)
            # in an order of additions that does not depend on the batch, unlike a product's
            terms = torch.from_numpy(vectors[part] * self.weights)
            logits = fold(terms).numpy() + self.bias
            if texts is not None:
                logits += bags(texts[part]) @ self.words + self.words_bias
                logits /= 2
            score[part] = logits
        return score

    def save(self, path: Path) -> None:
        """Writes an npz file of arrays."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @staticmethod
    def load(path: Path) -> "Classifier":
        """Reads what ``save`` wrote: the same bits.

        Raises:
            UserError: the file is no such file.
        """
        names = [field.name for field in fields(Classifier)]
        try:
            with np.load(path, allow_pickle=False) as file:
                return Classifier(**{name: file[name] for name in names})
        except _UNREADABLE as error:
            raise UserError(f"{path}: holds no classifier ({error}); fit it again") from None


def fit(texts: Sequence[str] | None, vectors: Vectors, labels: npt.NDArray[np.bool_]) -> Classifier:
    """Learns what good records are.

    Each head's penalty is the one of ``STRENGTHS`` of least log loss over five folds. Both labels
    weigh the same, however many records have them. The result depends on the records and not on
    their order; BLAS runs on one thread, so that the number of threads changes no bit either.

    Args:
        texts: n texts, or None to learn from the vectors alone.
        vectors: unit rows [n, d], float32 or float16.
        labels: bool [n], whether a record is good.

    Raises:
        ValueError: shapes do not fit.
        UserError: there are fewer than ``LEAST_LABELS`` records of either label.
    """
    return fit_held_out(texts, vectors, labels)[0]


def fit_held_out(
    texts: Sequence[str] | None, vectors: Vectors, labels: npt.NDArray[np.bool_]
) -> tuple[Classifier, Float64]:
    """As ``fit``, and what it says of the records that it learns from, each held out.

    A model knows the labels of what it was fitted on, so its own score of these flatters it. Here
    each record is judged by the four folds that it is not in, with the penalty that is chosen in
    the end. Equal records of one label would tell on each other: give each once.

    Returns:
        What was learned; float64 [n], scores on the same scale, in the order given.

    Raises:
        ValueError: as ``fit``.
        UserError: as ``fit``.
    """
    _check(texts, vectors)
    good = np.asarray(labels, np.bool_)
    if good.shape != (len(vectors),):
        raise ValueError(f"labels have shape {good.shape}: there are {len(vectors)} vectors")
    for count, name in ((int(good.sum()), "good"), (int((~good).sum()), "bad")):
        if count < LEAST_LABELS:
            raise UserError(
                f"labels: {count} of {len(good)} records are {name}; "
                f"label at least {LEAST_LABELS} of either kind"
            )
    order = np.argsort([_digest(texts, vectors, good, row) for row in range(len(good))])
    good = good[order]
    head = _head(vectors[order].astype(np.float64), good)
    words = _Head(np.zeros(0), 0.0, np.nan, np.nan, head.held)
    if texts is not None:
        words = _word_head(bags([texts[row] for row in order]), good)
    held = np.empty(len(good))
    held[order] = (head.held + words.held) / 2
    learned = Classifier(
        weights=head.weights,
        bias=np.array([head.bias]),
        words=words.weights,
        words_bias=np.array([words.bias]),
        strengths=np.array([head.strength, words.strength]),
        losses=np.array([head.loss, words.loss]),
    )
    return learned, held


def bags(texts: Sequence[str]) -> "csr_matrix":
    """Hashed words and pairs of neighbouring words: unit rows float64 [n, BINS], sparse.

    A word is what ``quality.shingles`` calls a token. A bin weighs log(1 + count). A text without
    words is a zero row.
    """
    from scipy.sparse import csr_matrix

    columns, values, ends = [np.empty(0, np.int64)], [np.empty(0)], [0]
    for text in texts:
        words = token_hashes(text.encode("utf-8", "surrogatepass"))
        grams = np.concatenate([words, hash_sequences([words[:-1], words[1:]])])
        bins, counts = np.unique(grams % np.uint64(BINS), return_counts=True)
        weights = np.log1p(counts)
        columns.append(bins.astype(np.int64))
        values.append(weights / max(float(np.sqrt((weights * weights).sum())), 1e-300))
        ends.append(ends[-1] + len(bins))
    return csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(ends)), shape=(len(texts), BINS)
    )


def _check(texts: Sequence[str] | None, vectors: Vectors) -> None:
    if vectors.ndim != 2:
        raise ValueError(f"vectors have shape {vectors.shape}: they must be [records, dimension]")
    if texts is not None and len(texts) != len(vectors):
        raise ValueError(f"there are {len(texts)} texts and {len(vectors)} vectors")


def _digest(
    texts: Sequence[str] | None, vectors: Vectors, good: npt.NDArray[np.bool_], row: int
) -> str:
    """What records are ordered by: a hash of all that is known of one."""
    text = b"" if texts is None else texts[row].encode("utf-8", "surrogatepass")
    return hashlib.sha256(bytes([good[row]]) + vectors[row].tobytes() + text).hexdigest()


class _Head(NamedTuple):
    """A logistic regression.

    Attributes:
        weights: float64 [d].
        bias: Added to the product.
        strength: The inverse penalty.
        loss: Log loss on held-out folds, both labels weighing the same.
        held: float64 [n], the logit of each row by the folds that it is not in.
    """

    weights: Float64
    bias: float
    strength: float
    loss: float
    held: Float64


def _word_head(rows: "csr_matrix", good: npt.NDArray[np.bool_]) -> _Head:
    """As ``_head``; bins that no text has get the weight 0, which the penalty gives them anyway."""
    used = np.unique(rows.indices)
    few = _head(rows[:, used], good)
    weights = np.zeros(BINS)
    weights[used] = few.weights
    return few._replace(weights=weights)


def _head(rows: Any, good: npt.NDArray[np.bool_]) -> _Head:
    """The logistic regression whose penalty serves held-out folds best."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    def learned(rows: Any, good: npt.NDArray[np.bool_], strength: float) -> Any:
        model = LogisticRegression(
            C=strength, class_weight="balanced", solver="lbfgs", max_iter=_MOVES, random_state=0
        )
        return model.fit(rows, good)

    def held_out(strength: float) -> tuple[float, Float64]:
        chances, logits = np.empty(len(good)), np.empty(len(good))
        for train, test in folds:
            model = learned(rows[train], good[train], strength)
            chances[test] = model.predict_proba(rows[test])[:, 1]
            logits[test] = model.decision_function(rows[test])
        return float(log_loss(good, chances, sample_weight=weight)), logits

    folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(good, good))
    weight = np.where(good, 0.5 / good.mean(), 0.5 / (~good).mean())
    with threadpool_limits(limits=1):  # it limits the libraries that are loaded by now
        tried = [held_out(strength) for strength in STRENGTHS]
        best = int(np.argmin([loss for loss, _ in tried]))
        model = learned(rows, good, STRENGTHS[best])
    return _Head(model.coef_[0], float(model.intercept_[0]), STRENGTHS[best], *tried[best])
