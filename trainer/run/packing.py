"""Plain values and arrays as one string of bytes, which is read without running anything."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseTypeError

_HEAD = 8  # bytes that tell the length of the JSON, behind which the arrays lie


def is_plain(value) -> bool:
    """Whether `pack` takes a value: numbers, strings, None, arrays, and lists and dicts of them."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return isinstance(value, (np.generic, np.ndarray)) and _dtype_name(value) is not None


def copied(value):
    """A plain value whose lists and dicts are others; its arrays are the same."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(copied, value)) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return value


def pack(value) -> bytes:
    """A plain value as bytes.

    Raises:
      TypeError: it is none.

    Example:
      >>> unpack(pack({"best": 0.5, "weights": [np.ones(2)], 3: (None, "x")}))
      {'best': 0.5, 'weights': [array([1., 1.])], 3: (None, 'x')}
    """
    arrays: list[bytes] = []
    text = json.dumps(_coded(value, arrays)).encode()
    return b"".join([len(text).to_bytes(_HEAD, "little"), text, *arrays])


def unpack(data: bytes):
    """The value that `pack` made bytes of.

    Raises:
      ValueError: it made no such bytes.
    """
    end = _HEAD + int.from_bytes(data[:_HEAD], "little")
    return _decoded(json.loads(data[_HEAD:end]), data, [end])


def _coded(value, arrays: list[bytes]) -> Any:
    """A form that JSON has; the bytes of arrays are appended."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        coded = [_coded(part, arrays) for part in value]
        return coded if isinstance(value, list) else {"tuple": coded}
    if isinstance(value, dict):
        return {"dict": [[_coded(key, arrays), _coded(value[key], arrays)] for key in value]}
    if not is_plain(value):
        raise TermwiseTypeError(
            f"A {type(value).__name__} cannot be saved. Accepted: numbers, strings, None, numpy "
            "arrays, and lists, tuples and dicts of these."
        )
    arrays.append(np.ascontiguousarray(value).tobytes())
    return {"array": [_dtype_name(value), list(np.shape(value))]}


def _decoded(coded, data: bytes, position: list[int]):
    """The value of its coded form; `position` is that of the next array's bytes."""
    if isinstance(coded, list):
        return [_decoded(part, data, position) for part in coded]
    if not isinstance(coded, dict):
        return coded
    ((kind, content),) = coded.items()
    if kind == "tuple":
        return tuple(_decoded(part, data, position) for part in content)
    if kind == "dict":
        return {
            _decoded(key, data, position): _decoded(part, data, position) for key, part in content
        }
    name, shape = content
    dtype = tf.as_dtype(name).as_numpy_dtype
    array = np.frombuffer(data, dtype, math.prod(shape), position[0]).reshape(shape).copy()
    position[0] += array.nbytes
    return array if shape else array[()]


def _dtype_name(array) -> str | None:
    """TensorFlow's name of an array's dtype; None where it has none, or for strings."""
    try:
        dtype = tf.as_dtype(array.dtype)
    except TypeError:
        return None
    return None if dtype in (tf.string, tf.resource, tf.variant) else dtype.name
