"""What both examples share: a training job that is killed half-way and goes on on other ranks.

``train`` is the job, as one would write it: a model in DistributedDataParallel, a dataset of the
curation's shards, a checkpoint that holds a cursor. ``main`` runs it: it curates a folder, starts
the job on two ranks, of which one kills itself in the middle of the first epoch, starts it again on
three, and counts in the ranks' logs how often each record came.

A checkpoint takes the model back, so what counts is the history of the last model: the steps before
the checkpoint from the first run, those after it from the second.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import shardwright

RECIPES = Path(__file__).parents[1] / "recipes"
GLOBAL_BATCH = 6
EPOCHS = 2
CHECKPOINT_EVERY = 2
RUNS = ((2, 2), (3, 1))
"""Ranks, and loader workers of each: before the kill and after it."""

QUICK = ("embedding=null", "index=null", "prune=null")
"""Settings of a curation that only removes duplicates and what filters drop."""


@dataclass(frozen=True)
class Example:
    """A modality's part of the job.

    Attributes:
        script: The file that is run.
        recipe: Name of the recipe.
        folder: What is curated unless ``--input`` says otherwise.
        settings: Of the recipe, as ``--set`` takes them.
        transform: Sample -> its tensor; called in the loader's workers.
        model: Makes the model.
        loss: (model, tensors of a batch) -> loss of each sample ``(b,)``.
    """

    script: str
    recipe: str
    folder: str
    settings: tuple[str, ...]
    transform: Callable[[dict[str, Any]], dict[str, Any]]
    model: Callable[[], torch.nn.Module]
    loss: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]


def train(example: Example, curation: Path, work: Path, workers: int, dies: bool) -> None:
    """The training job of one rank; torchrun starts as many as there are.

    Args:
        example: Model, loss and transformation.
        curation: Output folder of a curation.
        work: Folder for the checkpoint and the logs; a job goes on from a checkpoint there.
        workers: Workers of the loader.
        dies: Whether the last rank kills itself half-way through the first epoch.
    """
    torch.distributed.init_process_group("gloo")
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if GLOBAL_BATCH % ranks:
        sys.exit(f"{ranks} ranks cannot share a global batch of {GLOBAL_BATCH} equally")
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = DistributedDataParallel(example.model())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    batch = GLOBAL_BATCH // ranks
    dataset = shardwright.open(curation).dataset(
        "train", batch_size=batch, seed=1, transform=example.transform
    )
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers)
    killed_at = dataset.steps.steps // 4 * 2 + 1  # one step after a checkpoint
    first = 0
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        dataset.resume(state["cursor"])
        first = state["cursor"]["global_samples"] // GLOBAL_BATCH

    with (work / f"seen.{ranks}.{rank}").open("w") as log:
        for epoch in range(dataset.epoch, EPOCHS):
            dataset.set_epoch(epoch)
            total = torch.zeros(1)
            for step, given in enumerate(loader, first):
                if dies and rank == ranks - 1 and (epoch, step) == (0, killed_at):
                    os.kill(os.getpid(), signal.SIGKILL)
                # The last step is filled up with samples that came before: they weigh nothing.
                here = step * GLOBAL_BATCH + rank * batch + np.arange(batch)
                fresh = ~dataset.steps.repeats(here)
                # Before the gradients are shared: then every rank has logged what a checkpoint has.
                for record, is_fresh in zip(given["record_id"], fresh, strict=True):
                    if is_fresh:
                        print(epoch, step, record, file=log, flush=True)
                losses = example.loss(model, given["data"]) * torch.from_numpy(fresh)
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                total += losses.detach().sum()
                if (step + 1) % CHECKPOINT_EVERY == 0 and rank == 0:
                    partial = checkpoint.with_suffix(".partial")
                    torch.save(
                        {
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "cursor": dataset.cursor((step + 1) * dataset.global_batch),
                        },
                        partial,
                    )
                    partial.replace(checkpoint)
            torch.distributed.all_reduce(total)
            if rank == 0:
                seen = dataset.source.samples - first * GLOBAL_BATCH
                print(f"epoch {epoch} from step {first}: loss {total.item() / max(seen, 1):.3f}")
            first = 0
    torch.distributed.destroy_process_group()


def main(example: Example) -> None:
    """Runs the example, or as ``--train`` one rank of its job."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--input", default=example.folder, help="what is curated")
    parser.add_argument("--limit", type=int, default=400, help="files of it at most")
    parser.add_argument("--work", type=Path, default=Path("build") / example.script[:-3])
    parser.add_argument("--train", type=Path, metavar="CURATION", help="be a rank, see torchrun")
    parser.add_argument("--workers", type=int, default=1, help="of the loader of a rank")
    parser.add_argument("--dies", action="store_true", help="the last rank kills itself half-way")
    given = parser.parse_args()
    if given.train:
        train(example, given.train, given.work, given.workers, given.dies)
        return
    started = time.monotonic()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    curation = curate(example, given.input, given.limit, given.work)
    for ranks, workers in RUNS:
        run(example, curation, given.work, ranks, workers, dies=(ranks, workers) == RUNS[0])
        if (ranks, workers) == RUNS[0]:
            checkpoint = given.work / "checkpoint.pt"
            if not checkpoint.exists():
                sys.exit("the job was killed before its first checkpoint: too few samples")
            cursor = torch.load(checkpoint)["cursor"]
            print(f"cursor of the last checkpoint: {cursor}", flush=True)
    faults = count(curation, given.work, (cursor["epoch"], cursor["global_samples"]))
    print(f"{time.monotonic() - started:.0f} s in all")
    sys.exit(faults)


def curate(example: Example, folder: str, limit: int, work: Path) -> Path:
    """Curates ``folder`` in small shards, and returns where."""
    command = [sys.executable, "-m", "shardwright.pipelines.cli", "curate"]
    command += [str(RECIPES / example.recipe), "--input", folder, "--limit", str(limit)]
    for setting in (*example.settings, "shards.size=200KB", "limits.reject_threshold=0.5"):
        command += ["--set", setting]
    with (work / "curate.log").open("w") as log:
        done = subprocess.run([*command, "--output", str(work / "curated")], stderr=log, stdout=log)
    if done.returncode:
        sys.exit((work / "curate.log").read_text())
    return work / "curated"


def run(
    example: Example, curation: Path, work: Path, ranks: int, workers: int, *, dies: bool
) -> None:
    """Runs the job on so many ranks; ends this process if it does not end as it should."""
    print(f"{ranks} ranks with {workers} loader workers each:", flush=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(ranks), str(Path(__file__).with_name(example.script))]
    command += ["--train", str(curation), "--work", str(work), "--workers", str(workers)]
    log = work / f"{ranks}.log"
    with log.open("w") as errors:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, *["--dies"] * dies], stderr=errors, env=environment)
    if bool(done.returncode) != dies:
        sys.exit(f"the job ended with {done.returncode}\n{log.read_text()}")
    if dies:
        print(f"a rank was killed (see {log})")


def count(curation: Path, work: Path, resumed: tuple[int, int]) -> int:
    """Counts how often the last model saw each record in each epoch, and says so.

    Args:
        curation: Output folder of the curation.
        work: Folder with the logs.
        resumed: Epoch, and samples in it, at which the second run began.

    Returns:
        0 if each came exactly once in each epoch, else 1.
    """
    seen: list[Counter[str]] = [Counter() for _ in range(EPOCHS)]
    undone = 0
    for path in sorted(work.glob("seen.*")):
        killed = path.name.startswith(f"seen.{RUNS[0][0]}.")
        for line in path.read_text().splitlines():
            epoch, step, record = line.split()
            if killed and (int(epoch), int(step) * GLOBAL_BATCH) >= resumed:
                undone += 1
            else:
                seen[int(epoch)][record] += 1
    wanted = shardwright.open(curation).sql("SELECT record_id FROM shards WHERE split = 'train'")
    records = Counter(wanted["record_id"].to_pylist())
    print(f"{undone} samples came after the checkpoint and before the kill: done again")
    faults = 0
    for epoch, times in enumerate(seen):
        once = sum(times[record] == 1 for record in records)
        faults |= times != records
        print(f"epoch {epoch}: {once} of {len(records)} samples seen exactly once", end="")
        print(f", {len(records - times)} missed, {len(times - records)} too often")
    return faults
