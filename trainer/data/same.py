"""Whether data are those that a run was given before: their description, and what differs."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

SAMPLED = 1024  # values of each array that are compared
_WORDS = {"steps_per_epoch": "batches", "element": "elements"}


def sample(tensor) -> np.ndarray:
    """Some values of an array, spread over all of it: float64 [at most 2 * SAMPLED], or bytes.

    The distance between two shares no factor with a row's size: else all came of the same columns.
    """
    flat = tf.reshape(tensor, [-1])
    size, row = int(flat.shape[0]), math.prod(tensor.shape[1:])
    every = max(1, size // SAMPLED)
    while every > 1 and math.gcd(every, max(row, 1)) > 1:
        every += 1
    values = flat[::every][: 2 * SAMPLED].numpy()
    if values.dtype.kind in "OSU":
        return np.frombuffer(b"\0".join(map(bytes, values)), np.uint8)
    if values.dtype.kind == "c":
        values = np.concatenate([values.real, values.imag])
    return values.astype(np.float64)


def difference(before: dict | None, now: dict) -> str | None:
    """What tells data from those before, in words; None where they are the same, or nobody knows.

    Args:
      before, now: of `Source.describe`. Their values may differ by rounding: another machine
        makes them so.

    Example:
      >>> difference({"kind": "arrays", "batch_size": 8}, {"kind": "arrays", "batch_size": 16})
      'batch_size was 8, now 16'
    """
    if before is None:
        return None
    if before.get("kind") == now.get("kind") == "sources":
        return _difference_of_sources(before["sources"], now["sources"])
    for name in [*before, *(name for name in now if name not in before)]:
        then, value = before.get(name), now.get(name)
        if name == "values":
            continue
        if then != value:
            return f"{_WORDS.get(name, name)} was {then}, now {value}"
    pairs = zip(before.get("values", ()), now.get("values", ()), strict=True)
    if not all(_close(then, values) for then, values in pairs):
        return "other values"
    return None


def _difference_of_sources(before: dict, now: dict) -> str | None:
    """The same of several sources: a source that is another one."""
    if list(before) != list(now):
        return f"the sources were {', '.join(before)}, now {', '.join(now)}"
    for name, then in before.items():
        differs = difference(then, now[name])
        if differs is not None:
            return f"of {name!r} {differs}"
    return None


def _close(then: np.ndarray, now: np.ndarray) -> bool:
    if then.shape != now.shape or then.dtype != now.dtype:
        return False
    return np.allclose(then, now, rtol=1e-3, atol=1e-6, equal_nan=True)
