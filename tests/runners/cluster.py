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
import yaml

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

# What docker-compose.yml's cluster is configured with.
CONFIGURATION = ROOT / "deploy" / "flink" / "config.yaml"


def job_manager(libraries: Path, jar: Path, configuration: Path) -> list[str]:
    """Command line of Flink's job manager; docker-compose.yml has the same, as of those below."""
    entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    return _flink(entry, libraries, jar, configuration)


def task_manager(libraries: Path, jar: Path, configuration: Path) -> list[str]:
    """Command line of a task manager."""
    entry = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
    return _flink(entry, libraries, jar, configuration)


def _flink(entry: str, libraries: Path, jar: Path, configuration: Path) -> list[str]:
    # Beam's classes beside Flink's own, so that they are loaded and compiled once, not by job.
    path = ["-cp", f"{libraries}/*:{jar}"]
    return [*JAVA, "-Xmx512m", *path, entry, "--configDir", str(configuration)]


def job_server(
    jar: Path, flink: str, host: str, port: int, staging: int, artifacts: Path
) -> list[str]:
    """Command line of Beam's job server.

    Args:
        jar: The server.
        flink: Host and port of the cluster.
        host: The server's own name, as drivers know it.
        port: Its port.
        staging: Its port for what drivers stage. One that it chose would be of loopback alone.
        artifacts: Folder for that.
    """
    return [
        *(*JAVA, "-Xmx512m", "-jar", str(jar), "--flink-master", flink),
        *("--job-host", host, "--job-port", str(port)),
        *("--artifact-port", str(staging), "--expansion-port", "0"),
        *("--artifacts-dir", str(artifacts)),
    ]


def worker_pool(python: Path, worker: Path, port: int) -> list[str]:
    """Command line of Beam's worker pool, which starts ``worker`` for each job."""
    module = "apache_beam.runners.worker.worker_pool_main"
    return [
        *(str(python), "-m", module, f"--service_port={port}"),
        f"--container_executable={worker}",
    ]


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
    settings: dict[str, Any]
    jobs: int
    task_managers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    task_manager_ports: list[int] = field(default_factory=list)

    @classmethod
    def start(cls, processes: Processes, attempts: int = 3) -> "Flink":
        """Starts them with two task managers and waits until they know each other.

        Args:
            processes: Where to start them.
            attempts: How often a job is tried again when it fails.
        """
        (processes.folder / "tmp").mkdir(parents=True)
        settings = yaml.safe_load(CONFIGURATION.read_text()) | {
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.bind-host": "localhost",
            "rest.address": "localhost",
            "rest.bind-address": "localhost",
            "rest.port": free_port(),
            "taskmanager.host": "localhost",
            "taskmanager.bind-host": "localhost",
            "taskmanager.numberOfTaskSlots": SLOTS,
            "restart-strategy.fixed-delay.attempts": attempts,
            "io.tmp.dirs": str(processes.folder / "tmp"),
        }
        self = cls(processes, settings, free_port())
        folder = self._configure("job-manager")
        processes.start("job-manager", *job_manager(FLINK_LIBRARIES, JOB_SERVER, folder))
        for _ in range(2):
            self.add_task_manager()
        self.start_job_server()
        wait_for(lambda: self.get("/overview"), 240, "job manager")
        self.wait_for_slots(2 * SLOTS)
        wait_for(lambda: listens(self.jobs), 240, "job server")
        return self

    @property
    def rest(self) -> int:
        """Port of the job manager's REST interface."""
        return int(self.settings["rest.port"])

    def _configure(self, name: str, **changes: Any) -> Path:
        folder = self.processes.folder / "configuration" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.settings | changes))
        return folder

    def add_task_manager(self) -> None:
        """Starts one more."""
        name = f"task-manager-{len(self.task_managers)}"
        self.task_manager_ports.append(free_port())
        folder = self._configure(name, **{"taskmanager.rpc.port": self.task_manager_ports[-1]})
        command = task_manager(FLINK_LIBRARIES, JOB_SERVER, folder)
        self.task_managers.append(self.processes.start(name, *command))

    def start_job_server(self) -> None:
        """Starts Beam's job server, which translates pipelines for the cluster."""
        artifacts = self.processes.folder / "artifacts"
        flink = f"localhost:{self.rest}"
        ports = (self.jobs, free_port())
        command = job_server(JOB_SERVER, flink, "localhost", *ports, artifacts)
        self.processes.start("job-server", *command)

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
    command = worker_pool(Path(sys.executable), WORKER, port)
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
