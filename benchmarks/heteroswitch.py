"""Do the switches help? ``python benchmarks/heteroswitch.py [--quick]``.

Federated training on synthetic devices: ``shardwright.shards``' random white balance and gamma,
averaged weights and ``Switches``, after HeteroSwitch (Kim et al., MLSys 2024), whose own set-up and
figures could not be read: nothing here repeats them.

The task, the devices and their clients are those of ``federated_devices.py``.

Arms, each with the same model at the start, clients by round and order of batches:

- ``fedavg``: none of it.
- ``always``: transformation and averaged weights in every client and round.
- ``switched``: both by the measured loss of each client.
- ``chance``: as many transformations and averages a round as ``switched``, in clients drawn by lot:
  whether it matters who is switched on, or how many only.

A seed draws photographs, devices, clients and weights. Differences are between arms of one seed,
intervals 95 % of Student's t over seeds, without a correction for their number. The noise floor is
the variance of accuracies over devices that equal devices would have by the number of test tiles.
All devices see the same tiles, and several models are judged, so it is rather too high.

Runs are written into ``.cache/heteroswitch`` and not run again. They know the settings, the
photographs' names and torch, but not this code: delete them after a change of it.
"""

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from federated_devices import Market, Tiles, World, photographs
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional

from shardwright.quality.heterogeneity.transfer import fairness
from shardwright.shards.isp import RandomIsp
from shardwright.shards.swad import Average
from shardwright.shards.switching import Switches

ROOT = Path(__file__).parents[1]
ARMS = ("fedavg", "always", "switched", "chance")


@dataclass(frozen=True)
class Settings:
    """A run's size and constants.

    Attributes:
        market: Tiles, devices and clients.
        rounds: Of all arms.
        judged: The last of them: accuracies are means over the models that these end with.
        chosen: Clients of a round.
        epochs: Passes of a client over its tiles in a round.
        batch: Tiles of a step.
        rate: Of SGD with momentum 0.9.
        white_balance: Degree of the transformation, stops.
        gamma: And its largest exponent.
        memory: Of the switches.
    """

    market: Market = field(default_factory=Market)
    rounds: int = 80
    judged: int = 5
    chosen: int = 8
    epochs: int = 2
    batch: int = 11
    rate: float = 0.05
    white_balance: float = 0.4
    gamma: float = 1.4
    memory: float = 0.5


QUICK = Settings(Market(photographs=12, clients=(3, 2, 1), unseen=2), rounds=6, judged=2, chosen=3)


# --- federated training --------------------------------------------------------------------------


def network(classes: int) -> nn.Module:
    """A small convolutional network, without batch norm: its statistics are no weights."""
    layers: list[nn.Module] = []
    for before, after, side, stride, rim in (
        (3, 24, 4, 4, 0),
        (24, 48, 3, 2, 1),
        (48, 64, 3, 2, 1),
    ):
        layers += [nn.Conv2d(before, after, side, stride, rim), nn.GroupNorm(4, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, classes))


def _ready(images: Tensor) -> Tensor:
    return images.to(torch.float32) / 127.5 - 1


def judge(model: nn.Module, given: Tiles) -> tuple[float, float]:
    """Mean loss and accuracy."""
    with torch.no_grad():
        guesses = model(_ready(given.images))
        loss = functional.cross_entropy(guesses, given.answers)
    return float(loss), float((guesses.argmax(1) == given.answers).float().mean())


@dataclass(frozen=True)
class Returned:
    """What a client gives back."""

    weights: dict[str, Tensor]
    tiles: int
    before: float
    after: float
    transformed: bool
    averaged: bool


class Client:
    """One client's part of a round."""

    def __init__(self, settings: Settings, seed: int, who: int, given: Tiles) -> None:
        self.settings, self.given = settings, given
        self.seed, self.who = seed, who
        self.isp = RandomIsp(settings.white_balance, settings.gamma, seed)

    def train(self, model: nn.Module, number: int, decide: "Decisions") -> Returned:
        """Trains the model, which holds the weights of the round when it comes."""
        before, _ = judge(model, self.given)
        transformed = decide.transforms(self.who, before)
        optimizer = torch.optim.SGD(model.parameters(), self.settings.rate, momentum=0.9)
        average, losses = Average(), []
        draws = np.random.SeedSequence([self.seed, self.who, number]).generate_state(1)
        draw = torch.Generator().manual_seed(int(draws[0]))
        for epoch in range(self.settings.epochs):
            images = self.given.images
            if transformed:
                isp = self.isp.at(number * self.settings.epochs + epoch)
                images = isp.batch(images, {"record_id": self.given.names})
            order = torch.randperm(len(images), generator=draw)
            for rows in order.split(self.settings.batch):
                mirrored = torch.rand(len(rows), generator=draw) < 0.5
                batch = torch.where(mirrored[:, None, None, None], images[rows].flip(3),
                                    images[rows])  # fmt: skip
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(_ready(batch)), self.given.answers[rows])
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
                average.add({name: value.detach() for name, value in model.named_parameters()})
        after = float(np.mean(losses))
        averaged = decide.averages(self.who, before, after)
        last = {name: value.detach().clone() for name, value in model.named_parameters()}
        weights = average.mean if averaged else last
        return Returned(weights, len(self.given.answers), before, after, transformed, averaged)


class Decisions:
    """Which clients are switched on in an arm.

    ``drawn`` is of the arm ``chance``: the clients of each round that are switched on, by switch.
    """

    def __init__(
        self, arm: str, switches: Switches, drawn: tuple[frozenset[int], frozenset[int]]
    ) -> None:
        self.arm, self.switches, self.drawn = arm, switches, drawn

    def transforms(self, who: int, before: float) -> bool:
        """The first switch."""
        if self.arm == "chance":
            return who in self.drawn[0]
        return self.arm == "always" or (self.arm == "switched" and self.switches.transforms(before))

    def averages(self, who: int, before: float, after: float) -> bool:
        """The second switch."""
        if self.arm == "chance":
            return who in self.drawn[1]
        return self.arm == "always" or (
            self.arm == "switched" and self.switches.averages(before, after)
        )


def run(
    world: World, arm: str, seed: int, settings: Settings, counts: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Trains and judges an arm.

    Args:
        world: Of the seed.
        arm: One of ``ARMS``.
        seed: Draws weights, clients by round and batches, the same in all arms.
        settings: Sizes.
        counts: Of ``switched``, for ``chance``: transformed and averaged clients of each round.
    """
    began = time.process_time()
    torch.manual_seed(seed)
    model = network(settings.market.photographs)
    state = {name: value.detach().clone() for name, value in model.named_parameters()}
    switches = Switches(settings.memory)
    clients = [Client(settings, seed, who, given) for who, given in enumerate(world.clients)]
    rng, lots = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    rounds: list[list[tuple[str, bool, bool]]] = []
    judged: dict[str, list[tuple[float, float]]] = {name: [] for name in world.tests}
    for number in range(settings.rounds):
        chosen = rng.choice(len(clients), settings.chosen, replace=False).tolist()
        on = [int(i) for i in lots.permutation(chosen)]
        first, second = counts[number] if counts else (0, 0)
        decide = Decisions(arm, switches, (frozenset(on[:first]), frozenset(on[:second])))
        returned = []
        for who in chosen:
            model.load_state_dict(state)
            returned.append(clients[who].train(model, number, decide))
        total = sum(one.tiles for one in returned)
        state = {
            name: sum((one.weights[name] * (one.tiles / total) for one in returned),
                      torch.zeros_like(value))
            for name, value in state.items()
        }  # fmt: skip
        switches = switches.next_round(
            [one.before for one in returned], [one.after for one in returned]
        )
        rounds.append(
            [(world.owners[w], r.transformed, r.averaged)
             for w, r in zip(chosen, returned, strict=True)]
        )  # fmt: skip
        if number >= settings.rounds - settings.judged:
            model.load_state_dict(state)
            for name, given in world.tests.items():
                judged[name].append(judge(model, given))
    loss, accuracy = (
        {name: float(np.mean([one[i] for one in found])) for name, found in judged.items()}
        for i in (0, 1)
    )
    return {
        "arm": arm,
        "seed": seed,
        "settings": asdict(settings),
        "accuracy": accuracy,
        "loss": loss,
        "tests": {name: len(given.answers) for name, given in world.tests.items()},
        "rounds": rounds,
        "cpu_seconds": time.process_time() - began,
    }


# --- runs, from the cache or run now -------------------------------------------------------------


def of_seed(seed: int, settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """All arms of a seed."""
    torch.set_num_threads(1)  # on one number of threads a run repeats to the bit
    found = photographs(given.photographs, given.cache)
    digest = hashlib.sha256(
        json.dumps([asdict(settings), sorted(found), torch.__version__]).encode()
    ).hexdigest()[:12]
    arms: dict[str, Any] = {}
    world: World | None = None
    for arm in ARMS:
        path = given.cache / f"{digest}-{seed}-{arm}.json"
        if not path.exists():
            world = world or World.drawn(found, seed, settings.market)
            counts = []
            if arm == "chance":
                counts = [
                    (sum(one[1] for one in clients), sum(one[2] for one in clients))
                    for clients in arms["switched"]["rounds"]
                ]
            one = run(world, arm, seed, settings, counts)
            path.with_suffix(".staged").write_text(json.dumps(one))
            path.with_suffix(".staged").rename(path)
            print(f"  seed {seed} {arm}: {one['cpu_seconds']:.0f} s of one core", flush=True)
        arms[arm] = json.loads(path.read_text())
    return arms


MEASURES = ("mean", "variance", "worst")


def judged(one: Mapping[str, Any], kind: str) -> dict[str, float]:
    """Mean and worst accuracy in percent, variance and its floor in squared points, of a kind."""
    wanted = {name: value for name, value in one["accuracy"].items() if name.startswith(kind)}
    found = fairness(wanted, {name: one["tests"][name] for name in wanted})
    return {
        "mean": 100 * found.mean,
        "variance": 1e4 * found.variance,
        "floor": 1e4 * found.floor,
        "worst": 100 * found.worst,
    }


def report(seeds: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Prints the tables as Markdown."""
    print("\n| arm | devices | accuracy | variance | noise floor | worst device | transformed "
          "| averaged | CPU s |\n|---|---|---:|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    kinds = ("trained", "unseen")
    for arm in ARMS:
        rows = [seed[arm] for seed in seeds]
        on = np.array([one[1:] for row in rows for clients in row["rounds"] for one in clients])
        seconds = np.mean([row["cpu_seconds"] for row in rows])
        for kind in kinds:
            of = [judged(row, kind) for row in rows]
            mean = {name: np.mean([one[name] for one in of]) for name in of[0]}
            print(
                f"| `{arm}` | {kind} | {mean['mean']:.1f} % | {mean['variance']:.1f} "
                f"| {mean['floor']:.1f} | {mean['worst']:.1f} % | {100 * on[:, 0].mean():.0f} % "
                f"| {100 * on[:, 1].mean():.0f} % | {seconds:.0f} |"
            )
    print("\n| less | devices | accuracy | variance | worst device |\n|---|---|---|---|---|")
    for arm, other in (
        *(("always", "fedavg"), ("switched", "fedavg"), ("chance", "fedavg")),
        *(("switched", "always"), ("switched", "chance")),
    ):
        for kind in kinds:
            cells = []
            for name in MEASURES:
                pairs = [(judged(s[arm], kind)[name], judged(s[other], kind)[name]) for s in seeds]
                cells.append(interval([mine - theirs for mine, theirs in pairs]))
            print(f"| `{arm}` less `{other}` | {kind} | {' | '.join(cells)} |")
    share: dict[str, list[bool]] = {}
    for seed in seeds:
        for clients in seed["switched"]["rounds"]:
            for device, transformed, _ in clients:
                share.setdefault(device, []).append(transformed)
    print("\n| device | clients | transformed in `switched` |\n|---|---:|---:|")
    for device, count in zip(sorted(share), settings.market.clients, strict=False):
        print(f"| {device} | {count} | {100 * np.mean(share[device]):.0f} % |")


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval of Student's t."""
    mean = np.mean(values)
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def main() -> None:
    """Runs what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photographs", type=Path, default=ROOT / ".cache" / "photographs" / "photographs"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="of the seeds")
    parser.add_argument("--rounds", type=int, help="instead of those of the settings")
    parser.add_argument("--jobs", type=int, default=2, help="seeds that run beside each other")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "heteroswitch")
    parser.add_argument("--quick", action="store_true", help="two small seeds: does it run?")
    given = parser.parse_args()
    settings = QUICK if given.quick else Settings()
    if given.rounds:
        settings = replace(settings, rounds=given.rounds)
    numbers = range(given.first, given.first + (2 if given.quick else given.seeds))
    if len(numbers) < 2:
        parser.error("two seeds at least, for intervals")
    photographs(given.photographs, given.cache)
    print(f"{time.strftime('%Y-%m-%d')}; torch {torch.__version__}; {os.cpu_count()} cores")
    print(f"seeds {numbers[0]} to {numbers[-1]}; {settings}", flush=True)
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        size = len(numbers)
        seeds = list(pool.map(of_seed, numbers, [settings] * size, [given] * size))
    report(seeds, settings)


if __name__ == "__main__":
    main()
