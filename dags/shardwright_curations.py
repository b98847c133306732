"""Curations of dated crawls, one DAG for each recipe, one task for each stage.

Every run has a partition: the partition key of a scheduled run, or else the day of its logical
date. The crawl of a partition is curated into its own folder, and records that an earlier
partition kept count as duplicates. A failed task can be run again at any time: what its stage
committed is reused. Settings are environment variables; docs/airflow.md of Shardwright lists them.

Shardwright is called as a command and need not be installed where Airflow is.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import (
    DAG,
    Asset,
    BaseOperator,
    Context,
    CronPartitionTimetable,
    Param,
    PartitionedAtRuntime,
    get_current_context,
    task,
)
from airflow.sdk.bases.timetable import BaseTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# Those of `shardwright curate`, in its order.
STAGES = (
    *("ingest", "filter", "duplicates", "embed", "decontaminate", "semantic", "index", "cluster"),
    *("study", "score", "heterogeneity", "evaluate", "prune", "shard", "describe"),
)
RECIPES = Path(os.environ.get("SHARDWRIGHT_RECIPES") or Path(__file__).parents[1] / "recipes")
OUTPUT = os.environ.get("SHARDWRIGHT_OUTPUT", "")
INPUT = os.environ.get("SHARDWRIGHT_INPUT") or None
COMMAND = os.environ.get("SHARDWRIGHT_COMMAND") or "shardwright"
SCHEDULE = os.environ.get("SHARDWRIGHT_SCHEDULE")
LINEAGE = os.environ.get("SHARDWRIGHT_OPENLINEAGE")

_MODALITY = re.compile(r"^modality:\s*(\w+)", re.MULTILINE)
_PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# How the command tells of a mistake or of bad data; a crash ends with a traceback instead.
_TOLD = "shardwright: "
# What it says where nothing is wrong with the data: no room, a worker killed, a cluster lost.
_AGAIN = "run the same command again"


def partition_of(context: Mapping[str, Any]) -> str:
    """The partition of a run, a name for a folder.

    Raises:
        AirflowFailException: The run has none, or one that names no folder.
    """
    key, date = context.get("partition_key"), context.get("logical_date")
    if key is not None:
        partition = str(key)
    elif date is not None:
        partition = date.strftime("%Y-%m-%d")
    else:
        raise AirflowFailException(
            "the run has neither partition key nor logical date; trigger it with one of them"
        )
    if not _PARTITION.fullmatch(partition):
        raise AirflowFailException(
            f"partition key {partition!r}: names a folder; use letters, digits, '.', '_' and '-'"
        )
    return partition


def earlier_outputs(folder: Path, partition: str) -> list[str]:
    """Outputs of the partitions before one, in their order; names sort by time.

    Raises:
        AirflowFailException: One of them is not complete, so that its duplicates are not known.
    """
    outputs = [path for path in folder.glob("[!.]*") if path.is_dir() and path.name < partition]
    for path in sorted(outputs):
        if not (path / "croissant.json").exists():
            raise AirflowFailException(
                f"{path}: this earlier curation is not complete; run it to its end, remove the "
                "folder, or set the param against_earlier to false"
            )
    return [str(path) for path in sorted(outputs)]


def planned(recipe: Path, partition: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What all tasks of a run are told, so that none decides anew.

    Returns:
        ``partition``, ``output`` (a folder) and ``arguments`` of ``shardwright curate``.

    Raises:
        AirflowFailException: The settings or an earlier partition do not allow the run.
    """
    if not os.path.isabs(OUTPUT):
        raise AirflowFailException(
            f"SHARDWRIGHT_OUTPUT {OUTPUT!r}: name a folder by its full path, one that all workers "
            "of Airflow reach"
        )
    folder = Path(OUTPUT) / recipe.stem
    arguments = [str(recipe), "--output", str(folder / partition)]
    # The same path in two crawls names two records.
    arguments += ["--set", f"source.name={recipe.stem}/{partition}"]
    if params["input"]:
        wanted = params["input"].replace("{recipe}", recipe.stem).replace("{partition}", partition)
        arguments += ["--input", wanted]
    if params["against_earlier"] and (earlier := earlier_outputs(folder, partition)):
        arguments += ["--set", f"duplicates.against={json.dumps(earlier)}"]
    for override in params["set"]:
        arguments += ["--set", override]
    return {"partition": partition, "output": str(folder / partition), "arguments": arguments}


def manifest_facts(output: Path, stage: str | None = None) -> dict[str, dict[str, Any]]:
    """Rows and content hash of the tables that a stage wrote, or of all, by name.

    Folders of files (``shards``, ``indexes``) have the number of their files and a fingerprint.
    """
    facts: dict[str, dict[str, Any]] = {}
    folders = (output / "indexes", output / "shards", output / "tokens" / "shards")
    for path in [*output.glob("tables/*"), *folders]:
        manifest = path / "_manifest.json"
        if not manifest.exists():
            continue
        held = json.loads(manifest.read_text())
        if stage in (None, held["origin"]["stage"]):
            name = path.relative_to(output).as_posix()
            if "files" in held:
                facts[name] = {"files": len(held["files"]), "fingerprint": held["fingerprint"]}
            else:
                facts[name] = {"rows": held["rows"], "content_sha256": held["content_sha256"]}
    return dict(sorted(facts.items()))


def raise_failure(code: int, last: str) -> None:
    """Says how a command failed: for good, or such that another try may help.

    A mistake (exit 2) and bad data (exit 1) stay as they are. A full disk, a worker that was killed
    and a crash end with exit 1 too, and are told apart by the last line.

    Args:
        code: Exit code; negative for a signal.
        last: Last line that the command wrote.

    Raises:
        AirflowFailException: No other try will help.
        AirflowException: One may.
    """
    if code == 2 or (code == 1 and last.startswith(_TOLD) and _AGAIN not in last):
        raise AirflowFailException(f"exit {code}, which no retry mends: {last}")
    if code != 0:
        raise AirflowException(f"exit {code}: {last}")


class Shardwright(BaseOperator):
    """Runs one stage of a curation, or the check of all of it, as a command.

    What the command writes goes to the task's log as it comes. The outlet tells what is committed.

    Args:
        plan: What ``planned`` returns.
        stage: The stage; None for ``shardwright verify``.
        kwargs: Of the base class.
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(self, *, plan: Any, stage: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.stage = stage
        self._hook: SubprocessHook | None = None

    def execute(self, context: Context) -> None:
        """Runs the command and attaches what it committed to the outlet."""
        output = self.plan["output"]
        command = [COMMAND, "verify", output]
        if self.stage is not None:
            command = [COMMAND, "curate", *self.plan["arguments"], "--stage", self.stage]
            command += ["--openlineage", LINEAGE] if LINEAGE else []
        self._hook = SubprocessHook()
        # The recipe's own paths are relative to where it lies.
        done = self._hook.run_command(
            command, env=os.environ | _parent_run(context), cwd=str(RECIPES)
        )
        raise_failure(done.exit_code, done.output)
        announce(self, context, self.plan, manifest_facts(Path(output), self.stage))

    def on_kill(self) -> None:
        """Ends the command and the workers that it started."""
        if self._hook is not None:
            self._hook.send_sigterm()  # type: ignore[no-untyped-call]


def announce(
    operator: Any, context: Context, plan: Mapping[str, Any], tables: Mapping[str, Any]
) -> None:
    """Attaches to a task's outlets what its run has committed, under the run's partition."""
    for outlet in operator.outlets:
        event = context["outlet_events"][outlet]
        event.extra = {
            "partition": plan["partition"],
            "output": plan["output"],
            "tables": dict(tables),
        }
        event.add_partitions(plan["partition"])


def _parent_run(context: Context) -> dict[str, str]:
    """Names the task's run to OpenLineage, where Airflow's provider for it is installed."""
    if LINEAGE is None or find_spec("airflow.providers.openlineage") is None:
        return {}
    from airflow.providers.openlineage.plugins import macros

    instance = context["ti"]
    return {
        "OPENLINEAGE_PARENT_ID": macros.lineage_parent_id(instance),
        "OPENLINEAGE_ROOT_PARENT_ID": macros.lineage_root_parent_id(instance),
    }


def curation(recipe: Path, modality: str) -> DAG:
    """The DAG of a recipe: a plan, every stage, the check of the whole."""
    schedule: BaseTimetable = PartitionedAtRuntime()
    if SCHEDULE:
        schedule = CronPartitionTimetable(SCHEDULE, timezone="UTC", key_format="%Y-%m-%d")
    with DAG(
        f"curate_{recipe.stem}",
        description=f"Curates dated crawls with {recipe.name}",
        doc_md=__doc__,
        schedule=schedule,
        catchup=False,
        max_active_runs=1,
        tags=["shardwright", modality],
        params={
            "input": Param(
                INPUT,
                type=["null", "string"],
                description="Where the crawl lies; {partition} and {recipe} are filled in. "
                "Empty: the recipe's own source",
            ),
            "set": Param(
                [],
                type="array",
                items={"type": "string"},
                description="Changes to the recipe, each KEY=VALUE",
            ),
            "against_earlier": Param(
                True,
                type="boolean",
                description="What an earlier partition kept counts as a duplicate",
            ),
        },
        default_args={
            "owner": "shardwright",
            "retries": 2,
            "retry_delay": timedelta(minutes=5),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(hours=1),
        },
    ) as dag:
        assets = {name: Asset(f"shardwright.{recipe.stem}.{name}") for name in _tasks()}

        @task(outlets=[assets["plan"]])
        def plan() -> dict[str, Any]:
            context = get_current_context()
            found = planned(recipe, partition_of(context), context["params"])
            announce(context["task"], context, found, {})
            return found

        told = plan()
        last: Any = told
        before = assets["plan"]
        for name in _tasks()[1:]:
            stage = None if name == "verify" else name
            step = Shardwright(
                task_id=name, plan=told, stage=stage, inlets=[before], outlets=[assets[name]]
            )
            last >> step
            last, before = step, assets[name]
    return dag


def _tasks() -> tuple[str, ...]:
    return ("plan", *STAGES, "verify")


for _recipe in sorted(RECIPES.glob("*.yaml")):
    if _found := _MODALITY.search(_recipe.read_text(errors="replace")):
        _dag = curation(_recipe, _found[1])
        globals()[_dag.dag_id] = _dag
