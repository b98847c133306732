"""``builtin:hashing``: hashed byte n-grams of a text, projected to 256 dimensions.

The n-grams of a text fall into buckets (the hashing trick: Weinberger et al. 2009,
arXiv:0902.2206), their counts become sublinear weights, and a random matrix of signs projects
them (Achlioptas 2003, "Database-friendly random projections", eq. 2). Every column of signs sums
to zero over the buckets of either n-gram size, so the projection also takes away the mean weight,
which grows with a text's length and would make all long texts alike.

All of it is integer arithmetic up to one root and one division, so the bits are the same on
every machine. The matrix product runs in float32 with a BLAS all the same: its partial sums are
integers of at most BUCKETS * max(weight) < 2^24, which float32 holds exactly in any order.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.encoder import fingerprint, unit_rows

DIMENSION = 256
SIZES = (3, 5)
"""Bytes per n-gram; each size has its own bank of buckets."""
BANK_BITS = 12
BANK = 1 << BANK_BITS
BUCKETS = BANK * len(SIZES)
MAX_COUNT = 4095
"""Counts above weigh the same, so that the weights have a bound for texts of any length."""

_VERSION = "1"
_PIECE = 1 << 15
"""Bytes hashed at once: the temporaries stay in the cache."""
_ROWS = 128
"""Texts projected at once."""
_PAD = bytes(max(SIZES))


class HashingEncoder:
    """``builtin:hashing``, an ``Encoder`` of text that needs no weights and no GPU.

    A text counts as its UTF-8 bytes and a NUL that ends it, so the empty text has n-grams too.
    Texts that differ in a few places have nearly the same vector; renaming and reordering move
    it little; no meaning beyond spelling is seen.
    """

    name = "builtin:hashing"
    dimension = DIMENSION

    def __init__(self) -> None:
        self.description = {
            "model": self.name,
            "revision": _VERSION,
            "license": "Apache-2.0",
            "device": "cpu",
            "dtype": "float32",
        }
        self.fingerprint = fingerprint({"model": self.name, "version": _VERSION})
        self._weights = _weight_table()
        self._signs = _sign_matrix()
        if int(self._weights.max()) * BUCKETS >= 1 << 24:
            raise AssertionError("float32 would round the projection's partial sums")

    def encode(self, batch: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Encodes texts.

        Args:
            batch: n texts, any lengths; lone surrogates are encoded as they stand.

        Returns:
            Unit rows float32 [n, 256] that depend on their own text only. Should a projection
            vanish, the row is the first unit vector.

        Raises:
            TypeError: an input is no text.
        """
        vectors = np.empty((len(batch), DIMENSION), dtype=np.float32)
        weights = np.empty((min(len(batch), _ROWS), BUCKETS), dtype=np.float32)
        for start in range(0, len(batch), _ROWS):
            texts = batch[start : start + _ROWS]
            for row, text in enumerate(texts):
                if not isinstance(text, str):
                    raise TypeError(f"input {start + row} is {type(text).__name__}, not a text")
                counts = _counts(text.encode("utf-8", "surrogatepass"))
                np.take(self._weights, counts, mode="clip", out=weights[row])
            projected = (weights[: len(texts)] @ self._signs).astype(np.int64)
            projected[~projected.any(axis=1), 0] = 1
            vectors[start : start + len(texts)] = unit_rows(projected)
        return vectors


def _counts(text: bytes) -> npt.NDArray[np.int64]:
    """How often each bucket occurs, int64 [BUCKETS]: one n-gram of each size starts at each byte.

    The last n-grams run into NULs behind the text; the very last one is nothing but NULs.
    """
    counts = np.zeros((len(SIZES), BANK), dtype=np.int64)
    length = len(text) + 1
    data = np.frombuffer(text + _PAD, dtype=np.uint8)
    for start in range(0, length, _PIECE):
        piece = data[start : min(start + _PIECE, length) + max(SIZES) - 1]
        for bank, hashes in enumerate(_hashes(piece)):
            counts[bank] += np.bincount(hashes, minlength=BANK)
    return counts.reshape(-1)


def _hashes(data: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Buckets of the 3-grams and the 5-grams that start at all bytes but the last four.

    Multiplicative hashing modulo 2^32 (Knuth, vol. 3, sec. 6.4): the top bits of an odd multiple.
    """
    count = len(data) - max(SIZES) + 1
    wide = data.astype(np.uint32)
    three = wide[:count] | wide[1 : count + 1] << 8 | wide[2 : count + 2] << 16
    tail = wide[3 : count + 3] | wide[4 : count + 4] << 8
    five = three * np.uint32(0x9E3779B1) + tail * np.uint32(0x85EBCA77)
    # a sum of two multiples sends related n-grams to related buckets: mix once more
    five = (five ^ five >> 15) * np.uint32(0xC2B2AE3D)
    three = three * np.uint32(0x27D4EB2F)
    shift = 32 - BANK_BITS
    return (three >> shift).astype(np.intp), (five >> shift).astype(np.intp)


def _weight_table() -> npt.NDArray[np.float32]:
    """Weight of a count from 0 to MAX_COUNT: round(32 log2(1 + count)), in integers throughout."""
    weights = [((m**64 << 1).bit_length() - 1) // 2 for m in range(1, MAX_COUNT + 2)]
    return np.array(weights, dtype=np.float32)


def _sign_matrix() -> npt.NDArray[np.float32]:
    """Signs float32 [BUCKETS, DIMENSION]; in every column, half of each bank is +1, half -1.

    The halves are cut by sorting 16-bit keys drawn from SHAKE-256, ties by bucket.
    """
    banks = []
    for size in SIZES:
        label = f"shardwright {HashingEncoder.name} {_VERSION} {size}-grams".encode()
        stream = hashlib.shake_256(label).digest(2 * DIMENSION * BANK)
        keys = np.frombuffer(stream, dtype="<u2").astype(np.uint16).reshape(DIMENSION, BANK)
        order = np.argsort(keys, axis=1, kind="stable")
        signs = np.ones((DIMENSION, BANK), dtype=np.float32)
        np.put_along_axis(signs, order[:, : BANK // 2], -1, axis=1)
        banks.append(signs.T)
    return np.ascontiguousarray(np.concatenate(banks))
