"""A worker that waits to be killed: once in a job, with a part made and not yet committed.

``MARKS`` names the folder where it leaves a mark for each job; with ``ONLY`` it is in that job.
"""

import os
import time
from pathlib import Path

from shardwright.pipelines import jobs, worker

MARKS = Path(os.environ["MARKS"])
ONLY = os.environ.get("ONLY")
close = jobs.Output.close


PATIENCE = 10.0  # seconds for another worker to commit a part


def wait_once(self: jobs.Output, started: float) -> None:
    """In place of ``Output.close``; leaves a mark with the process's id and does not return.

    The first part that is made in a job waits until another one is committed, if there is another.
    """
    folder = self._folder
    if ONLY in (None, folder.name):
        mine = MARKS / f".{os.getpid()}.{time.monotonic_ns()}"
        mine.write_text(str(os.getpid()))
        try:
            os.link(mine, MARKS / f".turn.{folder.name}")
        except FileExistsError:
            pass  # this job had its turn
        else:
            alone = len((folder / "plan.jsonl").read_bytes().splitlines()) == 1
            until = time.monotonic() + PATIENCE
            while not (alone or any(folder.glob("part-*.json")) or time.monotonic() > until):
                time.sleep(0.05)
            os.link(mine, MARKS / folder.name)
            time.sleep(600)
    close(self, started)


if __name__ == "__main__":
    jobs.Output.close = wait_once  # type: ignore[method-assign]
    worker.main()
