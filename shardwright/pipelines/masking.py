"""Blanks secrets and personal data in records on their way out."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from shardwright.quality.secrets import find_personal_data, find_secrets, mask

_FINDERS = {"secrets": find_secrets, "personal_data": find_personal_data}


def mask_found(
    records: pa.RecordBatch, counts: pa.RecordBatch, names: Sequence[str]
) -> pa.RecordBatch:
    """Records of code with what was found in them blanked, and ``content_sha256`` to match.

    Masked contents keep their length, so that nothing else about the record changes.

    Args:
        records: Rows of ``records``.
        counts: For each row how many findings the filters counted, a column a name.
        names: ``secrets``, ``personal_data`` or both.
    """
    several = np.zeros(records.num_rows, dtype=bool)
    for name in names:
        several |= counts.column(name).to_numpy(zero_copy_only=False) > 0
    rows = set(np.flatnonzero(several).tolist())
    if not rows:
        return records
    contents: list[str] = records.column("content").to_pylist()
    hashes: list[str] = records.column("content_sha256").to_pylist()
    for row in rows:
        spans = [span for name in names for span in _FINDERS[name](contents[row])]
        data = mask(contents[row].encode(), sorted(spans, key=lambda span: span.start))
        contents[row], hashes[row] = data.decode(), hashlib.sha256(data).hexdigest()
    schema = records.schema
    columns = dict(zip(schema.names, records.columns, strict=True))
    columns["content"] = pa.array(contents, schema.field("content").type)
    columns["content_sha256"] = pa.array(hashes, schema.field("content_sha256").type)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)
