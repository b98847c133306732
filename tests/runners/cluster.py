"""A Flink cluster on loopback, as plain processes, and what runs Beam jobs beside it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
FLINK_LIBRARIES = ROOT / ".cache" / "flink" / "lib"
JOB_SERVER = ROOT / ".cache" / "job-server" / "flink-job-server-1.jar"
FLINK_VERSION = "1.19"
SLOTS = 2
WORKER = Path(sys.executable).parent / "shardwright-worker"

# Java 17 closes what Flink's serializers look into; Flink's own scripts open the same.
_OPENED = (
    *("java.lang", "java.net", "java.io", "java.nio", "java.text", "java.time", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks"),
    *("java.lang.reflect", "java.lang.invoke", "sun.nio.ch"),
)
JAVA = (
    "java",
    "-XX:+UseSerialGC",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED),
)

# A task manager that is gone is known to be within seconds, and its work starts elsewhere.
_CONFIGURATION = """\
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: localhost
jobmanager.memory.process.size: 1g
rest.address: localhost
rest.bind-address: localhost
rest.port: {rest}
taskmanager.host: localhost
taskmanager.bind-host: localhost
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: 2.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 128m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.managed.size: 64m
taskmanager.memory.jvm-metaspace.size: 512m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
parallelism.default: 1
cluster.evenly-spread-out-slots: true
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: {attempts}
restart-strategy.fixed-delay.delay: 1s
classloader.resolve-order: parent-first
classloader.check-leaked-classloader: false
heartbeat.interval: 1000
heartbeat.timeout: 8000
io.tmp.dirs: {folder}/tmp
"""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(what: Callable[[], Any], seconds: float, name: str) -> Any:
    """The first true value of ``what``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{name}: not within {seconds} s")


def listens(port: int) -> bool:
    """Whether somebody accepts connections at a port of loopback."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Processes:
    """Processes that die with this one, whatever ends it.

    The system kills them with the thread that started them: one thread starts them all.
    """

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def start(self, name: str, *command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a program, its output in a file of the folder."""
        return self._starter.submit(self._start, name, command, environment).result()

    def _start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
                cwd=self.folder,
            )
        self.started.append(process)
        return process

    def stop(self) -> None:
        """Kills them and what they started."""
        for process in self.started:
            if process.poll() is None:
                family = [psutil.Process(process.pid)]
                family += family[0].children(recursive=True)
                for one in family:
                    one.send_signal(signal.SIGKILL)
                process.wait()


@dataclass
class Flink:
    """One job manager, task managers, and Beam's job server."""

    processes: Processes
    rest: int
    jobs: int
    task_managers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def start(cls, processes: Processes, attempts: int = 3) -> "Flink":
        """Starts them with two task managers and waits until they know each other.

        Args:
            processes: Where to start them.
            attempts: How often a job is tried again when it fails.
        """
        folder = processes.folder
        (folder / "tmp").mkdir(parents=True)
        ports = {"rpc": free_port(), "rest": free_port()}
        text = _CONFIGURATION.format(folder=folder, slots=SLOTS, attempts=attempts, **ports)
        (folder / "config.yaml").write_text(text)
        self = cls(processes, ports["rest"], free_port())
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self._java("job-manager", entry, "-Xmx512m")
        for _ in range(2):
            self.add_task_manager()
        self.start_job_server()
        wait_for(lambda: self.get("/overview"), 240, "job manager")
        self.wait_for_slots(2 * SLOTS)
        wait_for(lambda: listens(self.jobs), 240, "job server")
        return self

    def _java(self, name: str, entry: str, *settings: str) -> subprocess.Popen[bytes]:
        # Beam's classes beside Flink's own, so that they are loaded and compiled once, not by job.
        path = ["-cp", f"{FLINK_LIBRARIES}/*:{JOB_SERVER}", entry]
        path += ["--configDir", self.processes.folder]
        return self.processes.start(name, *JAVA, *settings, *path)

    def add_task_manager(self) -> None:
        """Starts one more."""
        entry = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        name = f"task-manager-{len(self.task_managers)}"
        self.task_managers.append(self._java(name, entry, "-Xmx512m"))

    def start_job_server(self) -> None:
        """Starts Beam's job server, which translates pipelines for the cluster."""
        self.processes.start(
            "job-server",
            *(*JAVA, "-Xmx512m", "-jar", JOB_SERVER, "--flink-master", f"localhost:{self.rest}"),
            *("--job-port", str(self.jobs), "--artifact-port", "0", "--expansion-port", "0"),
            *("--artifacts-dir", self.processes.folder / "artifacts"),
        )

    def get(self, path: str) -> Any:
        """What the cluster answers, or None while it does not."""
        try:
            with urllib.request.urlopen(f"http://localhost:{self.rest}{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    def wait_for_slots(self, count: int) -> None:
        """Waits until the task managers have this many free slots."""

        def free() -> bool:
            return (self.get("/overview") or {}).get("slots-available", 0) >= count

        wait_for(free, 240, f"{count} slots")

    def arguments(
        self, parallelism: int, worker: Path = WORKER, **environment: str
    ) -> tuple[str, ...]:
        """Beam options for a job whose workers the task managers start."""
        config = {"command": str(worker), "env": environment}
        return (
            "--runner=FlinkRunner",
            f"--flink_version={FLINK_VERSION}",
            f"--flink_master=localhost:{self.rest}",
            f"--job_endpoint=localhost:{self.jobs}",
            "--environment_type=PROCESS",
            f"--environment_config={json.dumps(config)}",
            f"--parallelism={parallelism}",
        )


def start_pool(processes: Processes) -> tuple[str, ...]:
    """Starts Beam's worker pool; options that use it."""
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    command = [sys.executable, "-m", module]
    command += [f"--service_port={port}", f"--container_executable={WORKER}"]
    processes.start("worker-pool", *command, PYTHONPATH=os.pathsep.join(sys.path))
    wait_for(lambda: listens(port), 240, "worker pool")
    return ("--environment_type=EXTERNAL", f"--environment_config=localhost:{port}")


def start_portable(processes: Processes) -> tuple[str, ...]:
    """Starts Beam's local job service and a worker pool; options that use them."""
    port = free_port()
    module = "apache_beam.runners.portability.local_job_service_main"
    processes.start("job-service", sys.executable, "-m", module, f"--port={port}")
    pool = start_pool(processes)
    wait_for(lambda: listens(port), 240, "job service")
    return ("--runner=PortableRunner", f"--job_endpoint=localhost:{port}", *pool)


def missing_tools() -> list[str]:
    """Programs and files that a cluster needs and that are not here."""
    return [
        *(name for name in ("java", "setpriv") if shutil.which(name) is None),
        *(str(path) for path in (FLINK_LIBRARIES, JOB_SERVER) if not path.exists()),
    ]
