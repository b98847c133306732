"""Pictures that Pillow warns of: reading them is silent, and the warnings of others stay."""

import io
import threading
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from shardwright.embeddings.pixels import SILENCE, decode_rgb
from shardwright.quality.calibrate_copies import extent
from shardwright.quality.heterogeneity.provenance import read_provenance
from shardwright.quality.image_statistics import measure_image
from shardwright.quality.images import ImageFacts, decode_image
from shardwright.quality.perceptual import perceptual_hash, pixel_sha256
from shardwright.service.samples import thumbnail


def malformed_mpo() -> bytes:
    """A JPEG that announces more pictures behind it, and has no list of them."""
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    announced = b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    segment = b"\xff\xe2" + (len(announced) + 2).to_bytes(2, "big") + announced
    return out.getvalue()[:2] + segment + out.getvalue()[2:]


DATA = malformed_mpo()
READERS: dict[str, Callable[[], object]] = {
    "decode_rgb": lambda: decode_rgb(DATA),
    "with a draft": lambda: decode_rgb(DATA, draft=8),
    "decode_image": lambda: decode_image(DATA, 10**6),
    "read_provenance": lambda: read_provenance(DATA),
    "pixel_sha256": lambda: pixel_sha256(DATA),
    "perceptual_hash": lambda: perceptual_hash(DATA),
    "measure_image": lambda: measure_image(["blurry"], DATA),
    "extent": lambda: extent("image", DATA),
    "thumbnail": lambda: thumbnail(DATA),
}


def test_pillow_warns_of_it() -> None:
    with pytest.warns(UserWarning, match="malformed MPO"):
        Image.open(io.BytesIO(DATA))


@pytest.mark.parametrize("name", READERS)
def test_reading_is_silent(name: str) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = READERS[name]()
        assert [str(each.message) for each in heard] == []
        assert found is not None
        warnings.warn("mine", stacklevel=1)
    assert [str(each.message) for each in heard] == ["mine"]


def test_it_is_a_picture_all_the_same() -> None:
    assert decode_rgb(DATA).size == (64, 64)
    facts = decode_image(DATA, 10**6)
    assert isinstance(facts, ImageFacts)
    assert facts.format == "JPEG"


def test_threads_that_overlap_leave_the_filters_as_they_were() -> None:
    before = list(warnings.filters)
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        with SILENCE:
            inside.set()
            over.wait()

    thread = threading.Thread(target=other)
    with SILENCE:
        thread.start()
        inside.wait()
    assert warnings.filters[0][0] == "ignore"  # the other is still at it
    over.set()
    thread.join()
    assert list(warnings.filters) == before


def test_an_error_ends_the_silence() -> None:
    before = list(warnings.filters)
    with pytest.raises(KeyError), SILENCE:
        raise KeyError
    assert list(warnings.filters) == before
