"""Images to batches, against the library's own processing."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BitImageProcessor,
    BitImageProcessorFast,
    Dinov2Config,
    Dinov2Model,
)

from shardwright.embeddings import image_batches as module
from shardwright.embeddings import load_encoder
from shardwright.embeddings.encoder import TorchOptions, Window
from shardwright.embeddings.image_batches import BYTES, ImageBatches
from shardwright.errors import DataError, UserError

REAL = Path(__file__).parents[2] / ".cache" / "pictures"
SIZES = {"size": {"shortest_edge": 40}, "crop_size": {"height": 28, "width": 28}}
COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def save_dinov2(folder, processor=BitImageProcessor):
    """A DINOv2 model of random weights, as the Hub has it: no sentence-transformers files."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    processor(do_convert_rgb=True, **SIZES, **COLOURS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    return save_dinov2(tmp_path_factory.mktemp("models") / "tiny-dinov2")


def load(model, **change):
    values = {"modality": "image", "device": "cpu", "dtype": "float32", "batch_size": 3}
    return load_encoder(model, **(values | change))


def picture(seed, width=120, height=90):
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return buffer.getvalue()


PICTURES = [picture(i, 60 + 11 * i, 130 - 9 * i) for i in range(8)]
DATA = [encoded(image) for image in PICTURES]


def test_dinov2_gives_the_first_token(dinov2):
    encoder = load(f"preset:dinov2:{dinov2}")
    rows = encoder.encode(DATA)
    processor = AutoImageProcessor.from_pretrained(dinov2)
    model = AutoModel.from_pretrained(dinov2).eval()
    with torch.inference_mode():
        inputs = processor(images=PICTURES, return_tensors="pt")
        expected = model(**inputs).last_hidden_state[:, 0].numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert encoder.name.startswith("preset:dinov2:tiny-dinov2@sha256-")
    assert encoder.description["pixels"] == "bytes"
    assert encoder.description["license"] == "Apache-2.0"


@pytest.mark.parametrize("processor", [BitImageProcessor, BitImageProcessorFast])
def test_bytes_normalised_on_the_device_are_the_librarys_pixels(tmp_path, processor):
    model = SentenceTransformer(str(save_dinov2(tmp_path / "m", processor)), device="cpu")
    batches = ImageBatches(model, 3, 2, draft=False)
    assert batches.normalise is not None
    found = list(batches.batches(DATA))
    assert [batch.rows.tolist() for batch in found] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert all(batch.features[BYTES].dtype == torch.uint8 for batch in found)
    pixels = torch.cat([batches.normalise(batch.features[BYTES]) for batch in found])
    assert torch.allclose(pixels, model.preprocess(PICTURES)["pixel_values"], atol=1e-5)


def test_a_processor_that_does_not_come_apart_does_it_all(dinov2, monkeypatch):
    rows = load(f"preset:dinov2:{dinov2}").encode(DATA)
    monkeypatch.setattr(module.Normalise, "forward", lambda self, pixels: pixels * 1.0)
    encoder = load(f"preset:dinov2:{dinov2}")
    assert encoder.description["pixels"] == "library"
    np.testing.assert_allclose(encoder.encode(DATA), rows, atol=1e-6)
    with pytest.raises(DataError, match="input 1 of the batch: the image does not decode"):
        encoder.encode([DATA[0], b"no image"])


def test_any_number_of_threads_gives_the_same_bits(dinov2):
    model = SentenceTransformer(str(dinov2), device="cpu")
    pixels = [
        torch.cat(
            [batch.features[BYTES] for batch in ImageBatches(model, 3, n, False).batches(DATA)]
        )
        for n in (1, 4)
    ]
    assert torch.equal(*pixels)


def test_images_that_do_not_fit_go_through_in_halves(dinov2, monkeypatch):
    encoder = load(f"preset:dinov2:{dinov2}", batch_size=8)
    rows, vectors = encoder.encode(DATA), encoder._vectors

    def small(features):
        if len(features[BYTES]) > 2:
            raise torch.OutOfMemoryError("full")
        return vectors(features)

    monkeypatch.setattr(encoder, "_vectors", small)
    with pytest.warns(UserWarning, match=r"batch of shape \[8, 3, 28, 28\]"):
        np.testing.assert_allclose(encoder.encode(DATA), rows, atol=1e-6)


def test_draft_decodes_large_jpegs_small(dinov2, monkeypatch):
    options = TorchOptions(draft=True)
    plain, draft = load(f"preset:dinov2:{dinov2}"), load(f"preset:dinov2:{dinov2}", options=options)
    assert draft.description["draft"] == "80"  # twice what the model resizes to
    assert draft.fingerprint != plain.fingerprint
    sizes = []
    resized = module._resized
    monkeypatch.setattr(
        module, "_resized", lambda p, image: sizes.append(image.size) or resized(p, image)
    )
    large = encoded(picture(1, 800, 600), "JPEG")
    cosine = (draft.encode([large]) * plain.encode([large])).sum()
    assert sizes == [(200, 150), (800, 600)]
    assert 1 - cosine < 1e-2
    assert np.array_equal(draft.encode(DATA), plain.encode(DATA))  # PNG has no draft


def test_windows_are_for_texts(dinov2):
    with pytest.raises(UserError, match=r"embedding\.window is for texts"):
        load(f"preset:dinov2:{dinov2}", options=TorchOptions(window=Window(8, 4)))


@pytest.mark.skipif(not REAL.exists(), reason="needs `make .cache/pictures`")
def test_real_pictures_agree_with_the_library(dinov2):
    paths = sorted(path for path in REAL.rglob("*") if path.is_file())[::10]
    data, pictures = [], []
    for path in paths:
        with Image.open(path) as image:
            if image.mode == "RGB":  # the library has its own way with other modes
                pictures.append(image.copy())
                data.append(path.read_bytes())
    assert len(data) > 5
    rows = load(f"sentence-transformers:{dinov2}").encode(data)
    theirs = SentenceTransformer(str(dinov2), device="cpu").encode(
        pictures, normalize_embeddings=True
    )
    assert (1 - (rows * theirs).sum(axis=1)).max() < 1e-5
