"""``shardwright-worker``: the program that a cluster starts to run a job's work.

Beam calls such a program ``boot``. It is named as the command of ``--environment_type=PROCESS``, or
to Beam's worker pool (``--container_executable``), and started with the contract of Beam's SDK
containers: an id and the address of the provision service, which tells the rest. Nothing is staged:
Shardwright is installed where the program runs.
"""

import argparse
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence

import grpc
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.portability.api import beam_provision_api_pb2_grpc as provision_grpc
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

_PATIENCE = 60  # seconds for the provision service to answer


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a worker until the runner lets go of it."""
    parser = argparse.ArgumentParser(prog="shardwright-worker", description=__doc__)
    parser.add_argument("--id", required=True, help="the worker's name")
    parser.add_argument("--provision_endpoint", required=True, help="host:port, told by the runner")
    known, _ = parser.parse_known_args(arguments)
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    os.environ.update(worker_environment(known.id, known.provision_endpoint))
    status = 1
    try:
        sdk_worker_main.main([])
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        # A bundle whose runner is gone would go on in a thread that keeps the process alive.
        os._exit(status)


def worker_environment(worker: str, endpoint: str) -> dict[str, str]:
    """The variables that Beam's worker reads, asked of the provision service.

    Args:
        worker: The worker's id.
        endpoint: ``host:port`` of the service.
    """
    with grpc.insecure_channel(endpoint) as channel:
        asked = provision_grpc.ProvisionServiceStub(channel).GetProvisionInfo(
            provision.GetProvisionInfoRequest(),
            metadata=[("worker_id", worker)],
            timeout=_PATIENCE,
            wait_for_ready=True,
        )
    info = asked.info
    return {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "CONTROL_API_SERVICE_DESCRIPTOR": _as_text(info.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": _as_text(info.logging_endpoint),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


def _as_text(service: endpoints_pb2.ApiServiceDescriptor) -> str:
    return str(text_format.MessageToString(service))


def _die_with_parent(parent: int) -> None:
    """Kills this process once the one that started it is gone: a task manager killed, say."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
