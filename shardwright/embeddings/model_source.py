"""Where a model is: a folder, or a commit on the Hub.

A Hub model is pinned: whatever revision the recipe names (the default branch if none) is
resolved to a commit first, and that commit is loaded, named and fingerprinted. A folder is known
by its own name and the hash of its files, so it can lie anywhere.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError

from shardwright.errors import UserError

_KIND = "sentence-transformers"
_NAMING = ("modules.json", "router_config.json", "config.json")  # files that name classes


@dataclass(frozen=True)
class Source:
    """A model that is there.

    Attributes:
        location: Hub name or folder.
        label: what to call it: Hub name, or the folder's own name.
        revision: commit, or ``sha256-`` and the first 16 hex digits of ``weights``.
        weights: hex sha256 of the folder's files; none for a Hub model, whose commit says it all.
        license: as its model card says, if it does.
    """

    location: str
    label: str
    revision: str
    weights: str | None
    license: str | None


def resolve_source(model: str) -> Source:
    """Finds a model by ``NAME[@REVISION]`` on the Hub or in its local cache, or as a folder.

    Raises:
        UserError: it is not there.
    """
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        _refuse_code(folder)
        weights = _hash_folder(folder)
        return Source(
            location=str(folder),
            label=folder.resolve().name,
            revision=f"sha256-{weights[:16]}",
            weights=weights,
            license=_license(folder / "README.md"),
        )
    name, _, revision = model.partition("@")
    if name and Path(name).expanduser().is_dir():
        raise UserError(f"embedding.model {model}: {name} is a folder, leave out @{revision}")
    if model.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"embedding.model names the folder {model}: there is no such folder")
    hub = name if "/" in name else f"{_KIND}/{name}"
    snapshot = _resolve_commit(hub, revision or None)
    _refuse_code(snapshot)
    commit = snapshot.name
    try:
        license = _license(Path(hf_hub_download(hub, "README.md", revision=commit)))
    except (OSError, EntryNotFoundError):
        license = None
    return Source(location=hub, label=hub, revision=commit, weights=None, license=license)


def _resolve_commit(hub: str, revision: str | None) -> Path:
    """The folder, named by its commit, of a Hub model, from the Hub or from the local cache."""
    reason: Exception | None = None
    for file in ("modules.json", "config.json"):  # the second for plain transformers models
        try:
            return Path(hf_hub_download(hub, file, revision=revision)).parent
        except EntryNotFoundError as error:
            reason = error
        except (OSError, ValueError) as error:
            raise not_found(hub, revision, error) from error
    raise not_found(hub, revision, reason) from reason


def not_found(hub: str, revision: str | None, reason: Exception | None) -> UserError:
    """The error for a model that the Hub and the cache do not have, and why."""
    wanted = f"{hub}@{revision}" if revision else hub
    first_line = str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)
    return UserError(
        f"embedding.model {_KIND}:{wanted} is neither a folder, nor in the local cache, nor to be "
        f"had from the Hub ({first_line}): check the name and the revision, or download it where "
        f"there is a network with `hf download {hub}` and copy the folder here"
    )


def _refuse_code(folder: Path) -> None:
    """Refuses a model that names classes of its own: of a folder, their code would be run."""
    for path in sorted(folder.rglob("*.json")):
        for name in _classes(path) if path.name in _NAMING else ():
            if not name.startswith("sentence_transformers."):
                raise UserError(
                    f"embedding.model: {path.name} of {folder.name} names the class {name}, which "
                    "is none of sentence-transformers, and code of a model is not run: take a "
                    "model without code of its own, or add an encoder (docs/extending.md)"
                )


def _classes(path: Path) -> Iterator[str]:
    """Classes that a list of modules, or a router's table of them, names."""
    try:
        told = json.loads(path.read_bytes())
    except ValueError:  # the library says what is wrong with it
        return
    if isinstance(told, dict):
        types = told.get("types")
        yield from map(str, types.values() if isinstance(types, dict) else ())
    elif isinstance(told, list):
        yield from (str(one["type"]) for one in told if isinstance(one, dict) and "type" in one)


def _hash_folder(folder: Path) -> str:
    """Hex sha256 of a folder's files by relative path, but for hidden ones and Markdown."""
    digest = hashlib.sha256()
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    for name in names:
        if name.endswith(".md") or any(part.startswith(".") for part in name.split("/")):
            continue
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _license(readme: Path) -> str | None:
    """The licence in a model card's header, if there is one that can be read."""
    try:
        header = metadata_load(readme)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    license = (header or {}).get("license")
    return str(license) if license else None
