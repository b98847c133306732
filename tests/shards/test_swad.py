"""Averages of weights against plain means; the valley against a list of losses."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from shardwright.errors import UserError
from shardwright.shards.swad import Average, LossValley


def weights(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"w": rng.normal(size=(3, 4)).astype(np.float32), "b": rng.normal(size=4)}


def test_mean_of_every_step() -> None:
    average, twin = Average(), Average()
    for step in range(50):
        given = weights(step)
        average.add(given)
        twin.add({name: torch.from_numpy(value.copy()) for name, value in given.items()})
        given["w"][:] = 99  # what was given is not kept
    assert average.count == 50
    for name in ("w", "b"):
        wanted = np.mean([weights(step)[name] for step in range(50)], axis=0)
        assert average.mean[name].dtype == weights(0)[name].dtype
        assert average.mean[name] == pytest.approx(wanted, abs=1e-6)
        assert twin.mean[name].numpy() == pytest.approx(wanted, abs=1e-6)


def test_a_mean_taken_stays() -> None:
    average = Average()
    average.add(weights(0))
    first = average.mean
    average.add(weights(1))
    assert (first["w"] == weights(0)["w"]).all()
    first["w"] = None
    assert average.mean["w"] is not None


def test_mean_of_a_module_is_torchs_own() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4))
    theirs = torch.optim.swa_utils.AveragedModel(model)
    average = Average()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(9):
        optimizer.zero_grad()
        model(torch.randn(6, 5)).square().sum().backward()
        optimizer.step()
        theirs.update_parameters(model)
        average.add({name: value.detach() for name, value in model.named_parameters()})
        assert step == average.count - 1
    steps = int(model.state_dict()["1.num_batches_tracked"])
    model.load_state_dict(average.mean, strict=False)
    for own, other in zip(model.parameters(), theirs.module.parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-6)
    assert int(model.state_dict()["1.num_batches_tracked"]) == steps == 9
    assert not any(value.requires_grad for value in average.mean.values())


def valley_of(losses: Sequence[float], **numbers: float) -> tuple[LossValley, list[int]]:
    """The valley, and which segments it averages: segment i has a one in place i."""
    valley = LossValley(**numbers)  # type: ignore[arg-type]
    for place, loss in enumerate(losses):
        valley.add({"w": np.eye(len(losses))[place]}, loss)
    shares = valley.mean["w"]
    chosen = np.flatnonzero(shares > 1e-12)
    assert shares[chosen] == pytest.approx(1 / len(chosen))  # each counts once
    return valley, chosen.tolist()


def test_valley_starts_at_a_minimum_and_ends_within_the_bound() -> None:
    losses = [3.0, 2.0, 1.0, 1.2, 1.1, 1.3, 1.5, 1.4, 2, 2, 2, 2, 2, 1.0, 1.0]
    valley, chosen = valley_of(losses)
    assert valley.bound == pytest.approx(1.1 * 1.3)
    assert chosen == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]  # five beyond do not end it
    valley, chosen = valley_of([*losses[:8], 2, 2, 2, 2, 2, 2, 1.0])
    assert chosen == [2, 3, 4, 5, 6, 7]  # six do, and what comes later is out
    assert valley.ended
    valley, chosen = valley_of([*losses[:8], 2, 2])
    assert chosen == [2, 3, 4, 5, 6, 7]  # what is beyond at the end of the run is out
    assert not valley.ended
    assert valley.segments == 6


def test_first_of_equal_losses_starts_the_valley() -> None:
    assert valley_of([5.0, 1, 1, 1])[1] == [1, 2, 3]
    assert valley_of([1.0, 1, 1])[1] == [0, 1, 2]


def test_without_a_valley_the_last_segment() -> None:
    valley, chosen = valley_of([5, 4, 3, 2, 1])
    assert valley.bound is None
    assert chosen == [4]
    assert valley_of([1, 1])[1] == [1]


def test_numbers_are_looked_at() -> None:
    assert valley_of([1, 2, 1, 1], n_converge=1, n_tolerance=1)[1] == [0]
    assert valley_of([1, 2, 1, 1], n_converge=1, n_tolerance=2)[1] == [0, 1, 2, 3]
    assert valley_of([1, 2, 1, 1], n_converge=1, n_tolerance=1, tolerance_ratio=1)[1] == [
        *(0, 1, 2, 3)
    ]
    assert valley_of([1, 9, 1, 1], n_converge=3, n_tolerance=1, tolerance_ratio=0)[1] == [0]


def test_mistakes_are_named() -> None:
    average = Average()
    with pytest.raises(UserError, match="no weights yet"):
        _ = average.mean
    with pytest.raises(UserError, match="weights n are int64"):
        average.add({"n": np.array([3])})
    with pytest.raises(UserError, match=r"weights n are torch\.bfloat16"):
        average.add({"n": torch.zeros(3, dtype=torch.bfloat16)})
    average = Average()
    average.add({"w": np.zeros(3)})
    with pytest.raises(UserError, match="other weights than before: b"):
        average.add({"w": np.zeros(3), "b": np.zeros(3)})
    with pytest.raises(UserError, match=r"shape \(1,\), before \(3,\)"):
        average.add({"w": np.zeros(1)})
    with pytest.raises(UserError, match="no segments yet"):
        _ = LossValley().mean
    for loss in (float("nan"), -1.0):
        with pytest.raises(UserError, match="held-out loss of a segment"):
            LossValley().add({"w": np.zeros(1)}, loss)
    with pytest.raises(UserError, match="n_converge 0"):
        LossValley(n_converge=0)
