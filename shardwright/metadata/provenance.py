"""Lineage in W3C PROV: what each stage did, with what, and where the inputs came from."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import shardwright
from shardwright.errors import DataError
from shardwright.metadata.credentials import without_credentials
from shardwright.metadata.filelist import FileList, read_file_list
from shardwright.metadata.files import canonical_json
from shardwright.metadata.layout import STAGES, Layout
from shardwright.metadata.manifest import Origin
from shardwright.metadata.vocabulary import bare

Node = dict[str, Any]

SOURCE_CROISSANT = "source_croissant.json"
"""The Croissant that was ingested, as it came, with the address that it was read from."""

LOCATION = "shardwright:location"
"""Key of that address in it."""

# What is said of the dataset that the inputs came from, in its own words.
_CARRIED = ("name", "description", "url", "version", "license", "citeAs", "creator", "publisher")
# What is said of the steps that made it.
_TOLD = ("@id", "@type", "sha256", *_CARRIED)


def source(layout: Layout, recipe: Mapping[str, Any]) -> Node:
    """Where the inputs came from: an entity with the source's stable name.

    An address with a scheme is told, without credentials; a local path is not. Of a source that is
    a Croissant, licence, citation, creators and the lineage that it tells are carried over:
    ``license`` as a text or a named ``sc:CreativeWork``, or a list of these; ``citeAs`` as a text;
    ``creator`` and ``publisher`` as lists of persons and organizations with name and ``@id``. That
    is what mlcroissant takes of a dataset.

    Raises:
        DataError: ``source_croissant.json`` is damaged.
    """
    stated = recipe["source"]
    name = str(stated.get("name") or recipe["name"])
    entity = {"@id": f"source/{quote(name, safe='')}", "@type": "prov:Entity", "name": name}
    given = _source_croissant(layout) if stated.get("kind") == "croissant" else {}
    uri = str(given.get(LOCATION) or stated["uri"])
    if "://" in uri and not uri.startswith("file://"):
        entity["prov:atLocation"] = without_credentials(uri)
    return entity | _carried(given, f"{entity['@id']}/")


def _source_croissant(layout: Layout) -> Node:
    path = layout.root / SOURCE_CROISSANT
    try:
        given = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); run stage 'ingest' again") from None
    if not isinstance(given, dict):
        raise DataError(f"{path}: damaged (no JSON object); run stage 'ingest' again")
    return given


def _carried(given: Mapping[str, Any], prefix: str) -> Node:
    """What a Croissant says of its dataset, and the lineage in it, under ids of their own."""
    said = {bare(name): value for name, value in given.items()}
    carried = {name: _renamed(said[name], prefix) for name in _CARRIED if said.get(name)}
    for name in ("creator", "publisher"):
        if name in carried:
            carried[name] = [
                _agent(one, f"{prefix}{name}/") for one in _listed(carried[name]) if _name(one)
            ]
    if "license" in carried:
        terms = [_terms(one, f"{prefix}license/") for one in _listed(carried["license"])]
        carried["license"] = terms[0] if len(terms) == 1 else terms
    if "citeAs" in carried:
        carried["citeAs"] = "; ".join(map(_name, _listed(carried["citeAs"])))
    for name in ("prov:wasDerivedFrom", "prov:wasGeneratedBy"):
        if given.get(name):
            carried[name] = _renamed(given[name], prefix)
    return {name: value for name, value in carried.items() if value}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name(value: Any) -> str:
    """The name of a node, or else its address; of what is no node the text of it."""
    if not isinstance(value, Mapping):
        return str(value)
    return str(next((value[key] for key in ("name", "url", "@value", "@id") if value.get(key)), ""))


def _agent(value: Any, prefix: str) -> Node:
    """A person or organization; who states neither is an organization."""
    kinds = _listed(value.get("@type")) if isinstance(value, Mapping) else []
    kind = "sc:Person" if any(bare(str(one)) == "Person" for one in kinds) else "sc:Organization"
    return _named(value, kind, prefix)


def _terms(value: Any, prefix: str) -> str | Node:
    """A licence by its address or in a word, or as a work that has a name."""
    if isinstance(value, Mapping) and value.get("name"):
        return _named(value, "sc:CreativeWork", prefix)
    return _name(value)


def _named(value: Any, kind: str, prefix: str) -> Node:
    """A node of one type with a name; its own ``@id`` stays if it has one that lasts."""
    given = value if isinstance(value, Mapping) else {}
    name, identity = _name(value), str(given.get("@id") or "_:")
    own = identity if not identity.startswith("_:") else prefix + quote(name, safe="")
    node = {"@type": kind, "@id": own, "name": name}
    return node | ({"url": _name(given["url"])} if given.get("url") else {})


def _renamed(value: Any, prefix: str) -> Any:
    """A value of JSON-LD with its relative ids below ``prefix``, and only what is known of nodes.

    The ids of two curations are the same (``activity/ingest``), and nodes of one id are one node.
    """
    if isinstance(value, list):
        return [_renamed(one, prefix) for one in value]
    if not isinstance(value, Mapping):
        return value
    if not any(name[:1] == "@" or ":" in name or name in _TOLD for name in value):
        return next((text for text in value.values() if isinstance(text, str)), "")  # by language
    node = {
        name: _renamed(one, prefix)
        for name, one in ((bare(term), one) for term, one in value.items())
        if name in (*_TOLD, "@value", "@language") or name.startswith(("prov:", "shardwright:"))
    }
    given = node.get("@id")
    if isinstance(given, str) and not given.startswith("_:") and ":" not in given.split("/")[0]:
        node["@id"] = prefix + given
    return node


def origins(layout: Layout) -> dict[str, list[tuple[Origin, str, str]]]:
    """(origin, output, its hash) of everything that each stage wrote, stages in order."""
    made: dict[str, list[tuple[Origin, str, str]]] = {}
    for manifest in layout.manifests():
        made.setdefault(manifest.origin.stage, []).append(
            (manifest.origin, manifest.table, manifest.content_sha256)
        )
    for name, folder in layout.folders.items():
        listed = read_file_list(folder)
        if listed is not None:
            made.setdefault(listed.origin.stage, []).append(
                (listed.origin, f"{name} files", _content(listed))
            )
    return dict(sorted(made.items(), key=_stage_order))


def read_elsewhere(made: Iterable[tuple[Origin, str]]) -> list[tuple[str, str]]:
    """(table, its hash) of all that a stage read and did not write itself, in order.

    Args:
        made: (origin, output) of everything that the stage wrote.
    """
    written = list(made)
    own = {name for _, name in written}
    read = {table for origin, _ in written for table in origin.inputs.items()}
    return sorted((table, sha256) for table, sha256 in read if table not in own)


def activities(layout: Layout, given: Node) -> Iterator[Node]:
    """Yields a PROV activity per stage, in the order in which they ran.

    Args:
        layout: The output folder.
        given: What ``source`` gave: what the first stage read.
    """
    agent = {
        "@id": f"software/shardwright-{shardwright.__version__}",
        "@type": "prov:SoftwareAgent",
        "name": f"shardwright {shardwright.__version__}",
    }
    for place, (stage, outputs) in enumerate(origins(layout).items()):
        read = read_elsewhere((origin, name) for origin, name, _ in outputs)
        entities = [_entity(table, sha256) for table, sha256 in read]
        yield {
            "@id": f"activity/{stage}",
            "@type": "prov:Activity",
            "name": stage,
            "prov:startedAtTime": time_text(min(origin.started for origin, _, _ in outputs)),
            "prov:endedAtTime": time_text(max(origin.ended for origin, _, _ in outputs)),
            "prov:wasAssociatedWith": agent if place == 0 else {"@id": agent["@id"]},
            "prov:used": [*(entities or [{"@id": given["@id"]}]), *_models(outputs)],
            "prov:generated": [_entity(name, sha256) for _, name, sha256 in outputs],
            "shardwright:version": canonical_json(
                {name: origin.version for origin, name, _ in outputs}
            ),
            "shardwright:parameters": canonical_json(
                {name: origin.parameters for origin, name, _ in outputs if origin.parameters}
            ),
        }


def _models(outputs: list[tuple[Origin, str, str]]) -> list[Node]:
    """The models that a stage ran, by name and revision."""
    models: dict[str, Node] = {}
    for origin, _, _ in outputs:
        encoder = origin.parameters.get("encoder")
        if not isinstance(encoder, Mapping):
            continue
        name, revision = str(encoder.get("name")), str(encoder.get("revision") or "")
        node = {
            "@id": f"model/{quote(name, safe='')}" + (f"@{quote(revision)}" if revision else ""),
            "@type": "prov:Entity",
            "name": name,
        }
        if revision:
            node["version"] = revision
        if encoder.get("license"):
            node["license"] = str(encoder["license"])
        models[node["@id"]] = node
    return list(models.values())


def _stage_order(item: tuple[str, Any]) -> tuple[int, str]:
    stage = item[0]
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def _entity(name: str, sha256: str) -> Node:
    return {
        "@id": f"entity/{quote(name)}/{sha256}",
        "@type": "prov:Entity",
        "name": name,
        "sha256": sha256,
    }


def _content(listed: FileList) -> str:
    """Hash over the paths and hashes of a folder's files."""
    content = hashlib.sha256()
    for file in listed.files:
        content.update(f"{file.path} {file.sha256}\n".encode())
    return content.hexdigest()


def time_text(seconds: float) -> str:
    """An ISO 8601 time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
