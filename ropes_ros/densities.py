"""Densities of a commanded joint and sets of them (levels), on u in [-1, 1], the joint's normalised range.

Every density is a mixture of a unimodal core and a share `floor` of the uniform density, so that its logarithm is
finite everywhere. A level set is usable only if the posterior over its levels tells u: two variances about one
centre, for example, tell |u| alone.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import ScheduleError

Array = npt.NDArray[np.float64]

NONE = "none"
DEFAULT_FLOOR = 0.05

_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_SQRT_2PI = math.sqrt(2.0 * math.pi)


def _elementwise(function: Callable[[float], float]) -> Callable[[npt.ArrayLike], Array]:
    """A function of one float as one of arrays (numpy has neither erf nor its inverse)."""
    ufunc = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(ufunc(np.asarray(x, dtype=np.float64)), dtype=np.float64)


_erfc = _elementwise(math.erfc)
_normal_quantile = _elementwise(lambda p: NormalDist().inv_cdf(min(max(p, 1e-300), 1.0 - 1e-16)))


def _normal_cdf(x: npt.ArrayLike) -> Array:
    return 0.5 * _erfc(-np.asarray(x, dtype=np.float64) / math.sqrt(2.0))


class Density(ABC):
    """A unimodal density on [-1, 1] (zero outside), mixed with `floor` of the uniform density."""

    kind: ClassVar[str]
    floor: float

    @property
    @abstractmethod
    def mode(self) -> float:
        """Where in [-1, 1] the density is largest."""

    @abstractmethod
    def core_pdf(self, u: Array) -> Array:
        """Core density at u in [-1, 1], without the uniform floor."""

    @abstractmethod
    def core_cdf(self, u: Array) -> Array:
        """Core distribution function at u in [-1, 1]."""

    @abstractmethod
    def core_quantile(self, p: Array) -> Array:
        """Inverse of `core_cdf`."""

    @abstractmethod
    def core_score(self, u: Array) -> Array:
        """d log core_pdf / du at u in [-1, 1]."""

    @abstractmethod
    def core_superlevel(self, height: Array) -> tuple[Array, Array]:
        """Ends of {core_pdf > height} for heights in (0, max core_pdf), not yet cut to [-1, 1]."""

    def pdf(self, u: npt.ArrayLike) -> Array:
        """Probability density at u, any shape; zero outside [-1, 1]."""
        u = np.asarray(u, dtype=np.float64)
        inside = np.clip(u, -1.0, 1.0)
        return np.where(np.abs(u) <= 1.0, (1.0 - self.floor) * self.core_pdf(inside) + 0.5 * self.floor, 0.0)

    def log_pdf(self, u: npt.ArrayLike) -> Array:
        """Natural logarithm of `pdf`; minus infinity outside [-1, 1]."""
        with np.errstate(divide="ignore"):
            return np.log(self.pdf(u))

    def cdf(self, u: npt.ArrayLike) -> Array:
        """Distribution function at u, any shape."""
        u = np.clip(np.asarray(u, dtype=np.float64), -1.0, 1.0)
        return (1.0 - self.floor) * self.core_cdf(u) + 0.5 * self.floor * (u + 1.0)

    def quantile(self, p: npt.ArrayLike) -> Array:
        """Inverse of `cdf` at p in [0, 1], any shape: a table's inverse, then Newton steps to rounding."""
        p = np.asarray(p, dtype=np.float64)
        grid = np.linspace(-1.0, 1.0, 2049)
        u = np.interp(p, self.cdf(grid), grid)
        for _ in range(4):
            u = np.clip(u - (self.cdf(u) - p) / self.pdf(u), -1.0, 1.0)
        return np.asarray(u)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...]) -> Array:
        """Independent draws, float64 of the given size."""
        core = self.core_quantile(rng.random(size))
        return np.where(rng.random(size) < self.floor, rng.uniform(-1.0, 1.0, size), core)

    def score(self, u: npt.ArrayLike) -> Array:
        """d log pdf / du at u in [-1, 1], any shape."""
        u = np.asarray(u, dtype=np.float64)
        return (1.0 - self.floor) * self.core_pdf(u) * self.core_score(u) / self.pdf(u)

    def superlevel(self, height: npt.ArrayLike) -> tuple[Array, Array]:
        """The interval {u in [-1, 1]: pdf(u) > height}.

        Args:
            height: Heights in [0, max pdf), any shape.

        Returns:
            Lower and upper ends, of the same shape; exactly -1 or 1 where the box cuts the interval off.
        """
        height = np.asarray(height, dtype=np.float64)
        core = (height - 0.5 * self.floor) / (1.0 - self.floor)
        everywhere = core <= 0.0
        lo, hi = self.core_superlevel(np.where(everywhere, 1.0, core))
        lo, hi = np.where(everywhere, -1.0, lo), np.where(everywhere, 1.0, hi)
        return np.clip(lo, -1.0, 1.0), np.clip(hi, -1.0, 1.0)

    def slices(self, fraction: npt.ArrayLike) -> tuple[Array, Array]:
        """Superlevel intervals by the share of the area under the density that lies below their height.

        With fractions uniform on (0, 1), a point drawn uniformly from the interval follows the density: the interval
        is that of a point uniform under the density's graph, as in slice sampling (Neal, Annals of Statistics 31(3),
        2003, section 3).

        Args:
            fraction: Shares in (0, 1), any shape.

        Returns:
            Lower and upper ends of the intervals, of the same shape.
        """
        fraction = np.asarray(fraction, dtype=np.float64)
        low = np.zeros_like(fraction)
        high = np.full_like(fraction, float(self.pdf(self.mode)))
        for _ in range(48):
            height = 0.5 * (low + high)
            lo, hi = self.superlevel(height)
            below = height * (hi - lo) + self.cdf(lo) + 1.0 - self.cdf(hi) < fraction
            low, high = np.where(below, height, low), np.where(below, high, height)
        return self.superlevel(low)

    def to_mapping(self) -> dict[str, Any]:
        """The density as plain values for YAML; `density_from_mapping` reads it back."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}  # type: ignore[call-overload]
        return {"type": self.kind, **plain}


@dataclass(frozen=True)
class Tilt(Density):
    """Exponential tilt t e^(tu) / (2 sinh t); the log density ratio of t and -t is 2tu."""

    t: float
    floor: float = DEFAULT_FLOOR
    kind: ClassVar[str] = "tilt"

    def __post_init__(self) -> None:
        _check_floor(self)
        if not (math.isfinite(self.t) and 0.01 <= abs(self.t) <= 20.0):
            raise ScheduleError(f"tilt: t must lie within 0.01 and 20 in magnitude, got {self.t}")

    @property
    def mode(self) -> float:
        """The end of [-1, 1] that the tilt favours."""
        return math.copysign(1.0, self.t)

    def core_pdf(self, u: Array) -> Array:
        """See Density."""
        return np.asarray(self.t * np.exp(self.t * u) / (2.0 * math.sinh(self.t)))

    def core_cdf(self, u: Array) -> Array:
        """See Density."""
        return np.asarray(np.expm1(self.t * (u + 1.0)) / math.expm1(2.0 * self.t))

    def core_quantile(self, p: Array) -> Array:
        """See Density."""
        return np.clip(np.log1p(p * math.expm1(2.0 * self.t)) / self.t - 1.0, -1.0, 1.0)

    def core_score(self, u: Array) -> Array:
        """See Density."""
        return np.full_like(u, self.t)

    def core_superlevel(self, height: Array) -> tuple[Array, Array]:
        """See Density."""
        edge = np.log(height * 2.0 * math.sinh(self.t) / self.t) / self.t
        whole = np.ones_like(edge)
        return (edge, whole) if self.t > 0 else (-whole, edge)


@dataclass(frozen=True)
class Bump(Density):
    """Gaussian of mean `center` and width `sigma` (both in half ranges), cut to [-1, 1]."""

    center: float
    sigma: float
    floor: float = DEFAULT_FLOOR
    kind: ClassVar[str] = "bump"

    def __post_init__(self) -> None:
        _check_floor(self)
        if not (math.isfinite(self.center) and abs(self.center) <= 1.0):
            raise ScheduleError(f"bump: center must lie in [-1, 1], got {self.center}")
        if not 0.01 <= self.sigma <= 10.0:
            raise ScheduleError(f"bump: sigma must lie in [0.01, 10], got {self.sigma}")

    @property
    def mode(self) -> float:
        """The centre."""
        return self.center

    def _cut(self) -> tuple[float, float]:
        """Normal probability below -1, and within [-1, 1]."""
        normal = NormalDist(self.center, self.sigma)
        below = normal.cdf(-1.0)
        return below, normal.cdf(1.0) - below

    def core_pdf(self, u: Array) -> Array:
        """See Density."""
        return np.asarray(
            np.exp(-0.5 * ((u - self.center) / self.sigma) ** 2) / (self.sigma * _SQRT_2PI * self._cut()[1])
        )

    def core_cdf(self, u: Array) -> Array:
        """See Density."""
        below, within = self._cut()
        return np.clip((_normal_cdf((u - self.center) / self.sigma) - below) / within, 0.0, 1.0)

    def core_quantile(self, p: Array) -> Array:
        """See Density."""
        below, within = self._cut()
        return np.clip(self.center + self.sigma * _normal_quantile(below + within * p), -1.0, 1.0)

    def core_score(self, u: Array) -> Array:
        """See Density."""
        return np.asarray((self.center - u) / self.sigma**2)

    def core_superlevel(self, height: Array) -> tuple[Array, Array]:
        """See Density."""
        drop = -2.0 * np.log(height * self.sigma * _SQRT_2PI * self._cut()[1])
        radius = self.sigma * np.sqrt(np.maximum(drop, 0.0))
        return self.center - radius, self.center + radius


@dataclass(frozen=True)
class Observational(Density):
    """The density of a joint that is not intervened on: uniform over its range."""

    kind: ClassVar[str] = "observational"
    floor = 0.0

    @property
    def mode(self) -> float:
        """Anywhere; the middle."""
        return 0.0

    def core_pdf(self, u: Array) -> Array:
        """See Density."""
        return np.full_like(u, 0.5)

    def core_cdf(self, u: Array) -> Array:
        """See Density."""
        return np.asarray(0.5 * (u + 1.0))

    def core_quantile(self, p: Array) -> Array:
        """See Density."""
        return np.asarray(2.0 * p - 1.0)

    def core_score(self, u: Array) -> Array:
        """See Density."""
        return np.zeros_like(u)

    def core_superlevel(self, height: Array) -> tuple[Array, Array]:
        """See Density."""
        whole = np.ones_like(height)
        return -whole, whole


@dataclass(frozen=True)
class Tabulated(Density):
    """A density measured from positions: `values` at evenly spaced u over [-1, 1], straight lines in between.

    It may have several modes; `superlevel` gives the hull of the set above a height, so that no sweep can be drawn from
    it exactly: it says what was commanded elsewhere, not what to command.
    """

    values: tuple[float, ...]
    floor: float = DEFAULT_FLOOR
    kind: ClassVar[str] = "tabulated"

    def __post_init__(self) -> None:
        _check_floor(self)
        if len(self.values) < 2 or not all(math.isfinite(value) and value >= 0.0 for value in self.values):
            raise ScheduleError("tabulated: values must be at least two numbers from 0 on")
        if abs(self._masses()[-1] - 1.0) > 1e-3:
            raise ScheduleError(f"tabulated: values must integrate to 1 over [-1, 1], they do to {self._masses()[-1]}")

    @property
    def mode(self) -> float:
        """Where the table is largest."""
        return float(self._grid()[int(np.argmax(self.values))])

    def _grid(self) -> Array:
        return np.linspace(-1.0, 1.0, len(self.values))

    def _masses(self) -> Array:
        """Probability below each grid point, [G]."""
        table = np.asarray(self.values)
        return np.concatenate([[0.0], np.cumsum(table[1:] + table[:-1]) / (len(table) - 1)])

    def core_pdf(self, u: Array) -> Array:
        """See Density."""
        return np.asarray(np.interp(u, self._grid(), self.values))

    def core_cdf(self, u: Array) -> Array:
        """See Density."""
        fine = np.linspace(-1.0, 1.0, 8 * len(self.values))
        pdf = self.core_pdf(fine)
        mass = np.concatenate([[0.0], np.cumsum(pdf[1:] + pdf[:-1])])
        return np.asarray(np.interp(u, fine, mass / mass[-1]))

    def core_quantile(self, p: Array) -> Array:
        """See Density."""
        fine = np.linspace(-1.0, 1.0, 8 * len(self.values))
        return np.asarray(np.interp(p, self.core_cdf(fine), fine))

    def core_score(self, u: Array) -> Array:
        """See Density."""
        slope = np.gradient(np.asarray(self.values), self._grid())
        return np.asarray(np.interp(u, self._grid(), slope) / np.maximum(self.core_pdf(u), 1e-12))

    def core_superlevel(self, height: Array) -> tuple[Array, Array]:
        """See Density."""
        grid = self._grid()
        above = np.asarray(self.values) > np.asarray(height)[..., None]
        first, last = above.argmax(axis=-1), len(grid) - 1 - above[..., ::-1].argmax(axis=-1)
        return grid[first], grid[last]


_KINDS: dict[str, type[Density]] = {cls.kind: cls for cls in (Tilt, Bump, Observational, Tabulated)}


def density_from_mapping(mapping: object) -> Density:
    """A density from the plain values that `Density.to_mapping` gives.

    Raises:
        ScheduleError: The type is unknown, or a parameter is missing, unknown, not a number, or out of range.
    """
    if not isinstance(mapping, Mapping) or not isinstance(mapping.get("type"), str) or mapping["type"] not in _KINDS:
        raise ScheduleError(f"expected a mapping with type {', '.join(_KINDS)}, got {mapping!r}")
    cls = _KINDS[mapping["type"]]
    values = {key: value for key, value in mapping.items() if key != "type"}
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    table = values.pop("values", None) if cls is Tabulated else None
    for key, value in values.items():
        if key not in names:
            raise ScheduleError(f"{cls.kind}: unknown parameter '{key}'; it takes {', '.join(sorted(names)) or 'none'}")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ScheduleError(f"{cls.kind}: {key} must be a number, got {value!r}")
    if cls is Tabulated:
        if not isinstance(table, list) or not all(type(value) in (int, float) for value in table):
            raise ScheduleError(f"tabulated: values must be a list of numbers, got {table!r}")
        return Tabulated(tuple(float(value) for value in table), *(float(value) for value in values.values()))
    for key in sorted(names - {"floor"} - set(values)):
        raise ScheduleError(f"{cls.kind}: parameter '{key}' is missing")
    return cls(**{key: float(value) for key, value in values.items()})


def _check_floor(density: Density) -> None:
    if not 0.0 < density.floor < 1.0:
        raise ScheduleError(f"{density.kind}: floor must lie within 0 and 1, both excluded, got {density.floor}")


class Levels:
    """An ordered set of levels: id -> density, from whose posterior u can be told.

    Args:
        densities: The levels in order, at least two.

    Raises:
        ScheduleError: An id is unusable, or the posterior over the levels does not tell every u from every other.
    """

    def __init__(self, densities: Mapping[str, Density]) -> None:
        self._densities = dict(densities)
        self.ids: tuple[str, ...] = tuple(self._densities)
        if len(self.ids) < 2:
            raise ScheduleError("a level set needs at least two levels: with one, no frame tells anything")
        for level in self.ids:
            if not _ID.fullmatch(level) or level == NONE:
                raise ScheduleError(
                    f"level id {level!r} is not usable: take letters, digits and _ . + -, a letter first, not '{NONE}'"
                )
        self._check_injective()

    @classmethod
    def bumps(cls, n: int = 8, sigma: float = 0.15, floor: float = DEFAULT_FLOOR) -> Levels:
        """n Gaussian bumps b0, b1, ... with evenly spaced centres.

        The outer centres lie at +-(1 - 1 / (2n)): the mixture of the levels stays close to uniform, and the posterior
        informative, up to the ends.
        """
        if n < 2:
            raise ScheduleError(f"bumps: n must be at least 2, got {n}")
        reach = 1.0 - 0.5 / n
        centers = np.round(np.linspace(-reach, reach, n), 6)
        return cls({f"b{k}": Bump(float(center), sigma, floor) for k, center in enumerate(centers)})

    @classmethod
    def tilts(cls, t: float = 2.0, *, observational: bool = False, floor: float = DEFAULT_FLOOR) -> Levels:
        """Two exponential tilts, `minus` and `plus`, and `obs` where single-joint designs need it."""
        levels: dict[str, Density] = {"minus": Tilt(-abs(t), floor), "plus": Tilt(abs(t), floor)}
        return cls({**levels, "obs": Observational()} if observational else levels)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __getitem__(self, level: str) -> Density:
        return self._densities[level]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Levels) and list(self._densities.items()) == list(other._densities.items())

    def __hash__(self) -> int:
        return hash(tuple(self._densities.items()))

    def __repr__(self) -> str:
        return f"Levels({self._densities!r})"

    @property
    def densities(self) -> tuple[Density, ...]:
        """The densities in the order of `ids`."""
        return tuple(self._densities.values())

    def pdf(self, u: npt.ArrayLike) -> Array:
        """Densities (K, *u.shape) of all levels at u."""
        return np.stack([density.pdf(u) for density in self.densities])

    def posterior(self, u: npt.ArrayLike) -> Array:
        """Probabilities (K, *u.shape) of the levels given u in [-1, 1], for levels of equal frequency."""
        densities = self.pdf(u)
        return np.asarray(densities / densities.sum(0))

    def fisher_information(self, u: npt.ArrayLike) -> Array:
        """Fisher information of the level about u: the posterior variance of the levels' scores d log p / du.

        Args:
            u: Points in [-1, 1], any shape.

        Returns:
            Information per frame in 1 / half range squared, of u's shape.
        """
        u = np.asarray(u, dtype=np.float64)
        posterior, scores = self.posterior(u), np.stack([density.score(u) for density in self.densities])
        return np.asarray((posterior * scores**2).sum(0) - (posterior * scores).sum(0) ** 2)

    def label_noise(self) -> float:
        """Standard deviation, in half ranges, of the position label that knowing the level amounts to.

        It is 1 / sqrt(Fisher information of the level about u), the information being averaged over the mixture of the
        levels, uniform floor included. 8 bumps of width 0.15: 0.167; 4 bumps of width 0.25: 0.30; tilts t = 2: 0.88.
        """
        u = np.linspace(-1.0, 1.0, 2001)
        information = np.average(self.fisher_information(u), weights=self.pdf(u).mean(axis=0))
        return float(1.0 / np.sqrt(information))

    def _check_injective(self) -> None:
        """Refuse sets whose posterior over the levels comes (nearly) to the same point at two places.

        sqrt(posterior) moves on a sphere, at half the square root of the Fisher information per unit of u. Two places
        are taken for one when they are closer than that speed lets neighbouring grid points be, or when ten
        thousand frames could hardly tell them apart.
        """
        u = np.linspace(-1.0, 1.0, 401)
        curve = 2.0 * np.sqrt(self.posterior(u)).T
        speed = np.sqrt(np.maximum(self.fisher_information(u), 0.0))
        distance = np.sqrt(np.maximum(((curve[:, None] - curve[None]) ** 2).sum(-1), 0.0))
        resolution = np.maximum((speed[:, None] + speed[None]) * (u[1] - u[0]), 0.01)
        apart = np.abs(u[:, None] - u[None]) >= 0.1
        bad = apart & (distance < resolution)
        if bad.any():
            excess = np.where(bad, distance / resolution, np.inf)
            i, j = np.unravel_index(int(np.argmin(excess)), excess.shape)
            raise ScheduleError(
                f"levels {', '.join(self.ids)}: u = {u[i]:+.2f} and u = {u[j]:+.2f} give the same posterior over the"
                " levels, so that no frame can tell them apart (two widths about one centre, for example, tell |u|"
                " alone): take levels whose centres or tilts differ and that overlap"
            )
