"""What two curations did not have alike: parameters, versions of the code and inputs, by stage.

Read from the manifests alone: every table and every folder of files says in its origin which stage
wrote it, with which parameters, from which tables.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import STAGES, Layout
from shardwright.metadata.manifest import Origin

Origins: TypeAlias = Mapping[str, Origin]
"""Origins of what a curation wrote, by table or folder."""


@dataclass(frozen=True)
class Difference:
    """One thing that a stage did not have alike in both curations.

    Attributes:
        stage: The stage.
        kind: ``parameter``, ``version`` (of the stage's code), ``input`` (a table that it read),
            ``output`` (what it wrote in one of the two alone), or ``data`` (the inputs of the
            whole curation).
        name: Of a parameter its place in dots (``clusters.k``), else the name of the table.
        a: What the first curation had, as plain JSON; None for nothing.
        b: What the second had.
    """

    stage: str
    kind: str
    name: str
    a: Any
    b: Any


def origins(layout: Layout) -> dict[str, Origin]:
    """Origin of every table and of every folder of files, the folders with '/' at their end."""
    found = {manifest.table: manifest.origin for manifest in layout.manifests()}
    for name, folder in layout.folders.items():
        listed = read_file_list(folder)
        if listed is not None:
            found[f"{name}/"] = listed.origin
    return found


def differences(a: Origins, b: Origins) -> list[Difference]:
    """Everything that differs, in the order of the stages; equal ones of one stage once."""
    found: dict[tuple[str, str, str, str, str], Difference] = {}
    for output in (*a, *(name for name in b if name not in a)):
        for one in _differences(output, a.get(output), b.get(output)):
            found.setdefault((one.stage, one.kind, one.name, repr(one.a), repr(one.b)), one)
    return sorted(found.values(), key=lambda one: (_place(one.stage), _KINDS.index(one.kind)))


_KINDS = ("data", "output", "version", "parameter", "input")


def _place(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def _differences(output: str, a: Origin | None, b: Origin | None) -> Iterator[Difference]:
    """Differences in how one table or folder was made."""
    if a is None or b is None:
        stage = a.stage if a is not None else b.stage if b is not None else ""
        there = "written"
        yield Difference(
            stage, "output", output, there if a is not None else None, there if b else None
        )
        return
    if a.version != b.version:
        yield Difference(b.stage, "version", "", a.version, b.version)
    for kind, had, has in (
        ("parameter", dict(_flat(a.parameters)), dict(_flat(b.parameters))),
        ("input", a.inputs, b.inputs),
    ):
        for name in (*had, *(name for name in has if name not in had)):
            if (name in had, had.get(name)) == (name in has, has.get(name)):
                continue
            other = has if name in had else had
            if had.get(name) is has.get(name) is None and _has_parts(name, other):
                continue  # null became a section, whose own values are told
            yield Difference(b.stage, kind, name, had.get(name), has.get(name))


def _has_parts(name: str, values: Mapping[str, Any]) -> bool:
    return any(key.startswith(f"{name}.") for key in values)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (place in dots, value) of nested parameters; items of a list go by their names."""
    for name, inner in value.items():
        place = f"{prefix}{name}"
        if isinstance(inner, list) and inner and all(_named(item) for item in inner):
            inner = {item["name"]: _without_name(item) for item in inner}
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{place}.")
        else:
            yield place, inner


def _named(item: object) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("name"), str)


def _without_name(item: Mapping[str, Any]) -> dict[str, Any] | bool:
    """The rest of a named item; one that is only named is there, which is all it says."""
    return {name: value for name, value in item.items() if name != "name"} or True


def upstream(stages: Iterable[str], *sides: Origins) -> set[str]:
    """The stages, and all whose tables they read, directly or through others."""
    reached = set(stages)
    waiting = list(reached)
    while waiting:
        stage = waiting.pop()
        for side in sides:
            for origin in side.values():
                if origin.stage != stage:
                    continue
                for table in origin.inputs:
                    before = side[table].stage if table in side else None
                    if before is not None and before not in reached:
                        reached.add(before)
                        waiting.append(before)
    return reached


def causes(
    deciding: Iterable[str], opted_out: bool, found: Iterable[Difference], *sides: Origins
) -> tuple[Difference, ...]:
    """Of all differences those that can have turned the decisions of some stages.

    That is what a deciding stage, or one before it, had otherwise by itself; tables that differ
    because of that are no causes of their own. ``prune`` writes every decision, and applies bounds
    of filters and opt-outs for the other stages.

    Args:
        deciding: Stages that dropped the records in one of the curations.
        opted_out: Whether they were dropped for an opt-out.
        found: All differences.
        sides: The origins of both curations.
    """
    stages = upstream(deciding, *sides)
    applied = ("filters", "opt_out") if opted_out else ("filters",)
    return tuple(
        one
        for one in found
        if one.kind in ("data", "version", "parameter")
        and (
            one.stage in stages or (one.stage == "prune" and one.name.partition(".")[0] in applied)
        )
    )
