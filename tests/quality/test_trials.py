"""Trials: damage is planted by seed and in the share alone, and no fold is taught what it seeks."""

import io
import itertools
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from shardwright.errors import UserError
from shardwright.quality import calibrate as calibration
from shardwright.quality.calibrate import EXTRA, Observed, calibrate, judge
from shardwright.quality.calibrate_copies import damaged_copies, extent, plain_copy
from shardwright.quality.corruptions import corruptions
from shardwright.quality.observations import views
from shardwright.quality.probe import Vectors
from shardwright.quality.trials import Looked, Trial, deal, families_of, study_rows
from shardwright.quality.trials_scores import (
    CALIBRATED,
    PLAIN,
    Rules,
    calibrated_scores,
    overlaps,
    score,
    surprise,
)

TEXT = """def add_{0}(left, right):
    if left > right and right != {0}:
        total = left + right
        return total - {0}
    return [left, right][{0} % 2]
"""
RECORDS = 80


def text(record):
    return TEXT.format(record).encode()


def planted(trial, order):
    return {i: trial.plant(i, f"id {i}", text(i), "Python") for i in order}


def test_only_the_share_is_damaged_whoever_comes_first():
    trial = Trial("code", RECORDS, seed=3, share=0.2)
    found = planted(trial, range(RECORDS))
    hit = {i for i, (kind, _) in found.items() if kind}
    assert hit == trial.damaged
    assert len(hit) == 16
    for i, (kind, content) in found.items():
        assert (content == text(i)) == (kind == "")
        assert kind == "" or kind in corruptions("code")
    backwards = planted(Trial("code", RECORDS, seed=3, share=0.2), reversed(range(RECORDS)))
    assert backwards == found


def test_another_seed_is_another_trial():
    one, other = (Trial("code", RECORDS, seed=seed, share=0.2) for seed in (0, 1))
    assert one.damaged != other.damaged
    assert one.order != other.order
    both = sorted(one.damaged & other.damaged)
    assert any(planted(one, both)[i] != planted(other, both)[i] for i in both)


def test_who_teaches_and_how_often():
    trial = Trial("code", RECORDS, seed=0, documents=20, copies=2, without=("conditions", "names"))
    for place, record in enumerate(trial.order):
        copies = trial.teach(record, f"id {record}", text(record), "Python")
        if place >= 20:
            assert copies == []
            continue
        kinds = [kind for kind, _ in copies]
        assert len(set(kinds)) == len(kinds) == 2
        assert not {families_of("code")[kind] for kind in kinds} & {"conditions", "names"}
        assert all(content != text(record) for _, content in copies)


def test_copies_stop_where_no_kind_is_left():
    for content in (b"", text(1)):
        copies = damaged_copies(
            "code", content, "Python", random.Random(0), 0, count=1000, dose=0.5
        )
        kinds = [kind for kind, _ in copies]
        assert len(kinds) == len(set(kinds)) < len(corruptions("code"))


def picture(form, side=40):
    pixels = np.random.default_rng(0).integers(0, 256, (side, 2 * side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def test_no_encoding_tells_a_damaged_picture():
    """Damaged or not a picture comes as the same kind of file, however it was encoded."""
    plain = plain_copy("image", picture("PNG"))
    assert plain == plain_copy("image", picture("BMP"))
    assert extent("image", plain) == 40 * 80
    assert extent("image", plain_copy("image", picture("PNG", 1000))) == 1024 * 512
    trial = Trial("image", 1, seed=0, share=1.0)
    kind, content = trial.plant(0, "id", plain, None)
    assert kind in corruptions("image")
    assert content != plain
    assert Image.open(io.BytesIO(content)).format == Image.open(io.BytesIO(plain)).format == "PNG"
    assert plain_copy("code", b"x") == b"x"
    assert extent("code", "ü".encode()) == 2


@pytest.mark.parametrize(("modality", "count"), [("code", 20), ("image", 8)])
def test_families_are_dealt_evenly(modality, count):
    families = families_of(modality).values()
    for folds in (2, 3, 4):
        dealt = Counter(deal(families, folds).values())
        assert sorted(dealt) == list(range(folds))
        assert max(dealt.values()) - min(dealt.values()) <= 1
    for folds in (count, count + 1, 1000):
        alone = deal(families, folds)
        assert len(alone) == count == len(set(alone.values()))
        assert set(alone.values()) == set(range(count))


def vectors(rng, rows, dimension=6):
    counts = rng.integers(1, 4, rows)
    x = rng.normal(size=(rows + counts.sum(), dimension))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Vectors(x[:rows], x[rows:], np.cumsum(counts) - counts)


def observed(rng, rows, modality="image"):
    return Observed(
        vectors(rng, rows),
        rng.normal(size=(rows, len(views(modality)))),
        [None] * rows,
        rng.integers(1, 9, rows),
        rng.random(rows),
        rng.integers(1, 999, rows),
    )


def taught(modality="image", documents=40):
    """Sources and kinds of a study in which every kind is taught by several records."""
    kinds, sources = [], []
    names = itertools.cycle(corruptions(modality))
    for place in range(documents):
        copies = [next(names) for _ in range(3)]
        kinds += ["", *copies]
        sources += [place] * (1 + len(copies))
    return np.array(sources), np.array(kinds)


@pytest.mark.parametrize("folds", [3, 8])
def test_no_fold_is_taught_what_it_seeks(monkeypatch, folds):
    """Spied on where detectors learn: all families but the fold's, and copies of those alone."""
    rng = np.random.default_rng(0)
    sources, kinds = taught()
    study, records = observed(rng, len(kinds)), observed(rng, 30)
    families = families_of("image")
    row_of = {value.tobytes(): row for row, value in enumerate(study.vectors.documents)}
    learned = []

    def probe(documents, clean, damaged, pairs, named):
        rows = [row_of[value.tobytes()] for value in damaged.documents]
        assert [families[kinds[row]] for row in rows] == list(named)
        originals = [row_of[clean.documents[pair].tobytes()] for pair in pairs]
        assert [sources[row] for row in rows] == [sources[row] for row in originals]
        assert {kinds[row] for row in originals} == {""}
        learned.append(set(named))
        return fit_probe(documents, clean, damaged, pairs, named)

    def damage(*given):
        assert set(given[-1]) == learned[-1]
        assert given[0][-len(EXTRA) :] == list(EXTRA)
        assert len(given[2]) == (kinds == "").sum()
        return fit_damage(*given)

    fit_probe, fit_damage = calibration.fit_probe, calibration.fit_damage
    monkeypatch.setattr(calibration, "fit_probe", probe)
    monkeypatch.setattr(calibration, "fit_damage", damage)
    found = calibrated_scores("image", records, study, sources, kinds, folds)
    assert {name: column.shape for name, column in found.items()} == dict.fromkeys(
        CALIBRATED, (30, folds)
    )
    dealt = deal(families.values(), folds)
    everything = set(families.values())
    for fold, families_taught in enumerate(learned):
        assert families_taught == {name for name in everything if dealt[name] != fold}
    assert len(learned) == folds


def test_detectors_judge_alone_as_among_others():
    rng = np.random.default_rng(2)
    sources, kinds = taught()
    study = observed(rng, len(kinds))
    detectors = calibrate("image", study.vectors.documents, study, sources, kinds)
    probed, judged, spoke = judge(detectors, study)
    assert len(probed) == len(judged) == len(spoke) == len(kinds)
    np.testing.assert_array_equal(probed, detectors.probe.judge(study.vectors))
    full = study.with_probe(probed)
    assert full.shape[1] == len(detectors.damage.names)
    np.testing.assert_allclose(judged, detectors.damage.judge(full, study.languages), rtol=1e-12)
    names = {*detectors.damage.names, None}
    assert set(spoke) <= names


def test_nothing_left_to_learn_is_an_error():
    rng = np.random.default_rng(0)
    sources, kinds = taught()
    study, everything = observed(rng, len(kinds)), set(families_of("image").values())
    with pytest.raises(UserError, match="none can be damaged"):
        calibrate("image", study.vectors.documents, study, sources, kinds, everything)


def looked(trial, seed=0):
    """A trial of pictures in which nothing but chance speaks."""
    rng = np.random.default_rng(seed)
    names = list(corruptions("image"))
    sources, kinds = [], []
    for place, record in enumerate(trial.order[: trial.documents]):
        sources += [record] * 2
        kinds += [names[place % 11], names[(place + 5) % 11]]
    size = trial.records + len(kinds)
    return Looked(
        [f"{i:032x}" for i in rng.permutation(trial.records)],
        np.array(["noise" if i in trial.damaged else "" for i in range(trial.records)]),
        rng.integers(1, 99, trial.records),
        np.array(sources),
        np.array(kinds),
        vectors(rng, size),
        rng.normal(size=(size, len(views("image")))),
        [None] * size,
        rng.integers(1, 99, size),
    )


def test_rows_of_the_study_are_records_and_their_copies():
    trial = Trial("image", 60, seed=0, documents=30)
    seen = looked(trial)
    rows, sources, kinds = study_rows(trial, seen)
    assert (kinds == "").sum() == 30
    assert rows[kinds == ""].tolist() == trial.order[:30]
    for row, source, kind in zip(rows, sources, kinds, strict=True):
        copy = row - trial.records
        record = row if kind == "" else seen.sources[copy]
        assert record == trial.order[source]
        assert kind == ("" if copy < 0 else seen.taught[copy])
    assert len(rows) == len(set(rows.tolist())) == 30 + len(seen.taught)


def test_every_method_scores_every_record():
    trial = Trial("image", 60, seed=0, documents=40)
    methods = [name for name in (*PLAIN, *CALIBRATED) if name != "perplexity"]
    scores = score(trial, looked(trial), Rules(k=5), 3, methods)
    assert list(scores) == methods
    for name, column in scores.items():
        assert column.shape == ((60, 3) if name in CALIBRATED else (60,))
        assert np.isfinite(column).all()
    some = score(trial, looked(trial), Rules(k=5), 3, ["damage", "length"])
    assert list(some) == ["length", "damage"]
    for name, column in some.items():
        np.testing.assert_array_equal(column, scores[name])


def test_surprise_is_the_median_where_it_is_unknown():
    place = [view.name for view in views("code")].index("cloze")
    values = np.zeros((5, len(views("code"))))
    values[:, place] = [1.0, np.nan, 5.0, 3.0, np.nan]
    assert surprise("code", values).tolist() == [1.0, 3.0, 5.0, 3.0, 3.0]
    values[:, place] = np.nan
    assert surprise("code", values).tolist() == [0.0] * 5
    assert surprise("image", np.zeros((5, len(views("image"))))) is None


def test_overlaps():
    rng = np.random.default_rng(0)
    centres = np.eye(8)[:4]
    apart = (centres[np.arange(64) % 4] + 0.1 * rng.normal(size=(64, 8))).astype(np.float32)
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    ids = [f"{i:032x}" for i in range(64)]
    methods = ("scip", "ssl_prototypes", "length", "random", "damage")
    same = overlaps(methods, ids, apart, Rules(k=4), [7, 7, 7])
    assert same == {"scip": 1.0, "ssl_prototypes": 1.0}
    other = overlaps(methods, ids, vectors(rng, 64).documents, Rules(k=9), [0, 1, 2])
    assert all(0 <= value < 1 for value in other.values())
    assert overlaps(["scip"], ids, apart, Rules(k=4, fraction=0.0), [0, 1]) == {"scip": 1.0}
