import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from ingest.bad_inputs import encoded, jpeg_from, png_claiming

from shardwright.quality.faults import Fault
from shardwright.quality.images import ImageFacts, decodable_extensions, decode_image
from shardwright.quality.sandbox import ImageDecoder

BROKEN = "ingest.broken_decoder:decode"


def broken(seconds: float = 20.0) -> ImageDecoder:
    return ImageDecoder(10**8, seconds, 1 << 30, BROKEN)


def children() -> list[psutil.Process]:
    """Processes below this one, but for multiprocessing's own, which earlier tests leave."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "resource_tracker" not in " ".join(child.cmdline())]


def reasons(answers) -> list[str]:
    return [a.reason if isinstance(a, Fault) else "fine" for _, a in answers]


@pytest.mark.parametrize(
    ("killer", "reason"),
    [
        (b"segfault", "decoder_crashed"),
        (b"abort", "decoder_crashed"),
        (b"exit", "decoder_crashed"),
        (b"raise", "decoder_crashed"),
        (b"memory", "decoder_memory"),
    ],
)
def test_a_killer_is_refused_and_its_neighbours_are_not(killer, reason):
    images = [b"one", b"two", killer, b"three", killer, killer, b"four"]
    with broken() as decoder:
        answers = list(decoder.decode_all(enumerate(images)))
    assert [item for item, _ in answers] == list(range(len(images)))
    assert reasons(answers) == [reason if image == killer else "fine" for image in images]
    assert [a.width for _, a in answers if isinstance(a, ImageFacts)] == [3, 3, 5, 4]
    assert children() == []


def test_the_message_names_the_signal():
    with broken() as decoder:
        assert decoder.decode(b"segfault") == Fault(
            "decoder_crashed", "the decoder died of SIGSEGV"
        )


@pytest.mark.parametrize("killer", [b"hang", b"hang-deaf"])
def test_a_hang_is_killed(killer, monkeypatch):
    monkeypatch.setattr("shardwright.quality.sandbox._GRACE_SECONDS", 0.5)
    with broken(seconds=0.5) as decoder:
        answers = list(decoder.decode_all(enumerate([b"a", killer, b"b"])))
    assert reasons(answers) == ["fine", "decoder_timeout", "fine"]
    assert children() == []


def test_many_slow_images_are_no_hang():
    with broken(seconds=0.3) as decoder:
        answers = list(decoder.decode_all(enumerate([b"sleep"] * 20)))
    assert reasons(answers) == ["fine"] * 20


def test_what_an_earlier_image_broke_is_asked_again():
    with broken() as decoder:
        answers = list(decoder.decode_all(enumerate([b"poison", b"poisoned", b"a"])))
    assert reasons(answers) == ["fine", "fine", "fine"]


def test_items_without_an_image_keep_their_place():
    items = [("a", b"x"), ("b", None), ("c", b"y"), ("d", None)]
    with broken() as decoder:
        answers = list(decoder.decode_all(items))
    assert [(item, answer is None) for item, answer in answers] == [
        ("a", False),
        ("b", True),
        ("c", False),
        ("d", True),
    ]


def test_one_child_serves_many_and_prints_do_no_harm():
    with broken() as decoder:
        answers = list(decoder.decode_all(enumerate([b"a", b"print", b"x" * 5_000_000] * 20)))
        again = decoder.decode(b"again")
    assert len({answer.height for _, answer in answers} | {again.height}) == 1
    assert children() == []


def test_a_caller_who_stops_half_way_leaves_nothing_in_flight():
    with broken() as decoder:
        for item, _ in decoder.decode_all(enumerate([b"a"] * 100)):
            if item == 5:
                break
        assert decoder.decode(b"four").width == 4
    assert children() == []


def test_a_decoder_that_cannot_start_is_an_error_and_no_reject():
    with (
        ImageDecoder(1, 1.0, decoder="ingest.no_such_module:decode") as decoder,
        pytest.raises(RuntimeError, match="no_such_module"),
    ):
        decoder.decode(b"a")
    assert children() == []


@pytest.mark.parametrize("image", ["b'a'", "b'hang'"])
def test_a_child_does_not_outlive_its_parent(image, tmp_path):
    code = f"""
import os, threading, time
from shardwright.quality.sandbox import ImageDecoder
decoder = ImageDecoder(1, 2.0, 1 << 30, {BROKEN!r})
threading.Thread(target=lambda: decoder.decode({image}), daemon=True).start()
while decoder._child is None:
    time.sleep(0.01)
print(decoder._child.process.pid, flush=True)
time.sleep(60)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_real_decoder_answers_as_it_does_in_this_process():
    images = [
        encoded(),
        encoded("CMYK", kind="JPEG"),
        jpeg_from("ACME", "Mark II", "Darkroom"),
        png_claiming(60_000, 60_000),
        encoded(size=(90, 90))[:200],
        b"no image",
    ]
    with ImageDecoder(10**8, 20.0) as decoder:
        answers = [answer for _, answer in decoder.decode_all((None, i) for i in images)]
    assert answers == [decode_image(image, 10**8) for image in images]
    assert answers[0] == ImageFacts(16, 12, "PNG")
    assert answers[2] == ImageFacts(16, 12, "JPEG", "ACME", "Mark II", "Darkroom")


def test_the_pixel_limit_is_a_limit_and_not_an_estimate():
    assert isinstance(decode_image(encoded(size=(10, 10)), 100), ImageFacts)
    assert decode_image(encoded(size=(10, 10)), 99).reason == "decompression_bomb"


def test_what_runs_other_programs_or_has_no_decoder_is_never_opened():
    extensions = set(decodable_extensions())
    assert {".png", ".jpg", ".gif", ".webp", ".tiff", ".bmp", ".mpo"} <= extensions
    assert not extensions & {".eps", ".ps", ".wmf", ".emf", ".h5", ".grib", ".bufr", ".mpg", ".pdf"}
