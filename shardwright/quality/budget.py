"""What repeated data is worth, and so how much of a pool to keep for a given amount of training.

Two published laws. ``RepetitionLaw`` (Muennighoff et al. 2023, "Scaling Data-Constrained Language
Models", arXiv 2305.16264) says how a token loses worth when it is seen again, whatever its quality;
its constants are those that the authors publish with their code. ``FilteringLaw`` (Goyal et al.
2024, "Scaling Laws for Data Filtering", arXiv 2404.07177) gives each pool of data a utility and a
half-life, and so can say which pools to train on. It follows the authors' code.

``plan`` turns the first into a table: a smaller share of the data is seen more often, and what is
lost by that, selection has to win back. ``shardwright.quality.budget_fit`` fits both laws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.errors import UserError

Float64: TypeAlias = npt.NDArray[np.float64]
Form: TypeAlias = Literal["utility", "data"]

FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)

_POINTS = 512  # of the grid over model sizes; the next grid lies between two neighbours of the best
_ZOOMS = 5
_NORMAL_SAMPLES = 1e5  # the unit that the authors' code of the filtering law counts samples in


@dataclass(frozen=True)
class Optimum:
    """The best use of a compute budget; ``epochs`` below 1 leave data unseen."""

    parameters: float
    tokens: float
    epochs: float
    loss: float


@dataclass(frozen=True)
class RepetitionLaw:
    """L = E + A / N'^alpha + B / D'^beta, where repetition makes N' and D' less than N and D.

    Attributes:
        log_a: Natural logarithm of A.
        log_b: Natural logarithm of B.
        log_e: Natural logarithm of E, the loss that no model and no data take away.
        alpha: Exponent of the parameters.
        beta: Exponent of the tokens.
        data_decay: R*_D, the repetitions after which a token's worth has fallen to 1/e.
        parameter_decay: R*_N, the same for parameters beyond what the unique data can use.
    """

    log_a: float = 6.255414
    log_b: float = 7.3049974
    log_e: float = 0.6254804
    alpha: float = 0.3526596
    beta: float = 0.3526596
    data_decay: float = 15.387756
    parameter_decay: float = 5.309743

    def effective_data(self, unique: npt.ArrayLike, seen: npt.ArrayLike) -> Float64:
        """D', the unique tokens that would be worth what was seen.

        D' = U + U R* (1 - exp(-R / R*)) with R = seen / U - 1 repetitions.

        Args:
            unique: Tokens there are, U > 0. What is not reached counts for nothing.
            seen: Tokens trained on, repeated ones included, > 0; the two broadcast.

        Returns:
            float64: at most ``seen``, and at most (1 + R*) times ``unique``.
        """
        seen = np.asarray(seen, np.float64)
        return _saturated(np.minimum(unique, seen), seen, self.data_decay)

    def effective_parameters(self, parameters: npt.ArrayLike, unique: npt.ArrayLike) -> Float64:
        """N', the parameters without excess that would be worth these.

        Parameters are in excess beyond the compute-optimal number for ``unique`` tokens.

        Args:
            parameters: N > 0.
            unique: Unique tokens that were seen, > 0; the two broadcast.
        """
        parameters = np.asarray(parameters, np.float64)
        needed = np.minimum(parameters, self.optimal_parameters(unique))
        return _saturated(needed, parameters, self.parameter_decay)

    def optimal_parameters(self, tokens: npt.ArrayLike) -> Float64:
        """The compute-optimal parameters for so many tokens, each seen once.

        (G D)^(beta / alpha) G, G = (alpha A / (beta B))^(1 / (alpha + beta)).
        """
        log_g = np.log(self.alpha / self.beta) + self.log_a - self.log_b
        g = np.exp(log_g / (self.alpha + self.beta))
        best: Float64 = (g * np.asarray(tokens, np.float64)) ** (self.beta / self.alpha) * g
        return best

    def loss(
        self, parameters: npt.ArrayLike, tokens: npt.ArrayLike, unique: npt.ArrayLike
    ) -> Float64:
        """Loss of a model of N parameters after ``tokens`` tokens of ``unique`` ones; broadcast.

        The authors warn that its trend is of use and its value hardly.
        """
        unique = np.minimum(unique, np.asarray(tokens, np.float64))
        log_n = np.log(self.effective_parameters(parameters, unique))
        log_d = np.log(self.effective_data(unique, tokens))
        terms = (self.log_a - self.alpha * log_n, self.log_b - self.beta * log_d)
        total: Float64 = np.exp(self.log_e) + np.exp(terms[0]) + np.exp(terms[1])
        return total

    def optimum(self, flops: float, unique: float) -> Optimum:
        """The least loss that ``flops`` = 6 N D reach with ``unique`` tokens.

        Found on grids over log N, each finer than the one before.

        Raises:
            UserError: a budget of less than six operations, or no tokens.
        """
        if not (flops > 6 and unique > 0):
            raise UserError(
                f"flops = {flops}, unique = {unique}: give more than 6, and more than 0"
            )
        low, high = 0.0, float(np.log(flops / 6))
        for _ in range(_ZOOMS):
            grid = np.linspace(low, high, _POINTS)
            parameters = np.exp(grid)
            losses = self.loss(parameters, flops / 6 / parameters, unique)
            best = int(np.argmin(losses))
            low, high = grid[max(best - 1, 0)], grid[min(best + 1, _POINTS - 1)]
        size = float(parameters[best])
        tokens = flops / 6 / size
        return Optimum(size, tokens, tokens / unique, float(losses[best]))


def _saturated(unique: Float64, total: Float64, decay: float) -> Float64:
    """``unique``, and of what ``total`` has beyond it less and less."""
    repeats = np.maximum(total / unique - 1, 0)
    worth: Float64 = unique * (1 - decay * np.expm1(-repeats / decay))
    return worth


@dataclass(frozen=True)
class Fraction:
    """What becomes of a training budget if a share of the data is kept.

    Attributes:
        kept: Share of the unique tokens.
        unique: Unique tokens that are kept.
        epochs: How often each is seen; below 1 where the budget ends before the data.
        effective: Tokens that would be worth as much, had each been seen once.
        value: ``effective`` by the budget: the worth of a token of training.
        gain: How many times as many tokens all the data is worth as the kept share is, quality
            apart: the data efficiency that selection must bring to break even.
    """

    kept: float
    unique: float
    epochs: float
    effective: float
    value: float
    gain: float


def plan(
    unique_tokens: float,
    budget_tokens: float,
    fractions: Sequence[float] = FRACTIONS,
    law: RepetitionLaw | None = None,
) -> list[Fraction]:
    """What each share of the data is worth for a budget, by the repetition law.

    Args:
        unique_tokens: Tokens in all the data, each counted once.
        budget_tokens: Tokens that will be trained on, repeated ones included.
        fractions: Shares of the data, each in (0, 1].
        law: Its ``data_decay`` counts; the published one unless given.

    Returns:
        A row for each share, in the order given.

    Raises:
        UserError: a number of tokens that is not positive, or a share that is not in (0, 1].
    """
    law = law or RepetitionLaw()
    for name, tokens in (("unique_tokens", unique_tokens), ("budget_tokens", budget_tokens)):
        if not 0 < tokens < float("inf"):
            raise UserError(f"{name} = {tokens}: give a number of tokens above 0")
    for kept in fractions:
        if not 0 < kept <= 1:
            raise UserError(f"fractions: {kept} is no share; give numbers above 0 and up to 1")
    everything = float(law.effective_data(unique_tokens, budget_tokens))
    rows = []
    for kept in fractions:
        unique = kept * unique_tokens
        worth = float(law.effective_data(unique, budget_tokens))
        epochs, value = budget_tokens / unique, worth / budget_tokens
        rows.append(Fraction(kept, unique, epochs, worth, value, everything / worth))
    return rows


def describe(rows: Sequence[Fraction]) -> list[str]:
    """Lines of plain text, aligned: what the rows are about, their columns, and a line for each."""
    if not rows:
        return []
    first = rows[0]
    total, budget = first.unique / first.kept, first.unique * first.epochs
    lines = [("kept", "unique", "epochs", "worth", "of budget", "gain needed")]
    lines += [
        (
            f"{row.kept:.4g}",
            _tokens(row.unique),
            f"{row.epochs:.2f}",
            _tokens(row.effective),
            f"{row.value:.1%}",
            f"{row.gain:.3f}x",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(map(str.rjust, line, widths)) for line in lines]
    return [f"{_tokens(budget)} tokens of training, {_tokens(total)} unique tokens:", *texts]


def _tokens(count: float) -> str:
    """Three figures or more, with k, M, B or T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.2f}{unit}"
    return f"{count:.0f}"


@dataclass(frozen=True)
class Pool:
    """A pool of the filtering law.

    Attributes:
        utility: b < 0, the exponent by which error falls with samples; lower is better.
        half_life: tau > 0, the epochs over this pool alone after which the utility is halved.
    """

    utility: float
    half_life: float


@dataclass(frozen=True)
class Choice:
    """The best number of pools, taken from the best on, and the error for each number of them."""

    pools: tuple[Pool, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class FilteringLaw:
    """Error after n samples of a mixture of pools, as the authors' code computes it.

    Epoch k (0 is the first) ends after m_k samples, times ``normaliser`` by 10^5, and
    delta_k = (1/2)^(k / tau). Of p pools mixed evenly, an epoch is p times as long and each pool's
    tau p times as many of what it was, by which each sample is seen as often as before.

    - ``utility``: y = (m_0^b_0 + d) prod_k (m_k / m_(k-1))^b_k, b_k the mean over pools of
      b delta_k.
    - ``data``: y = x_0^b_0 prod_k (x_k / x_(k-1))^b_k + d, x_k the samples so far, each weighed by
      delta_k, mean over pools, and b_k the pools' mean of b weighed by delta_k.

    Two things differ from what one expects, and published values depend on them: the normaliser
    stands inside the power, so that few samples give errors above 1; and in ``utility`` the error d
    that should stay is multiplied by what repetition brings, so that it falls as well.

    Attributes:
        form: Which of the two.
        normaliser: a, shared by all pools.
        floor: d, the error said to be irreducible.
    """

    form: Form = "utility"
    normaliser: float = 0.025
    floor: float = 0.1

    def error(self, pools: Sequence[Pool], size: float, samples: float) -> float:
        """Error after ``samples`` samples, drawn evenly from pools of ``size`` samples each.

        Raises:
            UserError: no pools, or no samples in them or seen.
        """
        if not (pools and size > 0 and samples > 0):
            raise UserError(
                f"{len(pools)} pools of {size} samples, {samples} of them seen: give at least one "
                "pool, and numbers above 0"
            )
        count = len(pools)
        b = np.array([pool.utility for pool in pools])
        tau = np.array([pool.half_life for pool in pools], np.float64) * count
        ends, delta = epochs(np.float64(samples), size * count, tau)
        ends *= self.normaliser
        if self.form == "utility":
            utility = (b[:, None] * delta).mean(axis=0)
            start, extra, later = ends[0], self.floor, 0.0
        else:
            utility = (b[:, None] * delta).sum(axis=0) / delta.sum(axis=0)
            ends = np.cumsum((np.diff(ends, prepend=0) * delta).mean(axis=0))
            start, extra, later = ends[0], 0.0, self.floor
        steps = np.exp(utility[1:] @ np.diff(np.log(ends)))
        return float((start ** utility[0] + extra) * steps + later)

    def best_pools(self, pools: Sequence[Pool], size: float, samples: float) -> Choice:
        """How many pools to train on: the best one, the best two, and so on.

        Args:
            pools: Pools of ``size`` samples each, in any order.
            size: Samples of one pool.
            samples: Samples that will be trained on, repeated ones included.

        Returns:
            The pools of the number with the least error, and the error for each number, the pools
            ordered by utility.

        Raises:
            UserError: no pools, or no samples in them or seen.
        """
        ordered = sorted(pools, key=lambda pool: pool.utility)
        numbers = range(1, max(len(ordered), 1) + 1)
        errors = tuple(self.error(ordered[:number], size, samples) for number in numbers)
        return Choice(tuple(ordered[: int(np.argmin(errors)) + 1]), errors)


def epochs(samples: np.float64, size: float, half_lives: Float64) -> tuple[Float64, Float64]:
    """Samples seen by the end of each epoch, in 10^5, and what an epoch's samples are worth.

    Returns:
        float64 [k], k epochs of ``size`` samples, the last one as far as it goes; float64 [p, k],
        (1/2)^(epoch / half-life) for each half-life.
    """
    count = max(int(np.ceil(samples / size)), 1)
    numbers = np.arange(count)
    ends = np.minimum(size * (numbers + 1), samples) / _NORMAL_SAMPLES
    return ends, 0.5 ** (numbers / half_lives[:, None])
