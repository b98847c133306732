"""docker-compose.yml and Dockerfile: what they start is what other tests start and check.

There is no container engine where these tests run. The suites of Flink, of the stores and of
Airflow start these command lines as plain processes, with the health checks of this file.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import airflow_services
import cluster
import compose
import pytest
import s3_server
import yaml
from compose import ROOT, VARIABLE, command
from service.command import command as service_command

DOCUMENT = compose.document()
SERVICES = compose.services()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ONCE = {"shardwright", "airflow-migration"}
each = pytest.mark.parametrize("name", sorted(SERVICES))
staying = pytest.mark.parametrize("name", sorted(set(SERVICES) - ONCE))


def test_schema_of_the_compose_specification() -> None:
    file = ROOT / "docker-compose.yml"
    program = BIN / "check-jsonschema"
    subprocess.run([program, "--builtin-schema", "vendor.compose-spec", file], check=True)


def test_dockerfile_is_linted() -> None:
    subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], check=True)


FLINK = Path("/opt/flink")
FLINK_PARTS = (FLINK / "lib", FLINK / "job-server.jar", FLINK / "conf")
SHARDWRIGHT = Path("/opt/shardwright/bin")
POOL = cluster.worker_pool(SHARDWRIGHT / "python", SHARDWRIGHT / "shardwright-worker", 15000)
COMMANDS = {
    "job-manager": cluster.job_manager(*FLINK_PARTS),
    "task-manager-1": cluster.task_manager(*FLINK_PARTS),
    "task-manager-2": cluster.task_manager(*FLINK_PARTS),
    "job-server": cluster.job_server(
        *(FLINK_PARTS[1], "job-manager:8081", "job-server", 8099, 8098),
        Path("/var/lib/flink/artifacts"),
    ),
    "workers-1": POOL,
    "workers-2": POOL,
    "service": service_command(
        ["shardwright"], ["${SHARDWRIGHT_SERVED:-/curations/code}"], "0.0.0.0", 8000
    ),
    "store": s3_server.gateway(Path("versitygw"), ":7070", Path("/store")),
    "airflow-migration": airflow_services.migration("airflow"),
    "airflow-api": airflow_services.api("airflow", "0.0.0.0", 8080),
    "airflow-dag-processor": airflow_services.dag_processor("airflow"),
    "airflow-scheduler": airflow_services.scheduler("airflow"),
}


def test_commands_are_those_that_the_tests_start() -> None:
    own = {name: command(service) for name, service in SERVICES.items() if "build" in service}
    assert own.pop("shardwright")[0] in PROJECT["scripts"]
    assert own == COMMANDS
    assert set(SERVICES) - set(own) == {"shardwright", "airflow-database"}
    assert "command" not in SERVICES["airflow-database"]  # the image's own


def test_versions_are_those_of_the_tests() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (flink,) = re.findall(r"^FLINK := (\S+)$", makefile, re.MULTILINE)
    assert f"apache-flink-libraries=={flink} " in DOCKERFILE
    assert f"apache-flink-libraries-{flink}.tar.gz" in DOCKERFILE
    assert flink.startswith(f"{cluster.FLINK_VERSION}.")
    (program,) = re.findall(r"go install (\S+@v[\d.]+)", makefile)
    assert f"go install {program}\n" in DOCKERFILE
    for folder in re.findall(r"--wildcards '([^']+)' '([^']+)'", DOCKERFILE):
        assert all(pattern in makefile for pattern in folder)
    jar = cluster.JOB_SERVER.name
    assert f"COPY --from=job-server /build/jar/{jar} {FLINK_PARTS[1]}\n" in DOCKERFILE


def test_flink_listens_where_the_others_ask() -> None:
    settings = yaml.safe_load(cluster.CONFIGURATION.read_text())
    assert settings["jobmanager.rpc.address"] == settings["rest.address"] == "job-manager"
    assert settings["io.tmp.dirs"] == "/var/lib/flink"
    for key in ("jobmanager.bind-host", "rest.bind-address", "taskmanager.bind-host"):
        assert settings[key] == "0.0.0.0"
    ports = {"job-manager": "rest.port", "task-manager-1": "taskmanager.rpc.port"}
    for name, key in ports.items():
        assert f"127.0.0.1/{settings[key]} " in " ".join([*healthcheck(name)["test"], ""])
    assert "COPY deploy/flink /opt/flink/conf\n" in DOCKERFILE


@pytest.mark.parametrize("number", ["1", "2"])
def test_task_manager_shares_the_network_of_its_workers(number: str) -> None:
    manager, workers = SERVICES[f"task-manager-{number}"], SERVICES[f"workers-{number}"]
    assert manager["network_mode"] == f"service:workers-{number}"
    assert "ports" not in manager
    assert f"workers-{number}" in manager["depends_on"]
    assert workers == SERVICES["workers-1"]
    assert manager["healthcheck"] == SERVICES["task-manager-1"]["healthcheck"]


def healthcheck(name: str) -> dict[str, Any]:
    found: dict[str, Any] = SERVICES[name]["healthcheck"]
    return found


# What each image has: Temurin's on Ubuntu, Debian's Python, Alpine, Debian's PostgreSQL.
TOOLS = {
    "flink": {"bash"},
    "shardwright": {"python"},
    "airflow": {"python", "airflow"},
    "store": {"wget"},
    None: {"pg_isready"},
}


@staying
def test_services_that_stay_have_a_health_check(name: str) -> None:
    check = healthcheck(name)
    target = SERVICES[name].get("build", {}).get("target")
    assert check["test"][0] == "CMD"
    assert check["test"][1] in TOOLS[target]
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_what_runs_once_is_not_started_again() -> None:
    for name in ONCE:
        assert healthcheck(name) == {"disable": True}
        assert SERVICES[name]["restart"] == "no"


@each
def test_services_wait_until_others_are_healthy(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        once = other in ONCE
        wanted = "service_completed_successfully" if once else "service_healthy"
        assert how["condition"] == wanted, other


@each
def test_services_may_do_little(name: str) -> None:
    service = SERVICES[name]
    user, _, group = service["user"].partition(":")
    assert int(user) >= 999
    assert int(group) >= 999
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert any(place.startswith("/tmp:") for place in service["tmpfs"])


@each
def test_ports_are_of_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        address, outer, inner = port.split(":")
        assert address == "127.0.0.1"
        assert outer == inner
        assert inner in " ".join([*command(SERVICES[name]), *healthcheck(name)["test"]])


def named_volumes(name: str) -> dict[str, str]:
    return dict(
        volume.split(":") for volume in SERVICES[name].get("volumes", ()) if isinstance(volume, str)
    )


def test_volumes_are_named_and_used() -> None:
    used = {volume for name in SERVICES for volume in named_volumes(name)}
    assert used == set(DOCUMENT["volumes"])
    made = set(re.findall(r"(?<= )(/\w[\w/]*)", " ".join(re.findall(r"install .*", DOCKERFILE))))
    for name in set(SERVICES) - {"airflow-database"}:
        assert set(named_volumes(name).values()) <= made  # they take their owner from the image


def test_all_who_curate_see_the_same_folders() -> None:
    def folders(name: str) -> set[tuple[str, str]]:
        volumes = SERVICES[name]["volumes"]
        bound = {(one["source"], one["target"]) for one in volumes if not isinstance(one, str)}
        assert all(one["read_only"] for one in volumes if not isinstance(one, str))
        return bound | set(named_volumes(name).items()) - {("airflow", "/var/lib/airflow")}

    wanted = folders("workers-1")
    assert {target for _, target in wanted} == {"/curations", "/data", "/recipes"}
    for name in ("workers-2", "shardwright", "airflow-scheduler"):
        assert folders(name) == wanted
        assert SERVICES[name]["environment"].items() >= SERVICES["workers-1"]["environment"].items()


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def test_variables_are_those_of_the_example() -> None:
    used = [match for text in strings(DOCUMENT) for match in VARIABLE.findall(text)]
    example = (ROOT / ".env.example").read_text().splitlines()
    assert {name for name, _, _ in used} == {line[:-1] for line in example if line[:1] not in "#"}
    assert all(line.startswith("#") or re.fullmatch(r"[A-Z_]+=|", line) for line in example)
    assert all(kind in "?-" and kind for _, kind, _ in used)
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


@each
def test_secrets_are_required_and_not_in_the_file(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search("KEY|SECRET|PASSWORD|TOKEN|SQL_ALCHEMY_CONN", key):
            assert ":?" in value
            assert re.search(r"(KEY|SECRET|PASSWORD|TOKEN):\?", value)


def test_images_are_pinned() -> None:
    names = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert len(names) == len(re.findall("^FROM", DOCKERFILE, re.MULTILINE))
    stages = {stage for _, stage in names}
    foreign = {image for image, _ in names} - stages
    foreign |= {one["image"] for one in SERVICES.values() if "build" not in one}
    for image in foreign:
        assert re.fullmatch(r"[\w-]+:\d+\.\d+(\.\d+)?[\w.-]*", image), image
        assert re.search(r":\d+\.\d+\.\d+|postgres:\d+\.\d+-", image), image
    for service in SERVICES.values():
        if "build" in service:
            target = service["build"]["target"]
            assert target in stages
            suffix = "" if target == "shardwright" else f"-{target}"
            assert service["image"] == f"shardwright{suffix}:{PROJECT['version']}"


def stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE)
    parts = re.split(r"^FROM \S+ AS (\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_images_run_without_root() -> None:
    targets = {one["build"]["target"] for one in SERVICES.values() if "build" in one}
    for target in targets:
        users = re.findall(r"^USER (\S+)$", stages()[target], re.MULTILINE)
        assert users[-1] == "10001:10001"


def test_packages_are_those_of_the_constraints() -> None:
    installs = [
        words
        for text in stages().values()
        for line in text.splitlines()
        for words in line.split("&&")
        if "pip install" in words
    ]
    assert len(installs) == 3
    for words in installs:
        assert re.search(r"--constraint constraints(-airflow)?\.txt", words)
    extras = re.search(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    assert extras
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    pinned = (ROOT / "constraints-airflow.txt").read_text()
    for package in ("asyncpg", "psycopg2-binary", "apache-airflow"):
        assert re.search(rf"^{package}==", pinned, re.MULTILINE)
    assert {"shardwright", "shardwright-worker"} == set(PROJECT["scripts"])


def test_what_is_copied_is_in_the_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for words in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in words.split()[:-1]:
            assert (ROOT / source).exists()
            assert any(source == one or source.startswith(f"{one}/") for one in kept), source


PAGE = (ROOT / "docs" / "deploy.md").read_text()


def test_page_names_what_there_is() -> None:
    shown = " ".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    lines = [words.split() for words in re.findall(r"docker compose ([^\n]*)", shown)]
    assert len(lines) > 5
    for words in lines:
        if words[0] in ("exec", "run", "restart", "logs"):
            named = [word for word in words[1:] if not word.startswith("-")]
            assert named[0] in SERVICES, words
    options = dict(re.findall(r"--(\w+)=(\S+)", shown))
    assert options["flink_master"] == "job-manager:8081"
    assert options["job_endpoint"] == "job-server:8099"
    assert options["environment_config"] == "localhost:15000"
    assert options["flink_version"] == cluster.FLINK_VERSION


def test_page_adds_a_task_manager_as_the_file_has_them() -> None:
    (added,) = re.findall(r"```yaml file=docker-compose.override.yml\n(.*?)```", PAGE, re.DOTALL)
    more = yaml.safe_load(added)["services"]
    assert set(more) == {"workers-3", "task-manager-3"}
    for kind, service in (("workers", more["workers-3"]), ("task", more["task-manager-3"])):
        name = "workers-1" if kind == "workers" else "task-manager-1"
        assert service.pop("extends") == {"file": "docker-compose.yml", "service": name}
    assert more["workers-3"] == {}
    assert more["task-manager-3"]["network_mode"] == "service:workers-3"
    assert set(more["task-manager-3"]["depends_on"]) >= {"workers-3"}
