"""Which record set of a Croissant is read, and which of its fields become what of an input."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from shardwright.errors import UserError
from shardwright.metadata.files import canonical_json
from shardwright.pipelines.sources.columns import Columns, MissingColumnError
from shardwright.pipelines.sources.croissant_document import Document, FieldNode, RecordSetNode
from shardwright.pipelines.sources.names import linear_regex
from shardwright.pipelines.sources.types import Input

_NAMES = ("filename", "fullpath")
_INPUT_FACTS = ("repository", "revision", "license", "language", "label")
_KEY = re.compile(r"(?:\$\.?)?(?:\[['\"])?([^.\[\]'\"$*?()]+)(?:['\"]\])?")


@dataclass(frozen=True)
class Told:
    """A fact of an input that needs more than a column: a name of the file, a regex, a constant.

    Attributes:
        name: The record's column, or the kept field.
        kept: Whether it goes into the attributes under its name.
        origin: ``filename``, ``fullpath``, ``value`` (a constant), or ``column`` (as it was read).
        value: The constant.
        regex: What is taken of it, in mlcroissant's way: the first group that matches.
    """

    name: str
    kept: bool
    origin: str
    value: str | None
    regex: str | None

    def of(self, read: str | None, file: str) -> str | None:
        """The fact, of what was read from a column and of the file's path."""
        known = {"filename": file.rpartition("/")[2], "fullpath": file, "value": self.value}
        value = known.get(self.origin, read)
        if value is None or self.regex is None:
            return value
        found = linear_regex(self.regex, f"source: field {self.name!r}").match(value)
        if found is None:
            return value
        return next((group for group in found.groups() if group is not None), value)


@dataclass(frozen=True)
class Reading:
    """How the files of a record set become inputs. Pickled to workers.

    Attributes:
        resource: Id of the file or file set.
        whole: Whether a file is one input, and no table of them.
        columns: The columns to read where it is a table.
        renamed: Kept field by the column that it is read from.
        read: Facts of an input that come from columns.
        told: Facts that come from elsewhere.
    """

    resource: str
    whole: bool
    columns: Columns
    renamed: tuple[tuple[str, str], ...]
    read: tuple[str, ...]
    told: tuple[Told, ...]

    def digest(self) -> str:
        """Changes whenever other inputs would be made of the same files."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()[:16]

    def finished(self, item: Input, file: str) -> Input:
        """The input with all that the document says of it, and nothing else.

        Args:
            item: What was read from the file's columns, or a whole file.
            file: Path of the file below its folder.
        """
        facts: dict[str, str | None] = {
            name: getattr(item, name) for name in _INPUT_FACTS if name in self.read
        }
        attributes: dict[str, str] = {}
        if "path" in self.read and "path" in item.attributes:
            attributes["path"] = item.attributes["path"]
        for column, name in self.renamed:
            if column in item.attributes:
                attributes[name] = item.attributes[column]
        for told in self.told:
            if told.kept or told.name == "path":
                value = told.of(attributes.get(told.name), file)
                if value is not None:
                    attributes[told.name] = value
            else:
                facts[told.name] = told.of(facts.get(told.name), file)
        return Input(item.path, item.data, **facts, attributes=attributes)


def read_how(
    document: Document,
    wanted: str | None,
    mapped: Mapping[str, str],
    keep: Sequence[str],
    modality: str,
) -> Reading:
    """How a recipe reads a document.

    Args:
        document: The document.
        wanted: Id or name of the record set; None for the one that fits.
        mapped: Field by record column, as ``source.columns`` has it.
        keep: Fields that go into the attributes.
        modality: ``code`` or ``image``.

    Raises:
        UserError: There is no such record set or field, or it is not read.
    """
    usual = Columns(modality, dict(mapped), ())
    chosen = _chosen(document, wanted, usual, keep)
    by_name = {field.name: field for field in chosen.fields}
    mapped = {column: _short(name, chosen) for column, name in mapped.items()}
    keep = tuple(_short(name, chosen) for name in keep)
    for name in (*mapped.values(), *keep):
        if name not in by_name:
            raise UserError(
                f"source: record set {chosen.id!r} has no field {name!r}; it has "
                f"{', '.join(by_name)}"
            )
    usual = Columns(modality, dict(mapped), keep)
    payload = _payload(chosen, usual)
    if payload is None:
        raise UserError(
            f"source: record set {chosen.id!r} has no field that is known to hold the "
            f"{usual.payload}; name one in source.columns: {', '.join(by_name)}"
        )
    found = usual.resolve({*by_name, usual.payload})  # whatever the content's field is called
    content = by_name[payload]
    whole = content.extract == ("fileProperty", "content")
    if content.resource is None or not (whole or _column(content, payload=True)):
        raise UserError(
            f"source: field {payload!r} is read by {_way(content)}; what is read is a column, a "
            "key of JSON lines, or the content of files"
        )
    physical = {} if whole else {usual.payload: _column(content, payload=True) or ""}
    told: list[Told] = []
    renamed: list[tuple[str, str]] = []
    facts = [
        (column, by_name[name], False) for column, name in found.items() if column != usual.payload
    ]
    for column, field, kept in [*facts, *((name, by_name[name], True) for name in keep)]:
        way = _fact(column, field, kept, content, whole)
        if way is None:
            if kept or column in mapped:
                raise UserError(
                    f"source: field {field.name!r} is read by {_way(field)} of "
                    f"{field.resource!r}; beside {payload!r} only columns of "
                    f"{content.resource!r}, names of its files and constants are read"
                )
            continue
        if way.origin != "column" or way.regex is not None:
            told.append(way)
        if way.origin == "column":
            name = _column(field) or ""
            if kept:
                renamed.append((name, column))
            else:
                physical[column] = name
    columns = Columns(modality, physical, tuple(dict.fromkeys(name for name, _ in renamed)))
    read = tuple(column for column in physical if column != usual.payload)
    return Reading(content.resource, whole, columns, tuple(renamed), read, tuple(told))


def _chosen(
    document: Document, wanted: str | None, columns: Columns, keep: Sequence[str]
) -> RecordSetNode:
    from_files = [s for s in document.record_sets if not s.inline and s.fields]
    listed = ", ".join(record_set.id for record_set in from_files) or "none that files hold"
    if wanted is not None:
        for record_set in document.record_sets:
            if wanted in (record_set.id, record_set.name):
                if record_set.inline:
                    raise UserError(
                        f"source.record_set {wanted!r}: its rows stand in the document itself, "
                        f"which is not read; there are {listed}"
                    )
                return record_set
        raise UserError(f"source.record_set {wanted!r}: no such record set; there are {listed}")
    fitting = from_files
    if len(from_files) > 1:
        fitting = [
            record_set
            for record_set in from_files
            if _payload(record_set, columns) is not None
            and {_short(name, record_set) for name in (*columns.mapped.values(), *keep)}
            <= {field.name for field in record_set.fields}
        ]
        fitting = [record_set for record_set in fitting if record_set.id == "curated"] or fitting
    if len(fitting) != 1:
        raise UserError(f"source.record_set: name the one to read; there are {listed}")
    return fitting[0]


def _short(name: str, record_set: RecordSetNode) -> str:
    """A field's name without its record set's."""
    return name.removeprefix(f"{record_set.id}/")


def _payload(record_set: RecordSetNode, columns: Columns) -> str | None:
    """Name of the field that holds the content: mapped, usual, or the only one that can."""
    if columns.payload in columns.mapped:
        return _short(columns.mapped[columns.payload], record_set)
    names = [field.name for field in record_set.fields]
    try:
        return Columns(columns.modality, {}, ()).resolve(names)[columns.payload]
    except MissingColumnError:
        pass
    able = [
        field.name
        for field in record_set.fields
        if field.extract == ("fileProperty", "content")
        or (columns.modality == "image" and "ImageObject" in field.types)
    ]
    return able[0] if len(able) == 1 else None


def _column(field: FieldNode, *, payload: bool = False) -> str | None:
    """The column, or the key of a JSON line, that a field is; None where it is neither."""
    if field.extract is None or field.extract[0] not in ("column", "jsonPath"):
        return None
    for name, value in field.transforms:
        inside = payload and name == "jsonPath" and value.removeprefix("$.") == "bytes"
        if not (inside or (name == "regex" and not payload)):
            return None
    if field.extract[0] == "column":
        return field.extract[1]
    key = _KEY.fullmatch(field.extract[1])
    return key.group(1) if key else None


def _fact(
    column: str, field: FieldNode, kept: bool, content: FieldNode, whole: bool
) -> Told | None:
    """How a field becomes a fact; None where that is not supported."""
    if field.value is not None:
        return Told(column, kept, "value", field.value, None)
    if field.resource != content.resource or field.extract is None:
        return None
    regexes = [value for name, value in field.transforms if name == "regex"]
    regex = regexes[0] if regexes else None
    if regex is not None:
        linear_regex(regex, f"source: field {field.name!r}: regex {regex[:200]!r}")
    if field.extract[0] == "fileProperty":
        known = field.extract[1] in _NAMES and len(regexes) == len(field.transforms) <= 1
        return Told(column, kept, field.extract[1], None, regex) if known else None
    if whole or _column(field) is None or len(regexes) > 1:
        return None
    return Told(column, kept, "column", None, regex)


def _way(field: FieldNode) -> str:
    """A field's extraction in words."""
    if field.extract is None:
        return "no extract"
    return " ".join([*field.extract, *(f"with {name} {value}" for name, value in field.transforms)])
