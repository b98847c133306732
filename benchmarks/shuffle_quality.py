"""How well the delivered order is shuffled: equal neighbours against a perfect shuffle.

    python benchmarks/shuffle_quality.py DIR [--split train] [--window 8] [--epochs 3]

For every label that the curation gives its records (repository, language or label, cluster) it
counts how often two samples that come one behind the other have the same, which is the number of
samples less the number of runs of one label. Printed are this share, that of a perfect shuffle, and
how many standard deviations of perfect shuffles lie between them (Mood 1940, "The Distribution
Theory of Runs").
"""

import argparse

import numpy as np
from numpy.typing import NDArray

import shardwright
from shardwright.metadata.curation import Curation

LABELS = {"records": ("repository", "language", "label"), "clusters": ("cluster",)}


def agreement(labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """Share of equal neighbours, the share of a perfect shuffle, and deviations in between."""
    count = len(labels)
    sizes = np.bincount(labels).astype(float)
    squares, cubes = float((sizes**2).sum()), float((sizes**3).sum())
    expected = squares / count - 1
    variance = squares * (squares + count * (count + 1)) - 2 * count * cubes - count**3
    deviation = (variance / (count**2 * (count - 1))) ** 0.5
    equal = int(np.count_nonzero(labels[1:] == labels[:-1]))
    return equal / (count - 1), expected / (count - 1), (equal - expected) / deviation


def labels_in_shards(curation: Curation, split: str, table: str, column: str) -> NDArray[np.int64]:
    """A number for each sample's label, the samples in the order of the shards."""
    if table not in curation.tables or column not in curation.tables[table].schema.names:
        return np.empty(0, np.int64)
    found = curation.sql(
        f'SELECT dense_rank() OVER (ORDER BY t."{column}") AS code FROM shards AS s '
        f"JOIN {table} AS t USING (record_id) WHERE s.split = '{split}' "
        "ORDER BY s.shard, s.position"
    )
    return np.asarray(found["code"], np.int64)


def main() -> None:
    """Prints a line for each label and epoch, and one for the order in the shards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    curation = shardwright.open(arguments.folder)
    source = shardwright.dataset(
        arguments.folder, arguments.split, window=arguments.window, verify="size"
    ).source
    starts = np.cumsum([0, *source.shard_sizes])
    for table, columns in LABELS.items():
        for column in columns:
            labels = labels_in_shards(curation, arguments.split, table, column)
            if len(np.unique(labels)) < 2:
                continue
            orders = {"shards": np.arange(len(labels))}
            for epoch in range(arguments.epochs):
                shards, rows = source.order(epoch).at(np.arange(source.samples))
                orders[f"epoch {epoch}"] = starts[shards] + rows
            for name, order in orders.items():
                share, perfect, deviations = agreement(labels[order])
                print(
                    f"{column:12} {name:8} equal neighbours {share:.4%}, perfect {perfect:.4%}, "
                    f"{deviations:+.2f} deviations"
                )


if __name__ == "__main__":
    main()
