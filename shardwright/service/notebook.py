"""What ``shardwright.open`` gives in a notebook: a curation that shows itself.

What is shown stands in a frame of its own, in which nothing runs and nothing is fetched: the
notebook's page and a curation's contents cannot change each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from markupsafe import escape

from shardwright.metadata.layout import Layout
from shardwright.shards.curation import ShardedCuration, open_curation


@dataclass(frozen=True)
class ShownRecord:
    """A record, to be looked at.

    Attributes:
        life: What ``shardwright explain`` says of it.
        page: The same with its content, as HTML.
    """

    life: dict[str, Any]
    page: str

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.life.items())

    def _repr_html_(self) -> str:
        return _framed(self.page, 520)


@dataclass(frozen=True)
class NotebookCuration(ShardedCuration):
    """A curation with its tables, queries, shards, and pictures of them."""

    def funnel(self) -> pa.Table:
        """What became of every input: ``stage``, ``reason`` and ``records``, in order.

        Raises:
            UserError: There are no decisions yet.
        """
        return self.sql("SELECT stage, reason, records FROM funnel")

    def show(self, record: str) -> ShownRecord:
        """A record by its id or path, from its source to its shard, with its content.

        Raises:
            UserError: There is no such record, or several have this path.
        """
        from shardwright.metadata.catalog import connect
        from shardwright.metadata.explain import explain
        from shardwright.metadata.lookup import StoredRows
        from shardwright.service import overview
        from shardwright.service.blocks import Block, Heading, Table
        from shardwright.service.samples import card
        from shardwright.service.views import told

        layout = Layout(self.root)
        life = explain(layout, record)
        blocks: list[Block] = [Heading(str(life["path"]), 2)]
        if "record_id" in life:
            with connect(layout) as connection:
                found = StoredRows(layout, connection).read([life["record_id"]])
            blocks += [card(row, overview.modality(layout)) for row in found.values()]
        blocks.append(Table(("what", "value"), list(told(life))))
        return ShownRecord(life, _page(str(life["path"]), blocks))

    def _repr_html_(self) -> str:
        from shardwright.metadata.catalog import connect
        from shardwright.service import overview, sections

        layout = Layout(self.root)
        recipe = overview.recipe(layout)
        name = str(recipe.get("name", layout.root.name))
        with connect(layout) as connection:
            totals = overview.totals(layout, connection)
            steps = overview.funnel(connection)
        blocks = [
            *sections.summary(
                name,
                overview.modality(layout),
                totals,
                overview.splits(layout),
                overview.metrics(layout),
            ),
            *sections.funnel_section(steps, totals),
        ]
        return _framed(_page(name, blocks), 330 + 42 * len(steps))


def open_for_notebook(folder: str | Path) -> NotebookCuration:
    """Opens an output folder.

    Raises:
        UserError: There is no such folder, or it holds no table.
    """
    return NotebookCuration(open_curation(folder).root)


def _page(title: str, blocks: Sequence[Any]) -> str:
    from shardwright.service.rendering import rendered

    return rendered("fragment.html", title=title, blocks=blocks)


def _framed(page: str, height: int) -> str:
    return (
        f'<iframe sandbox srcdoc="{escape(page)}" style="width:100%;height:{height}px;border:0" '
        'title="shardwright"></iframe>'
    )
