"""Collects real pictures: those inside packages of the package index that bring many.

``python tests/pictures.py FOLDER`` downloads the wheels with pip and unpacks their pictures: game
art of procgen and arcade, photographs and micrographs of scikit-image, some 2,000 files.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_PACKAGES = ("arcade==3.3.3", "procgen==0.10.7", "scikit-image==0.26.0")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp"}
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_24_x86_64")


def collect(folder: Path) -> int:
    """Fills ``folder`` with pictures, one folder a package, and returns how many there are."""
    count = 0
    with tempfile.TemporaryDirectory() as temporary:
        for package in _PACKAGES:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--only-binary=:all:", "--python-version", "3.10", "--dest", temporary]
            if package.startswith("scikit"):
                command[command.index("3.10")] = "3.12"
            for platform in _PLATFORMS:
                command += ["--platform", platform]
            subprocess.run([*command, package], check=True)
        staged = Path(temporary) / "pictures"
        for wheel in sorted(Path(temporary).glob("*.whl")):
            target = staged / wheel.name.split("-")[0]
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if Path(name).suffix.lower() in _SUFFIXES:
                        path = target / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(archive.read(name))
                        count += 1
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(staged, folder)
    return count


if __name__ == "__main__":
    print(f"{collect(Path(sys.argv[1]))} pictures in {sys.argv[1]}")
