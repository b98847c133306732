"""What ``benchmarks/duplicates.py`` measures on, and what is true of it.

Corpora are folders of numbered files; a record is a file's number. Truth is brute force.
"""

import hashlib
import io
import os
import sys
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from shardwright.embeddings.pixels import decode_rgb
from shardwright.quality.text import check_text

PICTURES = Path(__file__).parents[1] / ".cache" / "pictures"
SUFFIXES = (".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cuh", ".js", ".mjs", ".go")

Pairs = npt.NDArray[np.int64]
Set = npt.NDArray[np.uint64]


def code_corpus(folder: Path, count: int) -> str:
    """Fills a folder with numbered source files, no two of them equal; says what they are.

    Takes folders in the order of a hash of their path, so that files stay with their siblings and
    many packages are met, and of a folder the first 50, so that no generated one fills it all.
    """
    files = []
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for where, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name != "site-packages"]
            relative = os.path.relpath(where, root)
            order = hashlib.sha256(relative.encode()).hexdigest()
            names = sorted(name for name in names if name.endswith(SUFFIXES))[:50]
            files += [(order, os.path.join(where, name)) for name in names]
    chosen: dict[bytes, str] = {}
    read = 0
    for _, path in sorted(files):
        if len(chosen) == count:
            break
        data = Path(path).read_bytes()
        if isinstance(check_text(data, 1_000_000), str):
            read += 1
            chosen.setdefault(data, path)
    kinds: Counter[str] = Counter()
    for number, (data, path) in enumerate(sorted(chosen.items(), key=lambda item: item[1])):
        suffix = Path(path).suffix
        kinds[suffix] += 1
        (folder / f"{number:05d}{suffix}").write_bytes(data)
    listed = ", ".join(f"{kind} {number:,}" for kind, number in kinds.most_common())
    megabytes = sum(map(len, chosen)) / 1e6
    return (
        f"{len(chosen):,} files, {megabytes:,.0f} MB ({listed}); "
        f"{read - len(chosen):,} exact copies left out beforehand"
    )


def true_pairs(sets: list[Set], threshold: float) -> Pairs:
    """All pairs (a, b), a < b, of sets of at least this Jaccard similarity: int64 [pairs, 2].

    Counts the shared elements of every pair: goes through the sets one by one and counts, over an
    index from elements to sets, which later sets hold the same elements. Nothing is left out.
    """
    sizes = np.array([len(values) for values in sets])
    owner = np.repeat(np.arange(len(sets)), sizes)
    _, element, frequency = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    twice = frequency[element] > 1
    element, owner = element[twice], owner[twice]
    order = np.argsort(element, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    postings = owner[order].astype(np.int32)
    ends = np.searchsorted(element[order], element, "right")
    bounds = np.searchsorted(owner, np.arange(len(sets) + 1))
    found = [np.empty((0, 2), np.int64)]
    for a in range(len(sets)):
        mine = slice(bounds[a], bounds[a + 1])
        lengths = ends[mine] - place[mine] - 1
        before = np.cumsum(lengths) - lengths
        later = np.arange(lengths.sum()) + np.repeat(place[mine] + 1 - before, lengths)
        shared = np.bincount(postings[later], minlength=len(sets))
        b = np.flatnonzero(shared)
        b = b[shared[b] / (sizes[a] + sizes[b] - shared[b]) >= threshold]
        found.append(np.stack([np.full(len(b), a), b], axis=1))
    return np.concatenate(found)


def check_oracle(sets: list[Set], threshold: float) -> None:
    """Holds ``true_pairs`` against the plain double loop over Python's sets."""
    plain = [set(values.tolist()) for values in sets]
    expected = [
        (a, b)
        for a, b in combinations(range(len(plain)), 2)
        if plain[a] | plain[b] and len(plain[a] & plain[b]) / len(plain[a] | plain[b]) >= threshold
    ]
    if [tuple(pair) for pair in true_pairs(sets, threshold).tolist()] != expected:
        sys.exit("the brute force is wrong: it differs from the double loop")


@dataclass(frozen=True)
class Truth:
    """The true pairs, and what follows from them.

    Attributes:
        pairs: int64 [pairs, 2], a < b.
        near: the near ones of every record that has any.
    """

    pairs: Pairs
    near: dict[int, set[int]]

    @classmethod
    def of(cls, pairs: Pairs) -> "Truth":
        """From the pairs."""
        near = defaultdict(set)
        for a, b in pairs.tolist():
            near[a].add(b)
            near[b].add(a)
        return cls(pairs, dict(near))

    def greedy(self) -> set[int]:
        """Who goes if in order of their numbers records near to a kept one go."""
        removed: set[int] = set()
        for number in sorted(self.near):
            if any(other < number and other not in removed for other in self.near[number]):
                removed.add(number)
        return removed

    def score_pairs(self, pairs: list[list[int]]) -> dict[str, int]:
        """Counts of pairs that were found, missed, and false."""
        theirs = {(a, b) for a, b in pairs}
        true = {(a, b) for a, b in self.pairs.tolist()}
        found = len(theirs & true)
        return {"found": found, "missed": len(true) - found, "false": len(theirs) - found}

    def score_removed(self, removed: set[int]) -> dict[str, int]:
        """The same for removed records.

        A pair counts as found if one of the two went. A removed record is false if it is near to
        nothing; ``alone`` are those, and the ones that are near to no record that was kept.
        """
        gone = np.isin(self.pairs, sorted(removed)).any(axis=1)
        return {
            "found": int(gone.sum()),
            "missed": int((~gone).sum()),
            "false": sum(number not in self.near for number in removed),
            "removed": len(removed),
            "alone": sum(not self.near.get(number, set()) - removed for number in removed),
        }


def pictures() -> Iterator[tuple[str, bytes, Image.Image]]:
    """Suffix, bytes and decoded picture of all that Pillow opens, by path."""
    for path in sorted(PICTURES.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                yield path.suffix.lower(), data, image
        except OSError:
            continue


def image_corpus(folder: Path, count: int, bases: int) -> Pairs:
    """Fills a folder with at most ``count`` pictures, and three variants of some.

    The variants are saved as JPEG of quality 50, smaller by 10%, and brighter by 10%, of opaque
    pictures of some size and some colours.

    Returns:
        int64 [variants, 2]: the number of a picture and the number of its variant.
    """
    usable = []
    total = 0
    for suffix, data, image in islice(pictures(), count):
        (folder / f"{total:05d}{suffix}").write_bytes(data)
        if not image.has_transparency_data and min(image.size) >= 64:
            shown = image.convert("RGB")
            if shown.getcolors(15) is None:  # has more than 15
                usable.append((total, shown))
        total += 1
    pairs = []
    for place in np.linspace(0, len(usable) - 1, min(bases, len(usable)), dtype=int).tolist():
        number, image = usable[place]
        smaller = image.resize((round(image.width * 0.9), round(image.height * 0.9)))
        image.save(folder / f"{total:05d}.jpg", quality=50)
        smaller.save(folder / f"{total + 1:05d}.png")
        ImageEnhance.Brightness(image).enhance(1.1).save(folder / f"{total + 2:05d}.png")
        pairs += [(number, total), (number, total + 1), (number, total + 2)]
        total += 3
    return np.array(pairs)


def unlike(folder: Path, pairs: set[tuple[int, int]], least: float) -> int:
    """How many pairs of pictures differ by at least this share of the full range.

    By the mean over a thumbnail of 32 x 32 pixels of RGB on white.
    """
    thumbnails = np.stack(
        [
            np.asarray(decode_rgb(path.read_bytes()).resize((32, 32), Image.Resampling.BOX), float)
            for path in sorted(folder.iterdir())
        ]
    )
    a, b = np.array(sorted(pairs), int).reshape(-1, 2).T
    distances = np.abs(thumbnails[a] - thumbnails[b]).mean((1, 2, 3)) / 255
    return int((distances >= least).sum())


def pairs_within(hashes: list[int | None], radius: int) -> Pairs:
    """All pairs (a, b), a < b, of hashes of which at most ``radius`` bits differ."""
    known = np.array([number for number, value in enumerate(hashes) if value is not None])
    values = np.array([value for value in hashes if value is not None], np.uint64)
    near = np.bitwise_count(values[:, None] ^ values) <= radius
    return known[np.argwhere(np.triu(near, 1))]
