"""The fault campaign: curations that are struck, run again, verified, and held to undisturbed ones.

    python tests/faults/campaign.py --faults 200

Each fault is drawn from the seed and its number. What was done stands in a log of JSON lines and is
not done again while the code is the same; the same command goes on. The last lines count.
"""

import argparse
import errno
import hashlib
import json
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import common
import draws
import outside
import scenes
import shim
from draws import Fault
from judge import Judged, judge, partial
from outside import Struck
from scenes import Collection, Ended

import shardwright

_ENDS: Final = ("recovered", "refused", "told", "failed")
_COMMITTED: Final = ("tables/", "shards/", "indexes/", "tokens/")


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
            ``--force`` makes it right; only where committed bytes changed and their number did not.
            ``failed``: anything else.
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
    struck = (outside.FAMILIES.get(fault.family) or _inside)(fault, collection, folder)
    if not struck.struck:
        shutil.rmtree(folder)
        return Outcome(fault, struck=False)
    ended, where, wrong = struck.ended, struck.where, [*struck.wrong]
    whole = struck.whole or collection.whole
    states = [whole, *([collection.earlier] if fault.state == "update" else [])]
    wrong += [f"before the next run: {one}" for one in partial(output, states)]
    if fault.damage:
        where = str(draws.damage_one(fault, output).relative_to(output))
        committed = where.startswith((*_COMMITTED, "croissant"))
        if not fault.action and committed and _verify(output, folder).code != 1:
            wrong.append(f"{where}: damaged, and verify does not notice")
    again = struck.again or scenes.run(collection.command(output), folder)
    ends, judged, told = _judged(whole, output, folder, again)
    if ends != "recovered":
        silent = (
            fault.damage == "flip" and where.startswith(_COMMITTED) and "_manifest" not in where
        )
        noticed = "Traceback" not in told and Path(where).name in told
        noticed = noticed and (silent if ends == "told" else bool(fault.damage))
        wrong += (
            [] if noticed else [f"next run: exit {again.code}: {again.last}", *judged.wrong[:5]]
        )
    if ends != "recovered" and fault.damage:
        forced = scenes.run(collection.command(output, "--force"), folder)
        last, judged, _ = _judged(whole, output, folder, forced)
        wrong += [] if last == "recovered" else [f"--force: exit {forced.code}: {forced.last}"]
    wrong += judged.wrong[:5]
    if wrong:
        said = f"{ended.code}\n{ended.said}\n--- {again.code}\n{again.said}"
        (folder / "said.txt").write_text(said)
    else:
        shutil.rmtree(folder)
    return Outcome(
        fault,
        True,
        where,
        ended.code,
        ended.last[:300],
        "Traceback" in ended.said,
        "failed" if wrong else ends,
        judged.lost,
        judged.duplicated,
        wrong,
    )


def _verify(output: Path, folder: Path) -> Ended:
    return scenes.run(["verify", str(output)], folder)


def _judged(whole: Path, output: Path, folder: Path, ended: Ended) -> tuple[str, Judged, str]:
    """How a run ended, what it made, and what is told of what is not right."""
    judged = judge(output, whole)
    if ended.code != 0:
        return "refused", judged, ended.said
    verified = _verify(output, folder)
    ends = "recovered" if judged.right and verified.code == 0 else "told"
    return ends, judged, verified.said if verified.code == 1 else ""


def _inside(fault: Fault, collection: Collection, folder: Path) -> Struck:
    """Runs until the fault strikes, or to the end."""
    output, log = folder / "out", folder / "steps.log"
    shutil.copytree(collection.snapshot(fault.state, fault.stage), output)
    if not fault.action:
        return Struck(Ended(0, ""), "")
    log.touch()

    def begin(name: str) -> None:
        if name == fault.stage:
            error = getattr(errno, fault.error) if fault.error else 0
            given = (fault.kind, fault.at, fault.action)
            shim.arm(output, log, *given, error=error, later=fault.later, shift=fault.shift)

    command = collection.disturbed(output, fault.state, fault.stage)
    ended = scenes.run(command, folder, begin)
    done = shim.operations(log)
    hit = next((step for step in done if step.hit), None)
    if hit is None:
        return Struck(ended, "", struck=False)
    if fault.family == "power":
        draws.lose(fault, shim.unsynced(done))
    path = hit.other or hit.path
    where = str(path.relative_to(output) if path.is_relative_to(output) else path)
    killed = fault.action in ("kill before", "kill after", "tear")
    wrong = [] if ended.code == (-9 if killed else ended.code) else [f"exit {ended.code}"]
    untold = ended.code < 0 or "Traceback" in ended.said
    wrong += [f"exit {ended.code}: {ended.last}"] if not killed and untold else []
    return Struck(ended, where, wrong)


def code_key() -> str:
    """Hash of the package, the recipes and the campaign: another code, another campaign."""
    package = Path(shardwright.__file__).parent
    files = [*package.rglob("*.py"), *(common.ROOT / "recipes").glob("*.yaml")]
    files += [path for path in Path(__file__).parent.iterdir() if path.is_file()]
    key = hashlib.sha256()
    for path in sorted(files):
        key.update(path.name.encode() + path.read_bytes())
    return key.hexdigest()[:12]


def note(text: str) -> None:
    """Says what is being done."""
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--collections", default="code,images,every")
    parser.add_argument("--families", default=",".join(draws.INSIDE | draws.OUTSIDE))
    parser.add_argument("--folder", type=Path, default=common.ROOT / ".cache" / "faults")
    given = parser.parse_args()
    folder = given.folder.resolve() / f"campaign-{code_key()}"
    shim.preloaded(shim.build(given.folder.resolve()))
    for old in given.folder.glob("campaign-*"):
        if old != folder:
            shutil.rmtree(old)
    families = given.families.split(",")
    for family in families:
        if not draws.possible(family):
            note(f"without faults of {family}: they need root, or the right to mount")
    chosen = given.collections.split(",")
    # The shim knows files by their true paths.
    made = (folder / "scenes").resolve()
    collections = [one for one in scenes.collections(made) if one.name in chosen]
    modules = made / "modules.json"
    scenes.import_known(modules)
    for collection in collections:
        scenes.prepare(collection, modules, note)
    log = folder / f"seed-{given.seed}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    faults = (draws.draw(given.seed, number, collections) for number in range(10**9))
    able = [family for family in families if draws.possible(family)]
    wanted = (fault for fault in faults if fault.family in able)
    if campaign(given.seed, given.faults, wanted, collections, done, log, given.workers):
        sys.exit(1)


def campaign(
    seed: int,
    faults: int,
    wanted: Iterator[Fault],
    collections: list[Collection],
    done: list[dict[str, Any]],
    log: Path,
    workers: int,
) -> int:
    """Strikes until so many faults struck; returns how many failed."""
    named = {collection.name: collection for collection in collections}
    known = {one["fault"]["number"] for one in done}
    struck = sum(one["struck"] for one in done)
    fresh = (fault for fault in wanted if fault.number not in known)
    running: dict[int, Path] = {}
    while struck + len(running) < faults or running:
        while len(running) < workers and struck + len(running) < faults:
            fault = next(fresh)
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
    stages = Counter(one["fault"]["stage"] or "none" for one in struck)
    ends = Counter((one["fault"]["family"], one["ends"]) for one in struck)
    print(f"{len(struck)} faults", *(f"{end:>10}" for end in _ENDS))
    for family in draws.INSIDE | draws.OUTSIDE:
        print(f"  {family:9}", *(f"{ends[family, end]:10}" for end in _ENDS))
    print(f"  in stages: {', '.join(f'{n} {name}' for name, n in stages.most_common())}")
    print(f"  runs that ended in a traceback: {sum(one['traced'] for one in struck)}")
    lost, duplicated = (sum(one[name] for one in struck) for name in ("lost", "duplicated"))
    wrong = sum(bool(one["wrong"]) for one in struck)
    print(f"  {lost} lost, {duplicated} duplicated, {wrong} wrong")
    return sum(one["ends"] == "failed" for one in struck)


if __name__ == "__main__":
    main()
