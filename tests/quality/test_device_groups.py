"""Groups of images by the rules of a recipe."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from shardwright.errors import UserError
from shardwright.quality.heterogeneity.groups import (
    Sized,
    check_rule,
    device,
    fingerprint,
    group_of,
    sized,
)
from shardwright.quality.heterogeneity.provenance import Provenance, read_provenance

BARE = Provenance("PNG", 40, 30)


def jpeg(size: tuple[int, int] = (40, 24), **options: object) -> Provenance:
    out = io.BytesIO()
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(out, "JPEG", **options)
    return read_provenance(out.getvalue())


@pytest.mark.parametrize(
    ("make", "model", "name"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON  D90 ", "NIKON D90"),
        (" Google", "Pixel\t2", "Google Pixel 2"),
        ("LGE", "LGE", "LGE"),
        ("Can", "Canon EOS", "Can Canon EOS"),
        (None, "Pixel 2", "Pixel 2"),
        ("Google", None, "Google"),
        ("Google", " ", "Google"),
        (None, None, None),
        (" ", "", None),
    ],
)
def test_devices(make: str | None, model: str | None, name: str | None) -> None:
    assert device(make, model) == name
    facts = dataclasses.replace(BARE, make=make, model=model)
    assert group_of("device", facts) == name
    assert group_of("auto", facts) == (name or fingerprint(BARE))


def test_software_columns_and_folders() -> None:
    facts = dataclasses.replace(BARE, software=" GIMP  2.10")
    assert group_of("software", facts) == "GIMP 2.10"
    assert group_of("software", BARE) is None
    columns = {"camera": "left  one", "number": 7, "missing": None, "blank": ""}
    found = [group_of(f"column:{name}", BARE, columns=columns) for name in (*columns, "other")]
    assert found == ["left one", "7", None, None, None]
    for path, depth, name in (
        ("a/b/c.jpg", 1, "a"),
        ("a/b/c.jpg", 2, "a/b"),
        ("a/b/c.jpg", 3, None),
        ("c.jpg", 1, None),
        ("/a//c.jpg", 1, "a"),
        ("phone.tar!in/c.jpg", 1, "phone.tar"),
        ("x/phone.tar.gz!in/c.jpg", 3, "x/phone.tar.gz/in"),
        ("wow!/c.jpg", 1, "wow!"),
    ):
        assert group_of(f"folder:{depth}", BARE, path) == name


@pytest.mark.parametrize("rule", ["", "camera", "column:", "folder:", "folder:0", "folder:x"])
def test_unknown_rules_are_named(rule: str) -> None:
    with pytest.raises(UserError, match="use one of auto, device"):
        check_rule(rule)
    with pytest.raises(UserError):
        group_of(rule, BARE)


def test_fingerprints_read_well() -> None:
    name = fingerprint(jpeg(quality=92, subsampling="4:2:0"))
    assert name[:-6] == "q92 4:2:0 40x24 "
    assert int(name[-6:], 16) >= 0
    assert fingerprint(jpeg((24, 40), quality=92, subsampling="4:2:0")) == name  # turned
    assert fingerprint(BARE)[:-6] == "PNG 40x30 "


def test_fingerprints_differ_where_files_do() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    odd = [[16] * 64, [17] * 64]
    kinds = [
        jpeg(quality=92),
        jpeg(quality=91),
        jpeg(quality=92, subsampling="4:4:4"),
        jpeg((48, 24), quality=92),
        jpeg(quality=92, progressive=True),
        jpeg(quality=92, icc_profile=profile),
        jpeg(qtables=odd),
        jpeg(qtables=[odd[0], [18] * 64]),
        BARE,
        dataclasses.replace(BARE, icc_sha256="ab"),
    ]
    assert len({fingerprint(one) for one in kinds}) == len(kinds)
    assert fingerprint(kinds[6]).startswith("q~")


def test_sizes_name_what_is_too_small() -> None:
    groups = ["b"] * 50 + ["a"] * 50 + ["c"] * 49 + [None] * 3 + ["d"] * 60
    assert sized(groups) == Sized({"d": 60, "a": 50, "b": 50}, {"c": 49}, 3)
    assert list(sized(groups).enough) == ["d", "a", "b"]
    assert sized(["a", "a", "b"], least=2) == Sized({"a": 2}, {"b": 1}, 0)
    assert sized([]) == Sized({}, {}, 0)
