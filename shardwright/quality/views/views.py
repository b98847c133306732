"""What a source file looks like to models that know its corpus: one number per view.

Models are fitted in folds, and a file is judged by models that have not read its fold: otherwise
what it alone contains would look usual, damage included. The caller's key says which files go
together. It should be the same for all files that share text, such as a repository's name.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality import syntax
from shardwright.quality.views import (
    choices,
    lint,
    ngrams,
    parsed,
    summaries,
    tokens,
    trees,
)

Value: TypeAlias = float | None
File: TypeAlias = tuple[str, bytes, str | None]

_CLOZE = (1, -1, 2, -2, -3, 3)
_CLOZES = ("cloze", "cloze_worst", "cloze_names", "cloze_numbers", "cloze_operators")
_TREES = ("tree_inner", "tree_worst")
_COMMON_SHARE = 0.02
_NAMES = (
    "syntax_errors",
    *_CLOZES,
    *_TREES,
    *(f"choice_{name}" for name in choices.NAMES),
    *(f"lint_{name}" for name in lint.NAMES),
    "short_names",
    "numbered_names",
    "repeated_lines",
)


@dataclass(frozen=True)
class _Models:
    """Models of one language, trained on all folds but one."""

    common: NDArray[np.uint64]
    cloze: ngrams.NgramModel
    tree: ngrams.NgramModel | None
    choice: ngrams.NgramModel | None


@dataclass(frozen=True)
class Views:
    """Fitted models of some languages.

    Attributes:
        folds: How many folds there are.
        models: By language and fold: the models that have not read that fold.
    """

    folds: int
    models: Mapping[tuple[str, int], _Models]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views; of all of them, a higher value looks more damaged."""
        return _NAMES

    def fold(self, key: str) -> int:
        """The fold of a key, 0 to ``folds - 1``."""
        return fold_of(key, self.folds)

    def measure(self, data: bytes, language: str | None, fold: int) -> dict[str, Value]:
        """Measures one file.

        Values are comparable within a language only.

        Args:
            data: The text, UTF-8.
            language: Its language by the name of ``detect_language``.
            fold: The fold of its key; any for a file that was not among those fitted.

        Returns:
            A value for each of ``names``; None where a view does not apply: no grammar or no model
            for the language, no such place in the file.
        """
        return self.judge(parsed.read(data, language), fold)

    def judge(self, text: parsed.Parsed, fold: int) -> dict[str, Value]:
        """Measures a text that has been parsed; see ``measure``."""
        data, language, tree = text.data, text.language, text.tree
        values: dict[str, Value] = dict.fromkeys(_NAMES)
        models = self.models.get((language or "", fold))
        if models is not None:
            stream = tokens.abstract(tokens.lex(data, language), models.common)
            if len(stream):
                bits = models.cloze.surprise(ngrams.chain(stream, _CLOZE))
                values["cloze"] = summaries.mean(bits)
                values["cloze_worst"] = summaries.worst(bits)
                for name, value in summaries.by_class(stream, bits).items():
                    values[f"cloze_{name}"] = value
        values["repeated_lines"] = summaries.repeated_lines(data)
        if tree is None:
            return values
        values["syntax_errors"] = text.errors / max(len(data), 1)
        for name, value in lint.lint(tree, language).items():
            if name in lint.NAMES:
                values[f"lint_{name}"] = value
            else:
                values[name] = value
        if models is None or len(tree) < 2:
            return values
        labels = trees.label(tree, models.common)
        if models.tree is not None:
            events, inner = trees.tree_events(tree, labels)
            bits = models.tree.surprise(events)
            values["tree_inner"] = summaries.mean(bits[inner])
            values["tree_worst"] = summaries.worst(bits)
        if models.choice is not None:
            found = choices.choices(tree, labels)
            for name, bits in choices.measure_choices(models.choice, found).items():
                values[f"choice_{name}"] = summaries.excess(bits)
        return values

    def save(self, path: str | Path) -> None:
        """Writes the models as a NumPy archive without pickles; equal models, equal bytes."""
        arrays: dict[str, NDArray[np.generic]] = {"folds": np.array([self.folds])}
        for (language, fold), models in sorted(self.models.items()):
            place = f"{language}/{fold}"
            arrays[f"{place}/common/names"] = models.common
            for name in ("cloze", "tree", "choice"):
                model: ngrams.NgramModel | None = getattr(models, name)
                for key, array in (model.arrays() if model is not None else {}).items():
                    arrays[f"{place}/{name}/{key}"] = array
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        Path(path).write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "Views":
        """Reads what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        folds = int(arrays.pop("folds")[0])
        grouped: dict[tuple[str, int], dict[str, dict[str, NDArray[np.generic]]]] = {}
        for name, array in arrays.items():
            language, fold, model, part = name.rsplit("/", 3)
            home = grouped.setdefault((language, int(fold)), defaultdict(dict))
            home[model][part] = array
        models = {
            key: _Models(
                parts["common"]["names"].astype(np.uint64),
                ngrams.NgramModel.from_arrays(parts["cloze"]),
                ngrams.NgramModel.from_arrays(parts["tree"]) if "tree" in parts else None,
                ngrams.NgramModel.from_arrays(parts["choice"]) if "choice" in parts else None,
            )
            for key, parts in grouped.items()
        }
        return cls(folds, models)


def fold_of(key: str, folds: int) -> int:
    """The fold of a key: the first bytes of its SHA-256, modulo the number of folds."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") % folds


def fit(files: Iterable[File], folds: int = 2, least_files: int = 20) -> Views:
    """Trains the models of every language, for each fold on the files of all others.

    All files are held in memory, and for one language and fold at a time about 450 bytes per token
    (measured on Go). The caller bounds both by the files it gives. The order of the files changes
    nothing.

    Args:
        files: Key, text and language of each file; see the module on keys.
        folds: 2 or more; training takes ``folds - 1`` times as long.
        least_files: For a language with fewer files outside of a fold there are no models, and all
            that is measured in that fold is syntax and lint.

    Raises:
        ValueError: ``folds`` is less than 2.
    """
    if folds < 2:
        raise ValueError(f"folds must be 2 or more, so that no model judges its own; not {folds}")
    by_language: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for key, data, language in files:
        if language is not None:
            by_language[language].append((fold_of(key, folds), data))
    models = {}
    for language, members in sorted(by_language.items()):
        for fold in range(folds):
            others = [data for own, data in members if own != fold]
            if len(others) >= least_files:
                models[language, fold] = _fit_language(others, language)
    return Views(folds, models)


def _fit_language(files: list[bytes], language: str) -> _Models:
    streams = [tokens.lex(data, language) for data in files]
    common = tokens.common_names(streams, _COMMON_SHARE)
    cloze = ngrams.train(ngrams.chain(tokens.abstract(s, common), _CLOZE) for s in streams)
    tree_events, choice_events = [], []
    for data in files:
        root = syntax.parse(data, language)
        if root is None:
            continue
        tree = trees.flatten(data, root)
        if len(tree) < 2:
            continue
        labels = trees.label(tree, common)
        tree_events.append(trees.tree_events(tree, labels)[0])
        choice_events.append(choices.choices(tree, labels).events)
    return _Models(common, cloze, _train(tree_events), _train(choice_events))


def _train(documents: list[ngrams.Events]) -> ngrams.NgramModel | None:
    return ngrams.train(documents) if any(len(each.symbols) for each in documents) else None
