"""Where things lie in an output folder."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardwright.errors import DataError, UserError
from shardwright.metadata.manifest import Manifest, read_manifest

STAGES = (
    "ingest",
    "filter",
    "duplicates",
    "embed",
    "decontaminate",
    "semantic",
    "index",
    "cluster",
    "study",
    "score",
    "heterogeneity",
    "evaluate",
    "prune",
    "shard",
)

TABLES = (
    "records",
    "rejects",
    "lookup",
    "filter_scores",
    "signatures",
    "duplicates",
    "duplicate_semantics",
    "near_links",
    "embeddings",
    "contamination",
    "semantic_centroids",
    "semantic_duplicates",
    "semantic_summary",
    "centroids",
    "clusters",
    "corrupted",
    "corruption_study",
    "detectors",
    "views",
    "similarities",
    "classified",
    "scores",
    "score_explanations",
    "evaluation",
    "side_effects",
    "stability",
    "device_statistics",
    "device_groups",
    "device_shift",
    "device_attribution",
    "device_transfer",
    "device_leakage",
    "decisions",
    "shards",
    "curated",
    "tokens",
)


@dataclass(frozen=True)
class Layout:
    """Paths below one output folder.

    Attributes:
        root: The folder.
        url: Address of the store that has the files, where the folder holds only their manifests.
    """

    root: Path
    url: str | None = None

    @property
    def croissant(self) -> Path:
        """Metadata file whose presence says that the curation is complete."""
        return self.root / "croissant.json"

    @property
    def published(self) -> Path:
        """The same metadata for the repository that the recipe publishes in."""
        return self.root / "croissant-published.json"

    @property
    def shards(self) -> Path:
        """Folder of the shard files, one folder a split."""
        return self.root / "shards"

    @property
    def indexes(self) -> Path:
        """Folder of the FAISS files."""
        return self.root / "indexes"

    @property
    def sequences(self) -> Path:
        """Folder of the files of packed tokens, as ``shards``."""
        return self.root / "tokens" / "shards"

    @property
    def folders(self) -> dict[str, Path]:
        """Folders whose files a list names, by their path below the root."""
        folders = (self.indexes, self.shards, self.sequences)
        return {folder.relative_to(self.root).as_posix(): folder for folder in folders}

    def table(self, name: str) -> Path:
        """Folder of a committed table."""
        return self.root / "tables" / name

    def staging(self, name: str) -> Path:
        """Folder in which a job builds what is not committed yet."""
        return self.root / ".staging" / name

    def manifest(self, name: str) -> Manifest | None:
        """Manifest of a table, or None when it was never committed."""
        return read_manifest(self.table(name))

    def need(self, name: str, stage: str) -> Manifest:
        """Manifest of a table that must be there.

        Raises:
            UserError: It is not; says which stage writes it.
        """
        manifest = self.manifest(name)
        if manifest is None:
            raise UserError(
                f"{self.table(name)}: no committed table {name!r}; run stage {stage!r} first"
            )
        return manifest

    def manifests(self) -> Iterator[Manifest]:
        """Manifests of all committed tables, in the order of the stages."""
        for name in TABLES:
            manifest = self.manifest(name)
            if manifest is not None:
                yield manifest

    def drop_table(self, name: str) -> None:
        """Removes a table that the recipe no longer asks for, manifest first."""
        folder = self.table(name)
        if folder.exists():
            (folder / "_manifest.json").unlink(missing_ok=True)
            shutil.rmtree(folder)


def opened(root: Path) -> Layout:
    """The layout of a folder that holds a curation.

    Raises:
        UserError: There is no such folder, or it holds no table.
    """
    layout = Layout(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the --output of a curation")
    if next(layout.manifests(), None) is None:
        raise UserError(f"{root}: holds no committed table; run shardwright curate first")
    return layout


def complete(layout: Layout) -> None:
    """Checks that a curation ran to its end.

    Raises:
        DataError: It did not.
    """
    if not layout.croissant.exists():
        raise DataError(f"{layout.croissant}: missing, so the curation is not complete; rerun it")
