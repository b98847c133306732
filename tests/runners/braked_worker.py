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


def wait_once(self: jobs.Output, started: float) -> None:
    """In place of ``Output.close``; leaves a mark with the process's id and does not return."""
    folder = self._folder
    last = len((folder / "plan.jsonl").read_bytes().splitlines()) == 1
    if ONLY in (None, folder.name) and (last or any(folder.glob("part-*.json"))):
        mine = MARKS / f".{os.getpid()}.{time.monotonic_ns()}"
        mine.write_text(str(os.getpid()))
        try:
            os.link(mine, MARKS / folder.name)
        except FileExistsError:
            pass  # this job had its turn
        else:
            time.sleep(600)
    close(self, started)


if __name__ == "__main__":
    jobs.Output.close = wait_once  # type: ignore[method-assign]
    worker.main()
