"""A small causal language model for benchmarks/pruning_training.py, and how two of them differ.

Runs that are compared share as much as can be: weights at the start, tokenizer, and the order of
the windows. Where a window's file was pruned, its place in the order is taken by a window that is
kept; all other places stay as they are, so that two runs differ by what pruning changed and by
little else. Every step trains on exactly ``step_tokens`` tokens: equal tokens are equal steps too.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional

START = 0
"""The token before each window; it pads as well."""
IGNORED = -100
"""The target of padding."""
WARMUP, FLOOR, DECAY, CLIP = 0.05, 0.1, 0.1, 1.0
"""Share of the steps in which the rate rises; the last rate; AdamW's decay; largest gradient."""
DRAWS = 4_000
"""Of the bootstrap over projects."""


@dataclass(frozen=True)
class Settings:
    """A model and its training.

    Attributes:
        width: Of the residual stream.
        layers: How many blocks.
        heads: Of attention; they divide the width.
        context: Tokens of a window.
        vocabulary: Tokens of the byte-level BPE.
        tokens: Trained on in all.
        step_tokens: Trained on in one step.
        rate: Highest learning rate.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    context: int = 256
    vocabulary: int = 2048
    tokens: int = 1_500_000
    step_tokens: int = 1024
    rate: float = 4e-3

    @property
    def steps(self) -> int:
        """Of the training."""
        return max(1, self.tokens // self.step_tokens)

    @property
    def name(self) -> str:
        """Short hash of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


PRESETS = {
    "small": Settings(),
    "large": Settings(512, 8, 8, 512, 8192, 40_000_000, 32_768, 1e-3),
}


@dataclass(frozen=True)
class Windows:
    """Texts as windows of tokens; no window spans two texts.

    Attributes:
        tokens: uint16 [t], of all texts.
        start: int64 [n], where each window begins in ``tokens``.
        length: int64 [n], from 1 to the context.
        owner: int64 [n], the text of each window.
    """

    tokens: Any
    start: Any
    length: Any
    owner: Any

    def spread(self, most: int) -> "Windows":
        """At most so many windows of each text, evenly spread over it."""
        chosen: list[int] = []
        bounds = np.flatnonzero(np.diff(self.owner, prepend=-1))
        for low, high in zip(bounds, [*bounds[1:], len(self.owner)], strict=True):
            count = min(most, high - low)
            chosen += [low + round(float(at)) for at in np.linspace(0, high - low - 1, count)]
        rows = np.array(chosen)
        return replace(
            self, start=self.start[rows], length=self.length[rows], owner=self.owner[rows]
        )


def fit_tokenizer(texts: Sequence[bytes], vocabulary: int) -> Tokenizer:
    """A byte-level BPE; no text is out of its reach."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<start>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.decode() for text in texts), trainer)
    return tokenizer


def token_bytes(tokenizer: Tokenizer) -> Any:
    """Bytes of each token, int64 [vocabulary]: a byte-level BPE writes each byte as one letter."""
    names = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return np.array([0 if i == START else len(name) for name, i in names])


def cut(tokenizer: Tokenizer, texts: Sequence[bytes], context: int) -> Windows:
    """Cuts texts into windows of ``context`` tokens, the last of each text being shorter."""
    pieces, start, length, owner, at = [], [], [], [], 0
    for low in range(0, len(texts), 256):
        batch = [text.decode() for text in texts[low : low + 256]]
        for number, found in enumerate(tokenizer.encode_batch_fast(batch)):
            ids = np.array(found.ids, np.uint16)
            for offset in range(0, len(ids), context):
                start.append(at + offset)
                length.append(min(context, len(ids) - offset))
                owner.append(low + number)
            at += len(ids)
            pieces.append(ids)
    return Windows(np.concatenate(pieces), np.array(start), np.array(length), np.array(owner))


def order(windows: Windows, kept: Any, seed: int) -> Iterator[int]:
    """Windows to train on, without end.

    Args:
        windows: Of all texts, pruned ones among them.
        kept: bool [texts].
        seed: Of the order.

    Yields:
        Places in ``windows``. In an epoch of all texts every window has one place; the place of a
        pruned one goes to a kept one, from the end of the epoch on, so that in the first part of
        the first epoch no window comes twice.
    """
    epoch = 0
    while True:
        places = np.random.default_rng([seed, epoch]).permutation(len(windows.owner))
        gone = ~kept[windows.owner[places]]
        places[gone] = np.resize(places[~gone][::-1], gone.sum())
        yield from places.tolist()
        epoch += 1


def batches(
    windows: Windows, places: Iterator[int], settings: Settings
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets int64 [rows, context] of exactly ``step_tokens`` targets, without end."""
    while True:
        rows: list[Any] = []
        left = settings.step_tokens
        while left:
            i = next(places)
            size = min(int(windows.length[i]), left)
            rows.append(windows.tokens[windows.start[i] : windows.start[i] + size])
            left -= size
        yield padded(rows, settings.context)


def padded(rows: list[Any], context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, which are a token late, and targets int64 [rows, context]."""
    inputs = np.full((len(rows), context), START, np.int64)
    targets = np.full((len(rows), context), IGNORED, np.int64)
    for at, row in enumerate(rows):
        inputs[at, 1 : len(row)] = row[:-1]
        targets[at, : len(row)] = row
    return torch.from_numpy(inputs), torch.from_numpy(targets)


class Block(nn.Module):
    """Causal attention and two layers of feed-forward, both behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look, self.tell = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Residual stream [rows, context, width] after the block."""
        rows, context, width = x.shape
        split = self.look(self.before(x)).view(rows, context, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.tell(seen.transpose(1, 2).reshape(rows, context, width))
        fed: torch.Tensor = self.feed(self.between(x))
        return x + fed


class Model(nn.Module):
    """A decoder-only transformer with learned positions; embeddings are tied to the output."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.embed = nn.Embedding(settings.vocabulary, settings.width)
        self.place = nn.Parameter(torch.zeros(settings.context, settings.width))
        self.blocks = nn.Sequential(
            *(Block(settings.width, settings.heads) for _ in range(settings.layers))
        )
        self.norm = nn.LayerNorm(settings.width)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("tell.weight", "feed.2.weight"))
                depth = math.sqrt(2 * settings.layers) if last else 1.0
                nn.init.normal_(weight, std=0.02 / depth)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Nats of each target [rows, context], 0 where there is none."""
        x = self.norm(self.blocks(self.embed(inputs) + self.place))
        wanted = targets.reshape(-1) != IGNORED
        logits = functional.linear(x.reshape(-1, x.shape[-1])[wanted], self.embed.weight)
        nats = torch.zeros(targets.numel(), device=x.device)
        nats[wanted] = functional.cross_entropy(
            logits.float(), targets.reshape(-1)[wanted], reduction="none"
        )
        return nats.view(targets.shape)


def rate_at(step: int, settings: Settings) -> float:
    """Share of the highest rate: a rise, then half a cosine (Loshchilov and Hutter 2017)."""
    warm = max(1, round(WARMUP * settings.steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, settings.steps - warm)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Trained:
    """A model with what its training was.

    Attributes:
        model: On its device.
        tokens: Trained on.
        losses: Nats per token of each step.
        seconds: Of the clock.
        cpu_seconds: Of all threads.
    """

    model: Model
    tokens: int
    losses: list[float]
    seconds: float
    cpu_seconds: float


def train(
    windows: Windows, kept: Any, seed: int, order_seed: int, settings: Settings, device: str
) -> Trained:
    """Trains from scratch.

    Args:
        windows: Of all texts, pruned ones among them.
        kept: bool [texts].
        seed: Of the weights.
        order_seed: Of the order.
        settings: The model and its training.
        device: ``cpu`` or ``cuda``, which trains in bfloat16 under autocast.
    """
    torch.manual_seed(seed)
    model = Model(settings).to(device).train()
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.rate,
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, settings))
    began, began_cpu = time.perf_counter(), time.process_time()
    supply = batches(windows, order(windows, kept, order_seed), settings)
    tokens, losses = 0, []
    for _ in range(settings.steps):
        inputs, targets = next(supply)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            nats = model(inputs.to(device), targets.to(device))
        loss = nats.sum() / settings.step_tokens
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        tokens += int((targets != IGNORED).sum())
        losses.append(loss.detach())
    nats_per_token = torch.stack(losses).tolist()
    seconds = time.perf_counter() - began
    return Trained(model, tokens, nats_per_token, seconds, time.process_time() - began_cpu)


def judge(
    model: Model, windows: Windows, sizes: Any, settings: Settings, device: str
) -> tuple[Any, Any]:
    """Bits float64 and bytes int64 of each text's windows.

    Args:
        model: On the device.
        windows: To be judged; each text has one at least.
        sizes: int64 [vocabulary], bytes of each token.
        settings: The model's.
        device: Where it runs.
    """
    model.eval()
    texts = int(windows.owner.max()) + 1
    bits, count = np.zeros(texts), np.zeros(texts, np.int64)
    step = max(1, settings.step_tokens // settings.context)
    with torch.inference_mode():
        for low in range(0, len(windows.owner), step):
            part = range(low, min(low + step, len(windows.owner)))
            rows = [windows.tokens[windows.start[i] :][: windows.length[i]] for i in part]
            inputs, targets = padded(rows, settings.context)
            nats = model(inputs.to(device), targets.to(device)).double().sum(dim=1).cpu().numpy()
            np.add.at(bits, windows.owner[part], nats / math.log(2))
            np.add.at(count, windows.owner[part], [int(sizes[row].sum()) for row in rows])
    return bits, count


@dataclass(frozen=True)
class Difference:
    """Of two arms in bits per byte, below 0 where the first is better.

    Attributes:
        value: Mean over seeds of the difference on all files together.
        seeds: 95% interval over seeds, by Student's t.
        projects: 95% interval over held-out projects, by a bootstrap of whole projects.
        error: Standard error over seeds.
    """

    value: float
    seeds: tuple[float, float]
    projects: tuple[float, float]
    error: float

    @property
    def apart(self) -> bool:
        """Neither interval holds 0."""
        return all(low > 0 or high < 0 for low, high in (self.seeds, self.projects))

    def __str__(self) -> str:
        seeds, projects = (
            f"{low:+.4f} to {high:+.4f}" for low, high in (self.seeds, self.projects)
        )
        return f"{self.value:+.4f} | {seeds} | {projects} | {'yes' if self.apart else 'no'}"


def difference(
    one: tuple[Any, Any], other: tuple[Any, Any], projects: Sequence[str], rows: Any
) -> Difference:
    """The first arm's bits per byte less the other's.

    Args:
        one: Bits and bytes, float64 [seeds, files].
        other: As ``one``; seed by seed the bytes are equal.
        projects: Of the files.
        rows: Which of the files count.
    """
    groups = sorted({projects[i] for i in rows})
    where = {name: place for place, name in enumerate(groups)}
    member = np.array([where[projects[i]] for i in rows])
    gained = np.zeros((len(one[0]), len(groups)))
    size = np.zeros_like(gained)
    for seed in range(len(gained)):
        np.add.at(gained[seed], member, (one[0] - other[0])[seed, rows])
        np.add.at(size[seed], member, one[1][seed, rows])
    each = gained.sum(axis=1) / size.sum(axis=1)
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.nan
    reach = float(stats.t.ppf(0.975, len(each) - 1)) * error if len(each) > 1 else math.nan
    drawn = np.random.default_rng(0).multinomial(
        len(groups), np.full(len(groups), 1 / len(groups)), DRAWS
    )
    means = (drawn @ gained.T / (drawn @ size.T)).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]) if len(groups) > 1 else (math.nan, math.nan)
    value = float(each.mean())
    return Difference(value, (value - reach, value + reach), (float(low), float(high)), error)


def smallest_effect(error: float, seeds: int) -> float:
    """What is found four times in five at the 5% level: 2.8 errors where seeds are many.

    Of few seeds Student's t asks for more: 3.7 errors of 5.
    """
    return float(stats.t.ppf(0.975, seeds - 1) + stats.t.ppf(0.8, seeds - 1)) * error
