"""The campaign itself: it sees what dies, hangs, eats memory or tells nothing, and goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz import campaign, seeds
from fuzz.kinds import KINDS, Files, Told, UntoldError, inputs

from shardwright.quality.sandbox import ImageDecoder

HOW = {
    1: "died of SIGSEGV",
    2: "hung: more than",
    3: "KeyError",
    4: "MemoryError",
    5: "no sign within",
    6: "UntoldError",
    7: "died: status 3",
}


def test_every_way_to_fail_is_seen_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "_PROCESSOR_SECONDS", 1)
    monkeypatch.setattr(campaign, "_CLOCK_SECONDS", 20.0)
    known = {repr(files): number for number, files in inputs("recipes", 0, range(10))}

    def read(_: str, folder: Path, files: Files, __: ImageDecoder) -> Told:
        number = known[repr(files)]
        if number == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        while number == 2:
            pass
        if number == 3:
            raise KeyError("planted")
        if number == 4:
            bytearray(1 << 40)
        if number == 5:
            time.sleep(1000)
        if number == 6:
            raise UntoldError("planted")
        if number == 7:
            os._exit(3)
        return Told(records=1)

    batch = campaign.run_batch("recipes", 0, range(10), tmp_path, read)
    found = {finding["number"]: finding["what"] for finding in batch.findings}
    assert found.keys() == HOW.keys()
    for number, what in HOW.items():
        assert found[number].startswith(what)
    assert batch.outcomes["records"] == 3
    assert sum(batch.outcomes.values()) == 10
    saved = {path.name: path for path in tmp_path.iterdir()}
    assert saved.keys() == {f"recipes-{number}" for number in HOW}
    again = dict(inputs("recipes", 0, range(10)))[4]
    assert (saved["recipes-4"] / "1-recipe.yaml").read_bytes() == again["recipe.yaml"]


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_BATCH", 4)
    first = campaign.run(["recipes"], 0, 10, tmp_path, 2)
    assert sorted((batch.first, batch.count) for batch in first) == [(0, 4), (4, 4), (8, 2)]
    (ledger,) = tmp_path.glob("*/recipes.jsonl")
    text = ledger.read_text()
    ledger.write_text(text[: len(text) - 40])  # killed while it wrote its last line
    stood = ledger.read_bytes()
    again = campaign.run(["recipes"], 0, 10, tmp_path, 1)
    assert ledger.read_bytes().startswith(stood)  # what was done is not done again

    def told(batches: list[campaign.Batch]) -> list[tuple[int, int, str]]:
        return sorted((b.first, b.count, json.dumps(b.outcomes, sort_keys=True)) for b in batches)

    assert told(again) == told(first)
    lines = list(campaign.summary(again))
    assert lines[0].startswith("recipes: 10 inputs: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_inputs_of_each_kind(tmp_path: Path, kind: str) -> None:
    batch = campaign.run_batch(kind, 1, range(15), tmp_path)
    assert batch.findings == []
    assert sum(batch.outcomes.values()) == 15


def test_seeds_are_the_same_at_another_time() -> None:
    command = [sys.executable, "-c", "from fuzz import seeds; print(seeds.digest())"]
    environment = {**os.environ, "PYTHONPATH": str(seeds.ROOT / "tests"), "PYTHONHASHSEED": "1"}
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == seeds.digest()


def test_a_number_is_the_same_input_always() -> None:
    for kind in KINDS:
        some = dict(inputs(kind, 3, range(5, 9)))
        every = dict(inputs(kind, 3, range(9)))
        assert some == {number: every[number] for number in some}
