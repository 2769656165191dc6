"""Points of a box for physics: in it, on its faces, and where a residual is large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from losses.errors import TermwiseError
from trainer.data.batch import is_whole

METHODS = ("uniform", "latin_hypercube", "halton")


@dataclass(frozen=True, init=False)
class Box:
    """A box of points, one interval for each coordinate: where an equation is to hold.

        Box((0, 1), (-1, 1))         # time in 0..1, place in -1..1

    The points are float64 numpy arrays [points, coordinates], the same for the same seed. With
    them `trainer.Sources(interior=(box.interior(1000),), ...)`.

    Args:
      intervals: (low, high) of each coordinate.
    Raises:
      ValueError: no interval, or one that is empty or not finite.

    Example:
      >>> box = Box((0, 1), (-1, 1))
      >>> box.interior(100).shape, box.face(0, "low", 20)[:, 0].max()
      ((100, 2), np.float64(0.0))
    """

    intervals: tuple[tuple[float, float], ...]

    def __init__(self, *intervals: Sequence[float]):
        checked = tuple(_interval(interval) for interval in intervals)
        if not checked:
            raise TermwiseError("Box(): give (low, high) of each coordinate: Box((0, 1), (-1, 1)).")
        object.__setattr__(self, "intervals", checked)

    @property
    def low(self) -> np.ndarray:
        """float64 [coordinates]."""
        return np.array([low for low, _ in self.intervals])

    @property
    def high(self) -> np.ndarray:
        """float64 [coordinates]."""
        return np.array([high for _, high in self.intervals])

    def interior(self, count: int, *, seed: int = 0, method: str = "latin_hypercube") -> np.ndarray:
        """Points inside.

        Args:
          count: how many.
          seed: of the draws.
          method: "uniform", independent; "latin_hypercube", one point in each of `count` slices of
            each coordinate; "halton", a randomly shifted sequence of low discrepancy.
        Returns:
          float64 [count, coordinates].
        Raises:
          ValueError: another method, or no whole number of points.
        Source: McKay, Beckman and Conover 1979; Halton 1960.
        """
        unit = _unit(_counted(count), len(self.intervals), seed, method)
        return self.low + unit * (self.high - self.low)

    def face(
        self, axis: int, side: str, count: int, *, seed: int = 0, method: str = "latin_hypercube"
    ) -> np.ndarray:
        """Points of one face: initial points are `face(0, "low", count)` where time comes first.

        Args:
          axis: the coordinate that is constant.
          side: "low" or "high", the end of its interval.
          count, seed, method: as in `interior`.
        Returns:
          float64 [count, coordinates].
        Raises:
          ValueError: another side, or a coordinate that there is not.
        """
        if side not in ("low", "high") or not 0 <= axis < len(self.intervals):
            raise TermwiseError(
                f"face({axis!r}, {side!r}): give a coordinate of 0 to {len(self.intervals) - 1}, "
                "and 'low' or 'high'."
            )
        points = self.interior(count, seed=seed, method=method)
        points[:, axis] = self.intervals[axis][side == "high"]
        return points

    def boundary(
        self, count: int, *, axes=None, seed: int = 0, method: str = "latin_hypercube"
    ) -> np.ndarray:
        """Points of both faces of some coordinates, equally many of each but for the remainder.

        Args:
          count: how many in all, at least one of each face.
          axes: the coordinates that are constant; all but the first, the time, by default.
          seed, method: as in `interior`.
        Returns:
          float64 [count, coordinates], face after face.
        """
        axes = range(1, len(self.intervals)) if axes is None else axes
        faces = [(axis, side) for axis in axes for side in ("low", "high")]
        if not faces or _counted(count) < len(faces):
            raise TermwiseError(
                f"boundary({count}, axes={list(axes)}): there are {len(faces)} faces. Give axes=, "
                "and at least one point of each face."
            )
        shares = [len(part) for part in np.array_split(np.arange(count), len(faces))]
        pairs = enumerate(zip(faces, shares, strict=True))
        return np.concatenate(
            [self.face(*face, n, seed=seed + k, method=method) for k, (face, n) in pairs]
        )

    def where_large(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        count: int,
        *,
        power: float = 1.0,
        floor: float = 1.0,
        candidates: int | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """Points drawn where a function, such as a residual, is large.

            density ~ |f|^power / mean(|f|^power) + floor

        Args:
          function: float64 [points, coordinates] -> [points].
          count: how many; drawn without replacement.
          power, floor: of the density, at least 0; floor 0 draws where f is large alone.
          candidates: among how many Latin hypercube points; 20 * count by default.
          seed: of the draws.
        Returns:
          float64 [count, coordinates].
        Raises:
          ValueError: values that are not finite, or of another length.
        Source: Wu, Zhu, Tan, Kartha and Lu 2023, eq. 2 (k is `power`, c is `floor`).
        """
        among = self.interior(candidates or 20 * _counted(count), seed=seed)
        size = np.abs(np.asarray(function(among), np.float64).reshape(-1)) ** power
        if size.shape != among.shape[:1] or not np.all(np.isfinite(size)):
            raise TermwiseError(
                f"where_large(): the function gives {size.shape[0]} values for {len(among)} "
                "points, or some that are not finite. Give one number for each point."
            )
        density = size / size.mean() + floor if size.any() else np.ones(len(among))
        rng = np.random.default_rng([seed, 1])
        chosen = rng.choice(len(among), count, replace=False, p=density / density.sum())
        return among[np.sort(chosen)]


def _interval(interval) -> tuple[float, float]:
    ends = np.asarray(interval, np.float64)
    if ends.shape != (2,) or not np.all(np.isfinite(ends)) or ends[0] >= ends[1]:
        raise TermwiseError(f"Box: {interval!r} is no interval. Give (low, high), low below high.")
    return float(ends[0]), float(ends[1])


def _counted(count) -> int:
    if not is_whole(count) or count < 1:
        raise TermwiseError(f"Box: {count!r} points. Give a whole number of at least 1.")
    return int(count)


def _unit(count: int, coordinates: int, seed: int, method: str) -> np.ndarray:
    """float64 [count, coordinates] in [0, 1)."""
    rng = np.random.default_rng(seed)
    if method == "uniform":
        return rng.random((count, coordinates))
    if method == "latin_hypercube":
        slices = [rng.permutation(count) for _ in range(coordinates)]
        return (np.stack(slices, 1) + rng.random((count, coordinates))) / count
    if method == "halton":
        columns = [_radical_inverse(count, base) for base in _primes(coordinates)]
        return (np.stack(columns, 1) + rng.random(coordinates)) % 1.0
    raise TermwiseError(f"method={method!r}: accepted are {', '.join(map(repr, METHODS))}.")


def _radical_inverse(count: int, base: int) -> np.ndarray:
    """float64 [count], the numbers from 1 on, their digits mirrored at the point."""
    numbers, inverse, digit = np.arange(1, count + 1), np.zeros(count), 1.0 / base
    while numbers.any():
        inverse += digit * (numbers % base)
        numbers, digit = numbers // base, digit / base
    return inverse


def _primes(count: int) -> list[int]:
    primes: list[int] = []
    number = 2
    while len(primes) < count:
        if all(number % prime for prime in primes):
            primes.append(number)
        number += 1
    return primes
