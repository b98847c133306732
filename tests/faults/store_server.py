"""An S3 server behind a network that fails, in a process of its own: what has threads cannot fork.

    python store_server.py FOLDER

Prints its address, then reads an order a line, and answers each with the number of requests that
met a fault so far. An order is JSON: ``share`` and ``faults`` of ``s3_server.Plan``, and
``upload``, a folder whose files are put below ``s3://bucket/source``.
"""

import json
import sys
from pathlib import Path

import boto3
from s3_server import Fault, credentials, faulty, s3_server


def serve(folder: Path) -> None:
    with s3_server(folder) as address, faulty(address) as proxy:
        print(proxy.url, flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            if order["upload"]:
                with credentials(address):
                    upload(Path(order["upload"]))
            with proxy.plan.guard:
                proxy.plan.share = order["share"]
                proxy.plan.faults = [Fault(**one) for one in order["faults"]]
            print(len(proxy.plan.done), flush=True)


def upload(folder: Path) -> None:
    client = boto3.client("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(path, "bucket", f"source/{path.relative_to(folder).as_posix()}")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
