"""Fixtures: curations with hostile records among real ones, and a service over them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import common
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from service.hostile import HOSTILE, NEAR

from shardwright.service.app import create_app
from shardwright.service.settings import Limits, Settings


def code_files(folder: Path) -> Path:
    """Real files, hostile ones, a copy of one, and one that is nearly another."""
    common.copy_sources(folder, 60)
    for name, text in HOSTILE.items():
        path = folder / name.replace("/", "\u2215")
        path.write_text(text)
    largest = max(
        folder.rglob("*.py"), key=lambda path: ("long" not in path.name, len(path.read_bytes()))
    )
    (folder / "near").mkdir()
    text = largest.read_text()
    (folder / NEAR).write_text(text + "\n\ndef added_at_the_end():\n    return None\n")
    shutil.copyfile(largest, folder / "near" / "same.py")
    return folder


@pytest.fixture(scope="session")
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    common.run(
        "code",
        code_files(folder / "in"),
        folder / "code",
        *("limits.max_bytes=5MB", "duplicates.normalise=[line_ends, comments]", "filters=[]"),
        *("clusters.k=6", "prune.scores=[scip, length]"),
    )
    return folder / "code"


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service-images")
    (folder / "in").mkdir()
    for path in sorted((common.PICTURES / "scikit_image").rglob("*.*"))[:30]:
        shutil.copyfile(path, folder / "in" / path.name)
    for path in sorted((folder / "in").glob("*.png"))[:2]:
        with Image.open(path) as image:
            image.convert("RGB").resize((200, 200)).save(path.with_name(f"copy-{path.stem}.jpg"))
    (folder / "in" / "<svg onload=alert(1)>.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    common.run("image", folder / "in", folder / "images", "clusters.k=4", "filters=[]")
    return folder / "images"


@pytest.fixture(scope="session")
def settings(code_folder: Path, image_folder: Path) -> Settings:
    limits = Limits(sql_seconds=60.0, requests_a_minute=0, upload_bytes=2_000_000)
    return Settings({"code": code_folder, "images": image_folder}, limits=limits)


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client
