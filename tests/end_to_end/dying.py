"""Curations that kill themselves: a server that forks a process for each order that it reads.

An order is a line of JSON, the arguments of ``serve_order``; the answer is a line with the exit
code of the process, negative for a signal. What curations import is imported once, before the first
fork, while there is no pipeline, channel or pool of threads yet: it takes seconds.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

from shardwright.metadata import files
from shardwright.pipelines import curate as curation

LATER = ("faiss", "torch", "shardwright.embeddings.kinds", "shardwright.kernels.cpu")


def serve_order(
    modality: str,
    source: str,
    output: str,
    settings: list[str],
    report: str,
    kill: tuple[str, str, int, bool] | None = None,
    snapshots: str | None = None,
) -> None:
    """Curates, and kills itself with SIGKILL on the way.

    Args:
        modality: Whose shipped recipe it is.
        source: The input.
        output: The output folder.
        settings: What differs from the shipped recipe.
        report: Where to write, as JSON: of a killed run the parts of its stage, all and reused; of
            a whole one the files (parts, sidecars, manifests, shards, metadata) that each stage
            made.
        kill: The stage, the file that it makes, the how-manieth of that name, and whether to die
            before the file gets its name or right after.
        snapshots: Where to copy the output folder to as each stage finds it.
    """
    made: dict[str, list[str]] = {}
    inside: list[Any] = []  # name and progress of the stage that runs
    close = files.HashedFile.close

    def dying(self: files.HashedFile) -> None:
        if not inside or self.closed:
            return close(self)
        stage, progress = inside
        name = self._path.relative_to(output).as_posix()
        made[stage].append(name)
        if kill is None or (stage, name, made[stage].count(name)) != tuple(kill[:3]):
            return close(self)
        Path(report).write_text(json.dumps({"parts": progress.parts, "reused": progress.reused}))
        if not kill[3]:
            close(self)
        return os.kill(os.getpid(), signal.SIGKILL)

    def marked(name: str, run_stage: Callable[..., None]) -> Callable[..., None]:
        def wrapped(run: Any, progress: Any) -> None:
            if snapshots is not None:
                shutil.copytree(output, Path(snapshots) / name)
            made[name] = []
            inside[:] = name, progress
            run_stage(run, progress)
            inside.clear()

        return wrapped

    files.HashedFile.close = dying
    for name, run_stage in curation.STAGES.items():
        curation.STAGES[name] = marked(name, run_stage)
    common.run(modality, Path(source), Path(output), *settings)
    Path(report).write_text(json.dumps(made))


def main() -> None:
    for name in LATER:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(2, 1)  # the answers stand alone on stdout
                serve_order(**json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
