"""The value that a piece of text on the command line stands for, in a given type."""

from __future__ import annotations

import ast
import math
import numbers
import warnings

import numpy as np

_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
    str: "text",
    list: "a list such as [1, 2]",
    tuple: "a tuple such as (1, 2)",
    dict: 'a dict such as {"a": 1}',
    type(None): "a Python literal",
}
# numpy's numbers are saved, and given to the experiment, as Python's
_FAMILIES = [
    (bool, bool),
    (np.bool_, bool),
    (numbers.Integral, int),
    (numbers.Real, float),
]


def type_name(kind: type) -> str:
    """What a value of the type looks like, for messages.

    Example:
      >>> type_name(bool)
      'true or false'
    """
    return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def parse(text: str, kind: type, default=None):
    """`text` as a value of type `kind`.

    Args:
      text: str, as typed: "3e-4", "true", "(64, 32)"; taken raw where `kind` is str.
      kind: bool, int, float, str, tuple, list, dict, or NoneType, which accepts any literal
        (text that is none is kept as text).
      default: the value to replace; a list's items must be of the type of its items.
    Returns:
      the value; an integer becomes a float where `kind` is float.
    Raises:
      ValueError: `text` is no such value; the message says what is accepted.

    Example:
      >>> parse("1", float), parse("(8, 16)", tuple, (64,)), parse("none of it", type(None))
      (1.0, (8, 16), 'none of it')
    """
    kind = next((k for base, k in _FAMILIES if issubclass(kind, base)), kind)
    if kind is str:
        return text
    if kind is bool:
        return _truth(text)
    if kind in (int, float):
        return _number(text, kind)
    if kind is type(None):
        return _any(text)
    if kind not in _NAMES:
        raise ValueError(f"a {type_name(kind)} cannot be given on the command line.")
    return _container(text, kind, default)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"accepted: {type_name(bool)}.")
    return text.lower() == "true"


def _any(text: str):
    """Any literal; text that is none is kept as text."""
    if text.lower() in ("true", "false"):
        return _truth(text)
    try:
        value = _literal(text)
    except ValueError:
        return text
    _check_json(value)
    return value


def _container(text: str, kind: type, default):
    """A list, a tuple or a dict."""
    try:
        value = _literal(text)
    except ValueError:
        raise ValueError(f"accepted: {type_name(kind)}.") from None
    _check_json(value)
    if kind is dict and isinstance(value, dict):
        return value
    if kind in (list, tuple) and isinstance(value, (list, tuple)):
        return kind(_item(item, default) for item in value)
    raise ValueError(f"accepted: {type_name(kind)}.")


def _number(text: str, kind: type):
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"accepted: {type_name(kind)}.")
    return value


def _literal(text: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError("no literal") from None


def _item(item, default):
    """One item, in the one type that the default's items have."""
    kinds = {type(value) for value in default or ()}
    if len(kinds) != 1:
        return item
    kind = kinds.pop()
    if kind is float and type(item) is int:
        return float(item)
    if type(item) is not kind:
        raise ValueError(f"{item!r} is not like the items of the default, {default!r}.")
    return item


def _check_json(value) -> None:
    """A saved configuration is JSON, and must say the same when it is read."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"accepted: {type_name(float)}.")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not a string.")
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_json(item)
    elif not isinstance(value, (bool, int, float, str, type(None))):
        raise ValueError(
            f"a {type(value).__name__} cannot be saved. "
            "Accepted: numbers, strings, booleans, None, lists, dicts."
        )
