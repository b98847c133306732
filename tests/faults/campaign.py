"""The fault campaign: curations that are struck, run again, verified, and held to undisturbed ones.

    python tests/faults/campaign.py --faults 200

Each fault is drawn from the seed and its number. What was done stands in a log of JSON lines and is
not done again while the code is the same; the same command goes on. The last lines count.
"""

import argparse
import errno
import hashlib
import importlib
import json
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import common
import draws
import scenes
import shim
from draws import Fault
from judge import judge, partial
from scenes import Collection, Ended

import shardwright


@dataclass(frozen=True)
class Outcome:
    """What became of a fault.

    Attributes:
        fault: The fault.
        struck: Whether it struck at all; one that did not is not counted.
        where: The file that it struck.
        code: Exit code of the run that it struck; negative for a signal.
        said: The last line of that run.
        traced: Whether that run, or the next, ended in a traceback.
        ends: ``recovered``: the same command again makes it right. ``refused``: it stops with one
            line, and ``--force`` makes it right. ``told``: it does not notice, ``verify`` does, and
            ``--force`` makes it right. ``failed``: anything else.
        lost: Records.
        duplicated: Records.
        wrong: What else is wrong, one line each.
        seconds: It took.
    """

    fault: Fault
    struck: bool
    where: str = ""
    code: int = 0
    said: str = ""
    traced: bool = False
    ends: str = "recovered"
    lost: int = 0
    duplicated: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def strike(fault: Fault, collection: Collection, folder: Path) -> Outcome:
    """Runs a fault in a folder of its own, which stays if something is wrong."""
    output = folder / "out"
    shutil.copytree(collection.snapshot(fault.state, fault.stage), output)
    ended, where, struck = Ended(0, ""), "", True
    if fault.action:
        ended, hit = _struck(fault, collection, output, folder)
        if hit is None:
            shutil.rmtree(folder)
            return Outcome(fault, struck=False)
        where = str(hit.relative_to(output)) if hit.is_relative_to(output) else str(hit)
    states = (collection.whole,)
    if fault.state == "update":
        states = (collection.earlier, collection.whole)
    wrong = [f"before the next run: {one}" for one in partial(output, states)]
    told_at_once = True
    if fault.damage:
        damaged = draws.damage_one(fault, output)
        where = str(damaged.relative_to(output))
        if not fault.action and where.startswith(("tables", "shards", "indexes", "croissant")):
            told_at_once = scenes.run(["verify", str(output)], folder).code == 1
    if not told_at_once:
        wrong.append(f"{where}: damaged, and verify does not notice")
    if ended.code == 99 or ended.code < -9:
        wrong.append(f"the run ended with {ended.code}: {ended.last}")
    again = scenes.run(collection.command(output), folder)
    ends, judged, noticed = _judged(collection, output, folder, again)
    traced = "Traceback" in ended.said and fault.family != "bytes"
    if ends != "recovered" and fault.damage:
        wrong += [] if noticed else [f"the next run: exit {again.code}: {again.last}"]
        forced = scenes.run(collection.command(output, "--force"), folder)
        last, judged, _ = _judged(collection, output, folder, forced)
        ends = ends if noticed and last == "recovered" else "failed"
        wrong += [] if last == "recovered" else [f"with --force: {forced.code}: {forced.last}"]
    elif ends != "recovered":
        ends = "failed"
        wrong.append(f"the next run: exit {again.code}: {again.last}")
    wrong += judged.wrong[:5]
    outcome = Outcome(
        fault, struck, where, ended.code, ended.last[:300], traced, ends if not wrong else "failed",
        judged.lost, judged.duplicated, wrong,
    )  # fmt: skip
    if outcome.ends == "failed":
        (folder / "said.txt").write_text(f"{ended.said}\n--- again\n{again.said}")
    else:
        shutil.rmtree(folder)
    return outcome


def _judged(
    collection: Collection, output: Path, folder: Path, ended: Ended
) -> tuple[str, Any, bool]:
    """How a run ended, what it made, and whether what is not right was noticed."""
    judged = judge(output, collection.whole)
    if ended.code != 0:
        return "refused", judged, ended.code in (1, 2) and "Traceback" not in ended.said
    verified = scenes.run(["verify", str(output)], folder)
    if judged.right and verified.code == 0:
        return "recovered", judged, True
    return "told", judged, verified.code == 1


def _struck(
    fault: Fault, collection: Collection, output: Path, folder: Path
) -> tuple[Ended, Path | None]:
    """Runs until the fault strikes, or to the end; and the file that was struck."""
    log = folder / "steps.log"
    log.touch()
    later = list(scenes.curation.STAGES)
    stages = [fault.stage] if fault.state == "forced" else later[later.index(fault.stage) :]
    options = [word for name in stages for word in ("--stage", name)]
    if fault.state == "forced":
        options.append("--force")

    def begin(name: str) -> None:
        if name == fault.stage:
            error = getattr(errno, fault.error) if fault.error else 0
            shim.arm(
                output, log, fault.kind, fault.at, fault.action,
                error=error, later=fault.later, shift=86_400,
            )  # fmt: skip

    ended = scenes.run(collection.command(output, *options), folder, begin)
    done = shim.operations(log)
    hit = next((step for step in done if step.hit), None)
    if hit is not None and fault.family == "power":
        draws.lose(fault, shim.unsynced(done))
    return ended, None if hit is None else hit.other or hit.path


def code_key() -> str:
    """Hash of the package, the recipes and the campaign: another code, another campaign."""
    package = Path(shardwright.__file__).parent
    files = [*package.rglob("*.py"), *(common.ROOT / "recipes").glob("*.yaml")]
    files += [path for path in Path(__file__).parent.iterdir() if path.is_file()]
    key = hashlib.sha256()
    for path in sorted(files):
        key.update(path.name.encode() + path.read_bytes())
    return key.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=common.ROOT / ".cache" / "faults")
    given = parser.parse_args()
    folder = (given.folder / code_key()).absolute()
    shim.preloaded(shim.build(given.folder.absolute()))
    for old in given.folder.iterdir():
        if old.is_dir() and old != folder:
            shutil.rmtree(old)
    collections = scenes.collections(folder / "scenes")
    for collection in collections:
        scenes.prepare(collection, print)
    modules = folder / "modules.json"
    if not modules.exists():
        scenes.save_modules(modules, collections[-1])
    for name in json.loads(modules.read_text()):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    log = folder / f"seed-{given.seed}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if campaign(given.seed, given.faults, collections, done, log, given.workers):
        sys.exit(1)


def campaign(
    seed: int,
    faults: int,
    collections: list[Collection],
    done: list[dict[str, Any]],
    log: Path,
    workers: int,
) -> int:
    """Strikes until so many faults struck; returns how many failed."""
    named = {collection.name: collection for collection in collections}
    known = {one["fault"]["number"] for one in done}
    struck = sum(one["struck"] for one in done)
    numbers = (number for number in range(10**9) if number not in known)
    running: dict[int, Path] = {}
    while struck + len(running) < faults or running:
        while len(running) < workers and struck + len(running) < faults:
            fault = draws.draw(seed, next(numbers), collections)
            work = log.parent / "work" / f"{seed}-{fault.number}"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            running[_start(fault, named[fault.collection], work)] = work.with_suffix(".json")
        child, _ = os.wait()
        answer = running.pop(child)
        outcome = json.loads(answer.read_text())
        answer.unlink()
        done.append(outcome)
        struck += outcome["struck"]
        with log.open("a") as lines:
            print(json.dumps(outcome), file=lines)
        if outcome["struck"]:
            print(f"{struck:4d} {told(outcome)}", flush=True)
    return count(done)


def _start(fault: Fault, collection: Collection, work: Path) -> int:
    """Strikes in a process of its own, which leaves a JSON file."""
    child = os.fork()
    if child:
        return child
    started = time.monotonic()
    try:
        outcome = strike(fault, collection, work)
    except BaseException:
        outcome = Outcome(fault, struck=True, ends="failed", wrong=[traceback.format_exc()])
    text = json.dumps(asdict(outcome) | {"seconds": round(time.monotonic() - started, 1)})
    work.with_suffix(".json").write_text(text)
    os._exit(0)


def told(outcome: dict[str, Any]) -> str:
    """One line of an outcome, more where something is wrong."""
    fault = Fault(**outcome["fault"])
    line = f"{fault} ({outcome['where']}) -> {outcome['ends']}, {outcome['seconds']} s"
    return "\n       ".join([line, *outcome["wrong"]])


def count(done: list[dict[str, Any]]) -> int:
    """Prints what became of all faults; returns how many failed."""
    struck = [one for one in done if one["struck"]]
    families = Counter(one["fault"]["family"] for one in struck)
    ends = Counter(one["ends"] for one in struck)
    print(f"{len(struck)} faults: {', '.join(f'{n} {name}' for name, n in families.most_common())}")
    print(f"  {', '.join(f'{n} {name}' for name, n in ends.most_common())}")
    print(f"  runs that ended in a traceback: {sum(one['traced'] for one in struck)}")
    lost, duplicated = (sum(one[name] for one in struck) for name in ("lost", "duplicated"))
    wrong = sum(bool(one["wrong"]) for one in struck)
    print(f"  {lost} lost, {duplicated} duplicated, {wrong} wrong")
    return ends["failed"]


if __name__ == "__main__":
    main()
