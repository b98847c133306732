"""What ``tests/photographs.py`` reads: Qt resource files, and whether EXIF names a camera."""

import importlib.util
import io
import struct
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FILES = {"/a/one.jpg": b"first", "/a/b/two.jpg": b"second" * 50, "/three.txt": b""}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[1] / "photographs.py"
    spec = importlib.util.spec_from_file_location("photographs_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resource_file(files: dict[str, bytes], version: int) -> bytes:
    """Writes a resource file; those longer than 100 bytes compressed, as ``rcc`` writes them."""
    names, contents, nodes = b"", b"", []
    folders = {"": {}}
    for path, data in files.items():
        *parents, name = path.strip("/").split("/")
        at = folders[""]
        for parent in parents:
            at = at.setdefault(parent, {})
        at[name] = data
    waiting = [("", folders[""])]
    children = 1
    for name, entry in waiting:
        start = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if isinstance(entry, dict):
            node = struct.pack(">IHII", start, 2, len(entry), children)
            children += len(entry)
            waiting.extend(entry.items())
        else:
            packed = len(entry) > 100
            stored = struct.pack(">I", len(entry)) + zlib.compress(entry) if packed else entry
            node = struct.pack(">IHHHI", start, int(packed), 0, 0, len(contents))
            contents += struct.pack(">I", len(stored)) + stored
        nodes.append(node + bytes(8 if version > 1 else 0))
    header = 20 if version < 3 else 24
    tree = header + len(contents) + len(names)
    head = struct.pack(">4s4I", b"qres", version, tree, header, header + len(contents))
    return head.ljust(header, b"\0") + contents + names + b"".join(nodes)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_resources_come_back(script: ModuleType, version: int) -> None:
    assert dict(script.resources(resource_file(FILES, version))) == FILES


def test_other_files_are_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="not a Qt resource file"):
        list(script.resources(b"RIFF" + resource_file(FILES, 2)[4:]))


def picture(side: int, **tags: str) -> bytes:
    """A JPEG of noise, with make and model in its EXIF where given."""
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    exif = Image.Exif()
    for name, value in tags.items():
        exif[{"make": 271, "model": 272}[name]] = value
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_camera_kind(script: ModuleType) -> None:
    whole = picture(120, make="Canon", model="EOS")
    assert script.camera_kind(whole) == "cameras"
    assert script.camera_kind(picture(99, make="Canon", model="EOS")) == "headers"
    assert script.camera_kind(whole[: len(whole) // 2]) == "headers"
    assert script.camera_kind(picture(120)) == ""
    assert script.camera_kind(picture(120, make="Canon")) == ""
    assert script.camera_kind(picture(120)[:900]) == ""
    assert script.camera_kind(b"no picture") == ""


def test_every_photograph_is_named_once(script: ModuleType) -> None:
    names = [
        name + pattern.format(word)
        for name, _, pattern, words in script._PHOTOGRAPHS
        for word in words.split()
    ]
    assert len(names) == len(set(names)) >= 150
