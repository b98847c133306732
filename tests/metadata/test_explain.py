"""One record's life, by id and by path."""

from collections.abc import Callable

import numpy as np
import pytest
from metadata.sample_output import make_records, origin, write_table

from shardwright.errors import UserError
from shardwright.metadata import schemas
from shardwright.metadata.explain import explain
from shardwright.metadata.layout import Layout

pytest_plugins = ("metadata.outputs",)

RECORDS = make_records("code", 30)
IDS = [row["record_id"] for row in RECORDS]


def test_kept(code: Layout) -> None:
    told = explain(code, IDS[3])
    assert told == explain(code, RECORDS[3]["path"])
    assert (told["path"], told["decision"], told["reason"]) == (
        r"broken\x80name.py",
        "kept",
        "kept",
    )
    assert told["scores"] == {"scip": 0.1}
    assert (told["cluster"], told["cluster_size"], told["distance"]) == (0, 10, 0.03)
    assert (told["split"], told["shard"]) == ("train", "shards/train/shard.00000.mds")
    assert (told["position"], told["threshold"]) == (2, 0.38)
    assert "content" not in told


def test_pruned_names_its_nearest_kept_neighbour(code: Layout) -> None:
    told = explain(code, IDS[11])
    assert (told["decision"], told["stage"]) == ("dropped", "prune")
    assert (told["reason"], told["criterion"]) == ("far_from_centroid", "distance")
    # Record 10 is nearer, but dropped too.
    assert told["nearest_kept"]["record_id"] == IDS[12]
    assert told["nearest_kept"]["path"] == "pkg/file0012.py"
    assert told["nearest_kept"]["similarity"] == pytest.approx(float(np.cos(1 / 9)), abs=1e-6)
    assert "shard" not in told


def test_duplicate_names_its_representative(code: Layout) -> None:
    told = explain(code, IDS[29])
    assert told["reason"] == "exact_duplicate"
    assert told["representative"] == {"record_id": IDS[28], "path": "pkg/file0028.py"}
    assert told["duplicates"]["group_size"] == 2
    assert "cluster" not in told


def test_rejected(code: Layout) -> None:
    assert explain(code, r"bad\xff.py") == {
        "source": "sample",
        "path": r"bad\xff.py",
        "decision": "rejected",
        "stage": "ingest",
        "reason": "not_utf8",
        "message": "why & <how>",
    }


def test_every_record_of_every_output_can_be_told(output: Layout) -> None:
    for record_id in IDS:
        told = explain(output, record_id)
        assert told["record_id"] == record_id
        assert told["decision"] in ("kept", "dropped")


def test_unknown_is_one_line_that_helps(code: Layout) -> None:
    with pytest.raises(UserError, match="no record and no refused input") as error:
        explain(code, "file0010.py")
    assert "LIKE" in str(error.value)
    assert "\n" not in str(error.value)


def test_path_of_several_lists_them(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    refused = {
        "source": "other",
        "path": "pkg/file0010.py",
        "stage": "ingest",
        "reason": "empty",
        "message": "",
    }
    write_table(layout, "rejects", schemas.REJECTS, [("a0", [refused])], origin("ingest"))
    with pytest.raises(UserError, match="2 inputs have this path") as error:
        explain(layout, "pkg/file0010.py")
    assert IDS[10] in str(error.value)
    assert explain(layout, IDS[10])["path"] == "pkg/file0010.py"


def test_unfinished_output(copied: Callable[[str], Layout]) -> None:
    layout = copied("code")
    for name in ("decisions", "shards", "curated", "lookup"):
        layout.drop_table(name)
    told = explain(layout, IDS[10])
    assert (told["decision"], told["cluster"]) == ("none yet", 1)
