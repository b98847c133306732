"""How fast are the views of damage, by group, and how fast are their models fitted?

Prints Markdown tables. Files are those of the standard library, or of a folder: fitted whole, and
of each language that has a grammar and models some are judged. One process, seconds of processor
time (``time.process_time``), for judging the least of some rounds. What a group takes from another
one is made beforehand.

    python benchmarks/views.py [--folder DIR] [--files 300] [--rounds 3]
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar

from shardwright.quality.language import detect_language
from shardwright.quality.observations import observe_text
from shardwright.quality.views import (
    choices,
    fit,
    lint,
    ngrams,
    parsed,
    summaries,
    tokens,
    trees,
    views,
)

File: TypeAlias = tuple[str, bytes, str | None]
T = TypeVar("T")
LARGEST = 200_000


def read_files(folder: Path) -> Iterator[File]:
    """Files of known languages below a folder, by path; its own site-packages aside."""
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if "site-packages" in below.parts or not path.is_file():
            continue
        data = path.read_bytes()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        language = detect_language(below.as_posix(), text)
        if language is not None and 0 < len(data) <= LARGEST:
            yield str(below.parent), data, language


def spread(files: list[File], count: int) -> list[File]:
    """At most so many of some files, evenly."""
    return files[:: max(len(files) // count, 1)][:count]


def timed(work: Callable[[], T], rounds: int) -> tuple[float, T]:
    """Least seconds of processor time, and the result."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def groups(files: list[File], fitted: views.Views, rounds: int) -> Iterator[tuple[str, float]]:
    """Name and seconds of each group of views."""
    models = [fitted.models[language or "", fitted.fold(key)] for key, _, language in files]
    seconds, texts = timed(lambda: [parsed.read(data, own) for _, data, own in files], rounds)
    yield "parse: syntax tree into arrays", seconds
    flat = [text.tree for text in texts]
    pairs = [(tree, own) for tree, own in zip(flat, models, strict=True) if tree is not None]

    def judge_tokens() -> None:
        for (_, data, language), own in zip(files, models, strict=True):
            stream = tokens.abstract(tokens.lex(data, language), own.common)
            bits = own.cloze.surprise(ngrams.chain(stream, views._CLOZE))
            summaries.mean(bits), summaries.worst(bits), summaries.by_class(stream, bits)

    def judge_trees() -> None:
        for (tree, own), names in zip(pairs, labels, strict=True):
            if own.tree is not None:
                events, inner = trees.tree_events(tree, names)
                bits = own.tree.surprise(events)
                summaries.mean(bits[inner]), summaries.worst(bits)

    def judge_choices() -> None:
        for (tree, own), names in zip(pairs, labels, strict=True):
            if own.choice is not None:
                choices.measure_choices(own.choice, choices.choices(tree, names))

    yield "tokens: lexed, judged", timed(judge_tokens, rounds)[0]
    label = timed(lambda: [trees.label(tree, own.common) for tree, own in pairs], rounds)
    labels = label[1]
    yield "labels of nodes, for trees and choices", label[0]
    yield "trees: judged", timed(judge_trees, rounds)[0]
    yield "choices: found, judged", timed(judge_choices, rounds)[0]
    yield "lint", timed(lambda: [lint.lint(tree, "") for tree, _ in pairs], rounds)[0]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    corpus = list(read_files(options.folder or Path(os.__file__).parent))
    start = time.process_time()
    fitted = fit(corpus)
    seconds = time.process_time() - start
    size = sum(len(data) for _, data, _ in corpus) / 1e6
    print(
        f"Fit: {len(corpus):,} files, {size:.1f} MB, {seconds:.1f} s ({size / seconds:.2f} MB/s)\n"
    )
    by_language = itertools.groupby(sorted(corpus, key=lambda each: each[2] or ""), lambda f: f[2])
    for language, members in by_language:
        files = spread(
            [f for f in members if (language, fitted.fold(f[0])) in fitted.models], options.files
        )
        if not files or parsed.read(b"", language).tree is None:
            continue
        size = sum(len(data) for _, data, _ in files) / 1e6

        def observe(files: list[File] = files) -> None:
            for key, data, own in files:
                observe_text(data, own, fitted, key)

        print(f"{language}: {len(files)} files, {size:.1f} MB\n")
        print("| | ms a file | files/s | MB/s |\n|---|---|---|---|")
        whole = [("all of `observe_text`", timed(observe, options.rounds)[0])]
        for name, taken in [*groups(files, fitted, options.rounds), *whole]:
            each = taken / len(files)
            print(f"| {name} | {each * 1e3:.2f} | {1 / each:,.0f} | {size / taken:.1f} |")
        print()


if __name__ == "__main__":
    main()
