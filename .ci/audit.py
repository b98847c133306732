"""Holds pinned requirements against the advisories of PyPI, or of OSV where those are out of reach.

``python .ci/audit.py PIP_AUDIT FILE...``. Says what was audited, and ends with status 1 where an
advisory names a version that is pinned. Without a database it says that nothing was audited, and
does not fail: a machine without a network is no fault of the requirements.
"""

import json
import subprocess
import sys
from typing import Any

_SERVICES = ("pypi", "osv")


def audit(program: str, file: str) -> list[dict[str, Any]] | None:
    """The requirements of a file that a database has answered for, or None if none answers.

    pip-audit takes an index without advisories for one that does not know the packages, and finds
    nothing wrong with what it has skipped.
    """
    for service in _SERVICES:
        command = [program, "--requirement", file, "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", service, "--format", "json"]
        command += ["--progress-spinner", "off", "--timeout", "20"]
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            found = json.loads(done.stdout)["dependencies"]
        except (ValueError, KeyError):
            continue
        audited = [one for one in found if "skip_reason" not in one]
        if audited:
            print(f"{file}: {len(audited)} of {len(found)} requirements audited by {service}")
            return audited
    return None


def main() -> None:
    """The command line."""
    program, *files = sys.argv[1:]
    wrong = 0
    for file in files:
        audited = audit(program, file)
        if audited is None:
            names = " and ".join(_SERVICES)
            print(f"{file}: NOT AUDITED: no advisory database answers from here ({names})")
            continue
        for one in audited:
            for advisory in one["vulns"]:
                fixed = ", ".join(advisory["fix_versions"]) or "no version"
                print(f"{one['name']} {one['version']}: {advisory['id']}, mended in {fixed}")
                wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
