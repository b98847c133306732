"""What is observed of a record: names and order, missing values, and damage that shows."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from shardwright.quality.filters import filters, measure_code, measure_image
from shardwright.quality.observations import SURPRISE, observe_image, observe_text, views
from shardwright.quality.views import fit

SOURCE = """def total(rows, limit):
    count = 0
    for row in rows:
        if row.size > limit:
            count += row.size
    return count
"""
FILES = [
    (f"repository{i}", SOURCE.replace("limit", f"limit{i}").encode(), "Python") for i in range(70)
]


@pytest.fixture(scope="module")
def models():
    return fit(FILES)


def picture(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("modality", ["code", "image"])
def test_names_are_unique_and_in_a_fixed_order(modality):
    names = [view.name for view in views(modality)]
    assert len(set(names)) == len(names) > 3
    assert views(modality) == views(modality)


def test_every_view_is_observed(models):
    found = observe_text(SOURCE.encode(), "Python", models, "new")
    assert set(found) >= {view.name for view in views("code")}
    assert {view.name for view in views("code")} >= {SURPRISE}
    found = observe_image(picture(PIXELS))
    assert set(found) == {view.name for view in views("image")}


@pytest.mark.parametrize(
    ("text", "language"),
    [("", "Python"), ("", None), ("plain words\n", None), (SOURCE, "Befunge"), ("\r\n", "C")],
)
def test_what_does_not_apply_is_none(models, text, language):
    found = observe_text(text.encode(), language, models, "new")
    for value in found.values():
        assert value is None or math.isfinite(value)


def test_statistics_of_lines_are_odd_at_either_end(models):
    """They are the filters' own measures; views of models say damage by high values alone."""
    names = [view.name for view in views("code") if view.odd]
    assert {"mean_line_length", "comment_share"} <= set(names)
    assert not {"cloze", "syntax_errors"} & set(names)
    assert all(view.odd for view in views("image"))
    found = observe_text(SOURCE.encode(), "Python", models, "new")
    measured = measure_code(names, SOURCE.encode(), "Python")
    assert {name: found[name] for name in names} == measured


def test_pictures_are_measured_by_how_they_look():
    data = picture(PIXELS)
    names = [name for name, item in filters("image").items() if item.group == "looks"]
    assert observe_image(data) == measure_image(names, data)


def test_damage_shows(models):
    damaged = SOURCE.replace("rows:", "rows").replace("+=", "+=+= ) row")
    before = observe_text(SOURCE.encode(), "Python", models, "new")
    after = observe_text(damaged.encode(), "Python", models, "new")
    assert after["syntax_errors"] > before["syntax_errors"]
    assert after[SURPRISE] > before[SURPRISE]
    flat = observe_image(picture(np.full((64, 48, 3), 3, np.uint8)))
    whole = observe_image(picture(PIXELS))
    assert all(flat[name] != whole[name] for name in ("dark", "low_information"))


def test_a_text_is_judged_by_models_that_have_not_read_it(models):
    """The key chooses the half of the corpus that it is judged by: the one it is not in."""
    folds = {models.fold(f"repository{i}"): f"repository{i}" for i in range(70)}
    assert sorted(folds) == [0, 1]
    odd = b"zyx = (wvu ^ tsr) if not qpo else nml\n" * 30
    key = folds[0]
    with_it = fit([*FILES, *[(key, odd, "Python")] * 5])
    other = folds[1]
    own = observe_text(odd, "Python", with_it, key)[SURPRISE]
    assert own > 2 * observe_text(odd, "Python", with_it, other)[SURPRISE]
    assert own == pytest.approx(observe_text(odd, "Python", models, key)[SURPRISE], rel=0.2)
