"""Fits the two laws of ``shardwright.quality.budget`` to a user's own small runs.

Both fits are deterministic: a grid of starts, then a local search from the best of them. They
refuse runs from which a constant cannot be told, and say how far the fitted law is off;
``fit_repetition`` also says how well each constant is known.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import erf
from typing import Any

import numpy as np

from shardwright.errors import UserError
from shardwright.quality.budget import FilteringLaw, Float64, Form, Pool, RepetitionLaw, epochs

# The grid of grid_search.py of the filtering law, of which its authors try a random tenth. Their
# normalisers are for pools of 12.8 million samples; others are for pools of other sizes.
_NORMALISERS = np.linspace(1e-4, 0.2, 100)
_AUTHORS_SIZE = 12.8e6
_UTILITIES = np.linspace(-0.005, -0.5, 100)
_HALF_LIVES = np.linspace(1, 10, 100)

_HUBER = 1e-3  # of the logarithm of the loss, as the authors of the repetition law have it
_BOUNDS = {
    "alpha": (np.log(0.05), np.log(1.5)),
    "beta": (np.log(0.05), np.log(1.5)),
    "data_decay": (np.log(0.1), np.log(1000)),
    "parameter_decay": (np.log(0.1), np.log(1000)),
}
_REFINED = 3  # starts, the best of the grid, from which the local search goes on
_UNSETTLED = 0.5  # standard error of a constant's logarithm above which it is hardly known
_BLIND = 1e-4  # least singular value, by the greatest, at which constants can be told apart

CONSTANTS = tuple(field.name for field in fields(RepetitionLaw))


@dataclass(frozen=True)
class Curve:
    """Errors of models trained on one pool alone.

    Attributes:
        samples: Samples seen, repeated ones included, at each point.
        errors: Error at each point, such as 1 - accuracy.
        size: Samples in the pool.
    """

    samples: tuple[float, ...]
    errors: tuple[float, ...]
    size: float


@dataclass(frozen=True)
class PoolsFit:
    """A filtering law, its pools in the order of the curves, and the root mean square residual."""

    law: FilteringLaw
    pools: tuple[Pool, ...]
    residual: float


def fit_pools(curves: Sequence[Curve], form: Form = "utility", floor: float = 0.1) -> PoolsFit:
    """Fits a utility and a half-life to each pool and one normaliser to all of them.

    Least squares of the errors: the best point of the authors' grid over (a, b, tau), with the a
    that suits all curves best, and from there by SciPy's trust-region least squares.

    Args:
        curves: One for each pool, each with four points or more, two of them after its first epoch.
        form: Of the law.
        floor: d, the error said to be irreducible.

    Raises:
        UserError: too few points, points of a single epoch, or numbers out of range.
    """
    from scipy.optimize import least_squares  # loads in most of a second

    if not curves:
        raise UserError("no curves: give the errors of at least one pool")
    for number, curve in enumerate(curves):
        _check_curve(number, curve)
    normalisers = _NORMALISERS * _AUTHORS_SIZE / np.mean([curve.size for curve in curves])
    tables = [_sums_of_squares(curve, form, floor, normalisers) for curve in curves]
    a = int(np.argmin(sum(table.min(axis=(1, 2)) for table in tables)))
    start = [np.log(normalisers[a])]
    for table in tables:
        b, tau = np.unravel_index(int(np.argmin(table[a])), table[a].shape)
        start += [np.log(-_UTILITIES[b]), np.log(_HALF_LIVES[tau])]

    def fitted(values: Float64) -> tuple[FilteringLaw, tuple[Pool, ...]]:
        law = FilteringLaw(form, float(np.exp(values[0])), floor)
        pairs = np.exp(values[1:].reshape(-1, 2)).tolist()
        return law, tuple(Pool(-b, tau) for b, tau in pairs)

    def residuals(values: Float64) -> Float64:
        law, pools = fitted(values)
        return np.array(
            [
                law.error([pool], curve.size, samples) - error
                for pool, curve in zip(pools, curves, strict=True)
                for samples, error in zip(curve.samples, curve.errors, strict=True)
            ]
        )

    # a factor of e^3 either way keeps what the points cannot tell from running off
    bounds = (np.array(start) - 3, np.array(start) + 3)
    found = least_squares(residuals, start, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    law, pools = fitted(found.x)
    return PoolsFit(law, pools, float(np.sqrt(np.mean(found.fun**2))))


def fit_pool(
    samples: Sequence[float],
    errors: Sequence[float],
    size: float,
    form: Form = "utility",
    floor: float = 0.1,
) -> PoolsFit:
    """``fit_pools`` of a single curve; pools to be mixed need one normaliser, so one fit.

    Raises:
        UserError: as ``fit_pools``.
    """
    return fit_pools([Curve(tuple(samples), tuple(errors), size)], form, floor)


def _check_curve(number: int, curve: Curve) -> None:
    where = f"curve {number}"
    samples, errors = np.array(curve.samples, float), np.array(curve.errors, float)
    if len(samples) != len(errors):
        raise UserError(f"{where}: {len(samples)} samples and {len(errors)} errors: give pairs")
    if len(samples) < 4:
        raise UserError(f"{where}: {len(samples)} points do not settle 3 constants: give 4 or more")
    if not (curve.size > 0 and (samples > 0).all() and np.isfinite(samples).all()):
        raise UserError(f"{where}: give a size and samples above 0")
    if not ((errors > 0) & (errors <= 1)).all():
        raise UserError(f"{where}: errors must be above 0 and at most 1")
    if (samples > curve.size).sum() < 2 or len(np.unique(samples)) < 4:
        raise UserError(
            f"{where}: a half-life shows only where samples repeat: give 4 different numbers of "
            f"samples, at least two of them above {curve.size:g}, the size of the pool"
        )


def _sums_of_squares(curve: Curve, form: Form, floor: float, normalisers: Float64) -> Float64:
    """Summed squares of the residuals at each point of the grid, float64 [a, b, tau].

    In both forms the predicted error is a factor that depends on a and b by one that depends on b
    and tau, plus what depends on neither; so the sum splits into products of small matrices.
    """
    errors = np.array(curve.errors)
    both = [epochs(np.float64(n), curve.size, _HALF_LIVES) for n in curve.samples]
    if form == "utility":
        first = np.log([ends[0] for ends, _ in both])
        logs = np.stack([delta[:, 1:] @ np.diff(np.log(ends)) for ends, delta in both], axis=1)
        extra = floor
    else:
        first = np.zeros(len(errors))
        logs = np.log(np.stack([delta @ np.diff(e, prepend=0) for e, delta in both], axis=1))
        errors, extra = errors - floor, 0.0
    sums = np.empty((len(normalisers), len(_UTILITIES), len(_HALF_LIVES)))
    for number, b in enumerate(_UTILITIES):
        start = np.exp(b * (np.log(normalisers)[:, None] + first)) + extra  # [a, point]
        steps = np.exp(b * logs)  # [tau, point]
        squares = start**2 @ (steps**2).T - 2 * (start * errors) @ steps.T
        sums[:, number] = squares + errors @ errors
    return sums


@dataclass(frozen=True)
class Run:
    """A training run: its parameters, tokens seen, unique tokens among them, and final loss."""

    parameters: float
    tokens: float
    unique: float
    loss: float


@dataclass(frozen=True)
class RepetitionFit:
    """A repetition law, and how well the runs tell its constants.

    Attributes:
        law: The fitted law.
        residual: Root mean square of the logarithm of the loss by the law over the one observed.
        errors: Standard error of each constant that was fitted: of the constant itself, for a name
            that begins with ``log_`` of the logarithm.
        unsettled: Constants that the runs hardly tell: their standard error is more than half of
            their value, of A and B where the runs are. They may be far off.
    """

    law: RepetitionLaw
    residual: float
    errors: dict[str, float]
    unsettled: tuple[str, ...]


def fit_repetition(
    runs: Sequence[Run],
    free: Sequence[str] = CONSTANTS,
    law: RepetitionLaw | None = None,
) -> RepetitionFit:
    """Fits constants of the repetition law: Huber's loss of the logarithm of the loss, by L-BFGS.

    Standard errors are those of Huber's estimator by the curvature at the solution, if what the
    law leaves over is normal, equally large for all runs and independent but for a few outliers.

    Args:
        runs: At least two more than there are free constants.
        free: The constants to fit, names of fields of ``RepetitionLaw``.
        law: Gives the others; the published one unless given.

    Raises:
        UserError: too few runs, runs that do not settle the free constants (no repeated data, for
            instance), an unknown constant, or numbers out of range.
    """
    from scipy.optimize import minimize

    law = law or RepetitionLaw()
    names = [name for name in CONSTANTS if name in free]
    unknown = sorted(set(free) - set(CONSTANTS))
    if unknown or not names:
        raise UserError(f"free: {unknown or 'nothing'}: give some of {', '.join(CONSTANTS)}")
    if len(runs) < len(names) + 2:
        raise UserError(
            f"{len(runs)} runs do not settle {len(names)} constants: give {len(names) + 2} or "
            "more, or name fewer constants in free"
        )
    table = np.array([(r.parameters, r.tokens, r.unique, r.loss) for r in runs], np.float64)
    if not (np.isfinite(table) & (table > 0)).all():
        raise UserError("runs: parameters, tokens, unique and loss must all be above 0")
    size, tokens, unique, observed = table.T
    # ln A and alpha are nearly one constant, unless A is taken where the runs are; so for B
    centres = (float(np.log(size).mean()), float(np.log(unique).mean()))

    def fitted(values: Float64) -> RepetitionLaw:
        return _law(law, names, values, centres)

    def residuals(values: Float64) -> Float64:
        logs: Float64 = np.log(fitted(values).loss(size, tokens, unique)) - np.log(observed)
        return logs

    def objective(values: Float64) -> float:
        off = np.abs(residuals(values)) / _HUBER
        return float(np.where(off < 1, off**2 / 2, off - 0.5).mean())

    starts = sorted(_starts(names, observed), key=objective)[:_REFINED]
    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 100_000, "ftol": 1e-13, "gtol": 1e-9}
    best = min(
        (
            minimize(
                objective,
                start,
                method="L-BFGS-B",
                jac="3-point",
                bounds=[_BOUNDS.get(n, (v - 2, v + 2)) for n, v in zip(names, start, strict=True)],
                options=options,
            )
            for start in starts
        ),
        key=lambda found: float(found.fun),
    )
    slopes = _slopes(residuals, best.x)
    _check_settled(slopes, best.x, names)
    off = residuals(best.x)

    def constants(values: Float64) -> Float64:
        found = fitted(values)
        return np.array([getattr(found, name) for name in names])

    spread = _huber_variance(off, len(names)) * np.linalg.inv(slopes.T @ slopes)
    turned = _slopes(constants, best.x)  # exp, and A and B moved away from the centres
    errors = np.sqrt(np.diag(turned @ spread @ turned.T))
    relative = np.sqrt(np.diag(spread))  # every coordinate of the search is a logarithm
    return RepetitionFit(
        fitted(best.x),
        float(np.sqrt(np.mean(off**2))),
        dict(zip(names, errors.tolist(), strict=True)),
        tuple(name for name, error in zip(names, relative, strict=True) if error > _UNSETTLED),
    )


def _slopes(function: Callable[[Float64], Float64], values: Float64) -> Float64:
    """The Jacobian [outputs, values] by central differences."""
    step = 1e-5
    columns = [
        (function(values + step * unit) - function(values - step * unit)) / (2 * step)
        for unit in np.eye(len(values))
    ]
    return np.stack(columns, axis=1)


def _huber_variance(off: Float64, constants: int) -> float:
    """The factor of (J'J)^-1 in the variance of Huber's estimator: E psi^2 / (E psi')^2.

    Huber 1981, Robust Statistics, section 7.6, for normal residuals. Their scale s is that of the
    median absolute residual, so that a run that diverged counts for no more than its place; s grows
    by sqrt(n / (n - constants)) for what the fit has taken from it. With s far below delta this is
    s^2, far above it pi / 2 s^2.
    """
    freedom = len(off) / (len(off) - constants)
    scale = float(np.median(np.abs(off))) / 0.6744897501960817 * np.sqrt(freedom)
    ratio = _HUBER / max(scale, 1e-15)
    inside = erf(ratio / np.sqrt(2))
    density = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    squares = inside - 2 * ratio * density + ratio**2 * (1 - inside)
    return float(scale**2 * squares / inside**2)


def _law(
    law: RepetitionLaw, names: Sequence[str], values: Float64, centres: tuple[float, float]
) -> RepetitionLaw:
    """The law at a point of the search: logarithms, those of A and B at the centres of the runs."""
    found = {
        name: value if name.startswith("log_") else float(np.exp(value))
        for name, value in zip(names, values.tolist(), strict=True)
    }
    law = replace(law, **found)
    if "log_a" in found:
        law = replace(law, log_a=law.log_a + law.alpha * centres[0])
    if "log_b" in found:
        law = replace(law, log_b=law.log_b + law.beta * centres[1])
    return law


def _starts(names: Sequence[str], observed: Float64) -> list[Float64]:
    """Points to search from: exponents, decays, and shares of the least loss that data is to leave.

    What is left of the mean loss is split evenly between parameters and tokens.
    """
    grid: dict[str, Sequence[float]] = {
        "alpha": (0.2, 0.35, 0.5),
        "beta": (0.2, 0.35, 0.5),
        "data_decay": (3, 12, 48),
        "parameter_decay": (2, 10),
    }
    grid = {name: steps for name, steps in grid.items() if name in names}
    starts = []
    shares = (0.3, 0.6, 0.9) if {"log_a", "log_b", "log_e"} & set(names) else (0.6,)
    for share, *values in itertools.product(shares, *grid.values()):
        point = dict(zip(grid, np.log(values).tolist(), strict=True))
        rest = float(np.log((observed.mean() - share * observed.min()) / 2))
        point |= {"log_e": float(np.log(share * observed.min())), "log_a": rest, "log_b": rest}
        starts.append(np.array([point[name] for name in names]))
    return starts


def _check_settled(slopes: Float64, values: Float64, names: Sequence[str]) -> None:
    """Raises UserError where the runs do not tell some of the constants, or some apart."""
    lengths = np.linalg.norm(slopes, axis=0)
    blind = [name for name, length in zip(names, lengths, strict=True) if length < 1e-7]
    for name, value in zip(names, values, strict=True):
        if name in _BOUNDS and min(abs(value - edge) for edge in _BOUNDS[name]) < 1e-6:
            blind.append(name)
    if not blind:
        _, sizes, directions = np.linalg.svd(slopes / lengths)
        if sizes[-1] < _BLIND * sizes[0]:
            blind = [n for n, part in zip(names, directions[-1], strict=True) if abs(part) > 0.3]
    if blind:
        raise UserError(
            f"the runs do not settle {', '.join(blind)}: add runs that differ in parameters, in "
            "unique tokens and in epochs, or leave these constants out of free"
        )
