"""Collects real photographs, and files with a real camera's EXIF, out of Debian packages.

``python tests/photographs.py FOLDER`` fetches packages with apt into a temporary folder (nothing is
installed, no root is needed, the machine's own lists stay as they are) and unpacks pictures only:

- ``FOLDER/photographs``: natural photographs, JPEG and PNG. Chosen by name after a look at each:
  the packages hold drawings and gradients too.
- ``FOLDER/cameras``: pictures that name a camera in their EXIF, 100 pixels or more a side. Most
  were made smaller after the camera wrote them; the EXIF is the camera's.
- ``FOLDER/headers``: the same, but cut off, tiny or with an EXIF block that Pillow cannot read:
  for reading EXIF, not for pixels.

Debian serves one version a release; where a release has gone, the next one is taken, and the files
that it lacks are named in the output.

Licences, as the packages give them. Photographs: budgie-backgrounds CC0; gnome-backgrounds CC
BY-SA 3.0, what it does not name GPL-2+; lomiri-wallpapers CC BY, BY-SA and CC0; lxqt-themes CC
BY-SA 3.0; mate-backgrounds, palapeli-data and plasma-workspace-wallpapers GPL-2+; ukui-wallpapers
CC BY-SA 3.0; gcompris-qt-data by file GPL-3+, CC BY, CC BY-SA, GFDL or public domain. Camera files
are test data under the licence of their source package: exiv2 GPL-2+; libextractor GPL-3+;
kphotoalbum's demonstration CC BY-SA 4.0; libimage-exiftool-perl as Perl; jhead public domain;
golang-github-rwcarlsen-goexif BSD; libmetadata-extractor-java Apache-2.0; php8.2 PHP-3.01; piexif
MIT; pillow HPND.
"""

import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

_RELEASES = ("bullseye", "bookworm", "trixie", "sid")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SMALLEST_SIDE = 100
_MAKE, _MODEL = 271, 272

# Package, first release tried, ending of each file's path: {} is a name of the list.
_PHOTOGRAPHS = (
    (
        "budgie-backgrounds",
        "trixie",
        "/budgie/{}.jpg",
        "abstract-spiral beacon-street-sunset blue-periwinkle canyon-wren casa-mila "
        "extreme-desert-hike high-trestle-trail lake-sherburne oakland-zoo-otters perched-osprey "
        "piazza-gae-aulenti roman-colosseum singaporean-cityscape tea-gardens",
    ),
    (
        "gnome-backgrounds",
        "bullseye",
        "/gnome/{}.jpg",
        "ColdWarm Dark_Ivy Icetwigs LightWaves Road SeaSunset",
    ),
    (
        "lomiri-wallpapers-16.04",
        "bookworm",
        "/backgrounds/{}.jpg",
        "Bridge_by_Sander_Klootwijk Dragonfly_by_Bolly Picture_0B_by_freespace "
        "Picture_1A_by_freespace Wine_by_Jakkub_Mede aitzgorri_by_Aitzol_Berasategi "
        "free_by_Peter_Nerlich friends_by_Aitzol_Berasategi greentock_by_Peter_Nerlich "
        "life_by_Aitzol_Berasategi picosdeeuropa_by_Aitzol_Berasategi "
        "seeding_by_Clements_Engelhardt sunset_by_Aitzol_Berasategi",
    ),
    ("lomiri-wallpapers-20.04", "bookworm", "/backgrounds/{}.jpg", "Kleiber_by_Lukas_Baubkus"),
    (
        "lxqt-themes",
        "trixie",
        "/wallpapers/{}.jpg",
        "Butterfly-Kenneth-Wimer after-the-rain fog this-is-not-windows",
    ),
    (
        "lxqt-themes",
        "trixie",
        "/wallpapers/{}.png",
        "Valendas appleflower beam butterfly cloud drop flowers",
    ),
    (
        "mate-backgrounds",
        "bookworm",
        "/nature/{}.jpg",
        "Aqua Blinds Dune FreshFlower Garden GreenMeadow LadyBird RainDrops Storm TwoWings Wood "
        "YellowFlower",
    ),
    (
        "palapeli-data",
        "bookworm",
        "/collection/{}.jpg",
        "cincinnati-bridge citrus-fruits european-honey-bee panther-chameleon-female",
    ),
    (
        "plasma-workspace-wallpapers",
        "bullseye",
        "/{}/contents/images/2560x1600.jpg",
        "BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite "
        "OneStandsOut Path summer_1am",
    ),
    (
        "ukui-wallpapers",
        "sid",
        "/backgrounds/{}.jpg",
        "bluebird bridgecity bridgecity2 flamingos horse house look mountain-range mountain "
        "mountain2 sea sky snowy-mountains still-life sunf",
    ),
    (
        "gcompris-qt-data",
        "bullseye",
        "/erase/resource/{}.jpg",
        "Adelie_Penguin Adelie_Penguin2 Asian_Elephant_and_Baby Helioconius_sp_Richard_Bartz "
        "Pteroglossus-torquatus-001 Spider_vdg White_shark bear001 black-headed-gull butterfly "
        "cape_petrel cat1 cat2 cow donkey earless_seal earless_seal2 elephanteauxgc "
        "emperor_penguin flamentrosegc fulmar_antarctic gazelle girafegc golden_toad horses "
        "horses2 hypogc joybear002 jumentmulassieregc maki1 maki2 maki3 maki4 maki5 maki6 "
        "malaybear002 papilio_demodocus polabear011 polarbear001 poolbears001 rhinogc sheep_irish "
        "sheep_irish2 singegc skua snow_petrels spectbear001 squirrel tetegorillegc "
        "tiger1_by_Ralf_Schmode tigercub003 tigerdrink001 tigerplay001",
    ),
    (
        "gcompris-qt-data",
        "bullseye",
        "/explore_world_animals/resource/animals/{}.jpg",
        "chameleon crocodile dragon kangaroo koala lemur moose polar_bear scarlet_macaw",
    ),
    ("gcompris-qt-data", "bullseye", "/images/monuments/{}.jpg", "empireState"),
)

# Source packages, with the folder inside that holds photographs ("" for all of it).
_CAMERAS = {
    "exiv2": "/test/data/",
    "golang-github-rwcarlsen-goexif": "",
    "jhead": "",
    "kphotoalbum": "",
    "libextractor": "/testdata/",
    "libimage-exiftool-perl": "/t/images/",
    "libmetadata-extractor-java": "/Tests/",
    "php8.2": "/ext/exif/tests/",
    "piexif": "/tests/",
    "pillow": "/Tests/images/",
}


class Packages:
    """Debian's packages of several releases, fetched with apt under a folder of their own."""

    def __init__(self, folder: Path) -> None:
        """Reads the releases' lists from the mirror that this machine's apt uses."""
        self._folder = folder
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        targets = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
        listed = subprocess.run(targets, check=True, capture_output=True, text=True).stdout
        mirror = next(uri for uri in listed.split() if "security" not in uri)
        sources = [
            f"{kind} [signed-by={_KEYRING}] {mirror} {release} main"
            for release in _RELEASES
            for kind in ("deb", "deb-src")
        ]
        (folder / "sources.list").write_text("\n".join(sources) + "\n")
        settings = {
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        (folder / "apt.conf").write_text("".join(f'{k} "{v}";\n' for k, v in settings.items()))
        self._apt("update")  # a release that has gone fails alone

    def _apt(self, *arguments: str) -> None:
        environment = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf")}
        subprocess.run(
            ["apt-get", "--quiet", *arguments],
            cwd=self._folder,
            env=environment,
            check=False,
            capture_output=True,
        )

    def binary(self, name: str, first: str) -> Iterator[tuple[str, bytes]]:
        """Yields path and bytes of a package's files, Qt resource files opened."""
        for release in _RELEASES[_RELEASES.index(first) :]:
            self._apt("download", f"{name}/{release}")
            for package in self._folder.glob(f"{name}_*.deb"):
                data = subprocess.run(
                    ["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True
                ).stdout
                package.unlink()
                for path, content in unpacked(io.BytesIO(data)):
                    if path.endswith(".rcc"):
                        yield from resources(content)
                    else:
                        yield path, content
                return
        raise FileNotFoundError(f"no release has the package {name}")

    def source(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Yields path and bytes of the files of a source package's own archive."""
        for release in _RELEASES[1:]:
            self._apt("source", "--download-only", f"{name}/{release}")
            for archive in self._folder.glob(f"{name}_*.orig.tar.?z*"):
                if archive.suffix != ".asc":
                    yield from unpacked(io.BytesIO(archive.read_bytes()))
                    return
        raise FileNotFoundError(f"no release has the source package {name}")


def unpacked(archive: io.BytesIO) -> Iterator[tuple[str, bytes]]:
    """Yields path and bytes of the regular files of a tar archive, compressed or not."""
    with tarfile.open(fileobj=archive) as members:
        for member in members:
            content = members.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, content.read()


def resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields path and bytes of the files of a Qt binary resource file.

    The layout is that of Qt's ``rcc``: a tree of nodes (14 bytes each, 22 since version 2, which
    added a time), names in UTF-16, contents behind their length.

    Raises:
        ValueError: the data are no resource file, or pack a file with zstd.
    """
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres":
        raise ValueError("not a Qt resource file")
    width = 14 if version == 1 else 22
    waiting = [(0, "")]
    while waiting:
        node, path = waiting.pop()
        at = tree + node * width
        start, flags = struct.unpack_from(">IH", data, at)
        if node:
            (length,) = struct.unpack_from(">H", data, names + start)
            text = data[names + start + 6 : names + start + 6 + 2 * length]
            path = f"{path}/{text.decode('utf-16-be')}"
        if flags & 2:
            count, child = struct.unpack_from(">2I", data, at + 6)
            waiting += [(i, path) for i in range(child, child + count)]
            continue
        if flags & 4:
            raise ValueError(f"{path} is packed with zstd")
        (start,) = struct.unpack_from(">I", data, at + 10)
        (size,) = struct.unpack_from(">I", data, contents + start)
        content = data[contents + start + 4 : contents + start + 4 + size]
        yield path, zlib.decompress(content[4:]) if flags & 1 else content


def camera_kind(data: bytes) -> str:
    """Says where a file belongs: "cameras", "headers" or, where no camera is named, "".

    A file whose EXIF block cannot be read at all counts as a header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                exif = image.getexif()
                if not (exif.get(_MAKE) and exif.get(_MODEL)):
                    return ""
                if min(image.size) < _SMALLEST_SIDE:
                    return "headers"
                image.load()
    except (OSError, SyntaxError, ValueError):  # broken on purpose: test data
        return "headers" if b"Exif\0\0" in data[:64] else ""
    return "cameras"


def photographs(packages: Packages, folder: Path) -> list[str]:
    """Fills ``folder`` with the photographs and returns the names of those not found."""
    missing = []
    for name, first in dict.fromkeys((name, first) for name, first, _, _ in _PHOTOGRAPHS):
        wanted = [
            pattern.format(word)
            for package, _, pattern, words in _PHOTOGRAPHS
            if package == name
            for word in words.split()
        ]
        for path, data in packages.binary(name, first):
            ending = next((ending for ending in wanted if path.endswith(ending)), None)
            if ending is not None:
                wanted.remove(ending)
                # plasma's files are all named by their size: the name is two folders further up
                short = ending.removesuffix("/contents/images/2560x1600.jpg")
                target = folder / name / (Path(short).stem + Path(ending).suffix)
                target = target if not target.exists() else target.with_stem(target.stem + "-2")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        missing += [f"{name}{ending}" for ending in wanted]
    return missing


def cameras(packages: Packages, folder: Path) -> None:
    """Fills ``folder``/cameras and ``folder``/headers, one folder a source package."""
    for name, within in _CAMERAS.items():
        for path, data in packages.source(name):
            if Path(path).suffix.lower() in (".jpg", ".jpeg") and within in path:
                kind = camera_kind(data)
                if kind:
                    target = folder / kind / name / path.split("/", 1)[1]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)


def collect(folder: Path) -> list[str]:
    """Fills ``folder`` and returns the names of the photographs that the packages lack."""
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "staged"
        (Path(temporary) / "apt").mkdir()
        packages = Packages(Path(temporary) / "apt")
        missing = photographs(packages, staged / "photographs")
        cameras(packages, staged)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(staged, folder)
    return missing


if __name__ == "__main__":
    target_folder = Path(sys.argv[1])
    for name in collect(target_folder):
        print(f"not in its package: {name}")
    for kind_folder in sorted(target_folder.iterdir()):
        count = sum(1 for path in kind_folder.rglob("*") if path.is_file())
        print(f"{count} files in {kind_folder}")
