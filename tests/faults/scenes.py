"""What is curated under faults: small collections, and undisturbed runs to start from and hold to.

A scene is a collection in a state. ``fresh``: a run from the start. ``update``: the input, and one
setting, changed since a run that came to its end. ``forced``: one stage is redone over a whole
output. Of each there is a copy of the output as each stage finds it, and a list of all that the
stage does to files, from which faults are drawn.
"""

import contextlib
import gc
import importlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import common
import made_devices
import shim
import token_files

from shardwright.metadata import integrity, readback
from shardwright.pipelines import cli
from shardwright.pipelines import curate as curation
from shardwright.service import report

STATES: Final = ("fresh", "update", "forced")
_SMALL: Final = (
    "limits.part_bytes=40KB",
    "limits.reject_threshold=0.5",
    "shards.size=60KB",
    "clusters.k=4",
    "prune.scores=[]",
)
_BEAM: Final = ("--runner=FnApiRunner", "--direct_num_workers=1")


@dataclass(frozen=True)
class Collection:
    """What is curated, and how.

    Attributes:
        name: Of its folder.
        recipe: Name of the shipped recipe.
        folder: Where all of it lies.
        settings: What differs from the recipe.
        before: Settings of the earlier run that ``update`` starts from.
        states: Those of ``STATES`` that faults are drawn for.
    """

    name: str
    recipe: str
    folder: Path
    settings: tuple[str, ...]
    before: tuple[str, ...] = ()
    states: tuple[str, ...] = STATES

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def whole(self) -> Path:
        """Output of a run that nothing disturbed."""
        return self.folder / "whole"

    @property
    def earlier(self) -> Path:
        """Output of the run before the input changed."""
        return self.folder / "earlier"

    def snapshot(self, state: str, stage: str) -> Path:
        """The output as a stage finds it."""
        return self.whole if state == "forced" else self.folder / state / stage

    def disturbed(self, output: Path | str, state: str, stage: str, *more: str) -> list[str]:
        """Arguments that curate it from a stage on, in a state that the stage finds."""
        later = list(curation.STAGES)
        names = [stage] if state == "forced" else later[later.index(stage) :]
        options = [word for name in names for word in ("--stage", name)]
        options += ["--force"] if state == "forced" else []
        return self.command(output, *options, *more)

    def command(self, output: Path | str, *more: str, before: bool = False) -> list[str]:
        """Arguments of ``shardwright`` that curate it."""
        settings = (*self.settings, *(self.before if before else ()))
        sets = [word for one in settings for word in ("--set", one)]
        recipe = common.ROOT / "recipes" / f"{self.recipe}.yaml"
        places = ["--output", str(output), "--input", str(self.source)]
        return ["curate", str(recipe), *places, *sets, *more, "--", *_BEAM]

    @cached_property
    def steps(self) -> dict[str, dict[str, list[shim.Operation]]]:
        """What each stage does to files, by state and stage."""
        return {
            state: {
                path.stem: shim.operations(path)
                for path in sorted((self.folder / "steps" / state).glob("*.log"))
            }
            for state in self.states
        }


def collections(folder: Path) -> list[Collection]:
    """Those of the campaign."""
    items, tokenizer = folder / "every" / "items", folder / "every" / "tokenizer.json"
    tokens = json.dumps({"tokenizer": str(tokenizer), "length": 512, "end": token_files.END})
    exact = "limits.part_bytes=80KB"
    code = Collection(
        "code", "code", folder / "code", ("source.exclude=[]", *_SMALL), ("prune.fraction=0.4",)
    )
    images = Collection(
        "images",
        "images",
        folder / "images",
        (
            *_SMALL,
            "filters=[dark, bright, truncated]",
            "heterogeneity={least: 10, permutations: 19, images: 4}",
        ),
        ("prune.fraction=0.4",),
    )
    every = Collection(
        "every",
        "code",
        folder / "every",
        (
            *("source.exclude=[]", *_SMALL, exact, "duplicates.semantic={target: 0.9}"),
            f"decontaminate={{benchmarks: [{{name: own, uri: {items}}}]}}",
            *("study.documents=40", "study.copies=1", "evaluate={files: 40, seeds: 1, folds: 2}"),
            *("prune.scores=null", f"shards.tokens={tokens}"),
        ),
        states=("forced",),
    )
    return [code, images, every]


def prepare(collection: Collection, modules: Path, note: Callable[[str], None]) -> None:
    """Makes the inputs and the undisturbed runs, unless they are there.

    Args:
        collection: The collection.
        modules: List of what runs import.
        note: Told what is being made.
    """
    folder = collection.folder
    if (folder / "ready").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if collection.recipe == "code":
        _write_code(collection)
    else:
        made_devices.write_devices(_made(collection.source), 5)
    if "update" in collection.states:
        note(f"{collection.name}: the earlier run")
        command = collection.command(collection.earlier, before=True)
        _ended(collection.name, run(command, folder, modules=modules))
        import_known(modules)
        _change(collection)
    note(f"{collection.name}: a run that nothing disturbs")
    _watched(collection, "fresh", collection.whole, modules)
    import_known(modules)
    _ended(collection.name, run(["verify", str(collection.whole)], folder, modules=modules))
    if "update" in collection.states:
        note(f"{collection.name}: a run over the earlier one")
        updated = folder / "updated"
        shutil.copytree(collection.earlier, updated)
        _watched(collection, "update", updated, modules)
        if common.contents(updated) != common.contents(collection.whole):
            raise SystemExit(f"{collection.name}: an update makes other bytes than a fresh run")
    if "forced" in collection.states:
        note(f"{collection.name}: a run that redoes all")
        forced = folder / "forced-whole"
        shutil.copytree(collection.whole, forced)
        _watched(collection, "forced", forced, modules, "--force")
    (folder / "ready").touch()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _write_code(collection: Collection) -> None:
    count = 45 if collection.name == "every" else 30
    source = common.copy_sources(_made(collection.source), count)
    largest = max(source.rglob("*.py"), key=lambda path: (path.stat().st_size, path.name))
    items = _made(collection.folder / "items")
    (items / "item.py").write_bytes(largest.read_bytes()[:3000])
    token_files.write_tokenizer(collection.folder / "tokenizer.json")
    (source / "torn.py").write_bytes(b"\xff\xfe\x00\x01" * 40)  # a reject


def _change(collection: Collection) -> None:
    """One input goes, one comes, one is another."""
    first, second, *_ = sorted(path for path in collection.source.rglob("*") if path.is_file())
    (collection.source / f"added{second.suffix}").write_bytes(first.read_bytes())
    first.unlink()
    if collection.recipe == "code":
        second.write_bytes(second.read_bytes() + b"\n# changed\n")
    else:
        shutil.copyfile(sorted(collection.source.rglob("*.jpg"))[-1], second)


def _watched(collection: Collection, state: str, output: Path, modules: Path, *more: str) -> None:
    """A whole run of which each stage's beginning is copied and its steps are listed."""
    steps = _made(collection.folder / "steps" / state)

    def begin(name: str) -> None:
        shim.disarm()
        if state != "forced":
            shutil.copytree(output, collection.snapshot(state, name))
        (steps / f"{name}.log").touch()
        shim.arm(output, steps / f"{name}.log")

    command = collection.command(output, *more)
    _ended(collection.name, run(command, collection.folder, begin, modules=modules))


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, and what it said."""

    code: int
    said: str

    @property
    def last(self) -> str:
        """The last line that it said."""
        return (self.said.strip().splitlines() or [""])[-1]


def _ended(name: str, ended: Ended) -> None:
    if ended.code != 0:
        raise SystemExit(f"{name}: a run that nothing disturbs failed\n{ended.said}")


@dataclass(frozen=True)
class Started:
    """A process that was started: its number, and where it says what it says."""

    number: int
    said: Path

    def wait(self) -> Ended:
        """Waits for its end."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        return Ended(code, self.said.read_text(errors="replace"))


def start(
    command: list[str],
    folder: Path,
    begin: Callable[[str], None] | None = None,
    first: Callable[[], None] | None = None,
    modules: Path | None = None,
) -> Started:
    """Starts the command line in a forked process, which has imported all that it needs.

    Left out is what takes longer than all else and tells nothing of a fault: ``verify`` does not
    read the Croissant back, and the report is without sections. Runs that nothing disturbs have
    them, and are read back by mlcroissant; every other Croissant is held to theirs, byte for byte.

    Args:
        command: Arguments of ``shardwright``.
        folder: Where what it says is kept.
        begin: Called with a stage's name as the stage begins.
        first: Called before all else.
        modules: Where to list what the run imports.
    """
    handle, said = tempfile.mkstemp(".txt", "said-", folder)
    child = os.fork()
    if child == 0:
        _become(command, handle, begin, first, modules)
    os.close(handle)
    return Started(child, Path(said))


def run(
    command: list[str],
    folder: Path,
    begin: Callable[[str], None] | None = None,
    first: Callable[[], None] | None = None,
    modules: Path | None = None,
) -> Ended:
    """As ``start``, to the end."""
    return start(command, folder, begin, first, modules).wait()


def _become(
    command: list[str],
    said: int,
    begin: Callable[[str], None] | None,
    first: Callable[[], None] | None,
    modules: Path | None,
) -> None:
    """Is the command line in this process, and ends with it."""
    code = 99
    try:
        for stream in (1, 2):
            os.dup2(said, stream)
        readback.find_spec = lambda _: None  # type: ignore[attr-defined]
        if modules is None:
            for place, name in ((integrity, "readback_faults"), (report, "contents")):
                assert hasattr(place, name)
                setattr(place, name, lambda *_: iter(()))
        if first is not None:
            first()
        if begin is not None:
            _mark_stages(begin)
        sys.argv = ["shardwright", *command]
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 98
        sys.stdout.flush()
        sys.stderr.flush()
        if modules is not None:
            _remember_imports(modules)
    finally:
        os._exit(code)


def _mark_stages(begin: Callable[[str], None]) -> None:
    def marked(name: str, stage: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*given: Any) -> None:
            begin(name)
            stage(*given)

        return wrapped

    for name, stage in curation.STAGES.items():
        curation.STAGES[name] = marked(name, stage)


def import_known(modules: Path) -> None:
    """Imports what an earlier run imported, so that forked ones need not."""
    for name in json.loads(modules.read_text()) if modules.exists() else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # else each forked process copies the pages of all objects that it looks through


def _remember_imports(modules: Path) -> None:
    known = json.loads(modules.read_text()) if modules.exists() else []
    names = {name for name in sys.modules if not name.startswith("__")}
    modules.write_text(json.dumps(sorted(names.union(known))))
