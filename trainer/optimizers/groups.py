"""Groups: models trained in parts, each with its optimizer and update interval."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError

WHOLE = "model"  # the one group of a model that is not divided


def partition(groups: Mapping | None, variables: dict) -> dict[str, list[str]]:
    """Which variable belongs to which group.

    Args:
      groups: group name -> pattern of variable paths, list of patterns, layer, or list of
        variables; None puts everything into one group.
      variables: path -> variable, those of the model and the loss parameters.
    Returns:
      dict: group name -> paths. A variable in no group is in none of the lists.
    Raises:
      ValueError: a group that holds no variable, or a variable in two groups.
    """
    if groups is None:
        return {WHOLE: list(variables)}
    check_kind(groups)
    members: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for group, given in groups.items():
        paths = [path for path, v in variables.items() if matches(given, path, v)]
        if not paths:
            raise TermwiseError(
                f"groups={{{group!r}: {given!r}}} holds no variable. The variables are "
                f"{', '.join(variables)}."
            )
        for path in paths:
            if path in owner:
                raise TermwiseError(
                    f"Variable {path!r} is in group {owner[path]!r} and in group {group!r}. "
                    "Make the patterns disjoint."
                )
            owner[path] = group
        members[group] = paths
    return members


def matches(given, path, variable) -> bool:
    if isinstance(given, str):
        # Keras puts the model's own name in front of a variable's path
        return fnmatch.fnmatchcase(path, given) or fnmatch.fnmatchcase(path, f"*/{given}")
    if isinstance(given, keras.Layer):
        return any(variable is v for v in given.variables)
    if isinstance(given, (keras.Variable, tf.Variable)):
        return variable is given
    if isinstance(given, (list, tuple)):
        return any(matches(one, path, variable) for one in given)
    raise TermwiseTypeError(
        f"groups= holds {given!r}. Accepted: a pattern of variable paths such as 'critic/*', a "
        "layer, a variable, or a list of these."
    )


def check_kind(groups) -> None:
    """Raises TypeError where `groups=` is no dict."""
    if groups is not None and not isinstance(groups, Mapping):
        raise TermwiseTypeError(
            f"groups={groups!r}. Give a dict of group name -> pattern of variable paths, such as "
            "{'critic': 'critic/*'}."
        )


def check_names(given, groups, what: str) -> None:
    """Raises ValueError where a dict by group names one that is not there."""
    for name in given:
        if name not in groups:
            close = difflib.get_close_matches(str(name), list(groups), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TermwiseError(
                f"{what} names group {name!r}; the groups are {', '.join(map(repr, groups))}.{hint}"
            )
