"""Groups: models trained in parts, each with its optimizer and update interval."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import suggestion

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
    for group, place in groups.items():
        paths = [path for path, v in variables.items() if matches(place, path, v)]
        if not paths:
            raise TermwiseError(
                f"groups={{{group!r}: {place!r}}} holds no variable. The variables are "
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


def matches(place, path, variable) -> bool:
    """Whether a variable is meant by a pattern of paths, a layer, a variable, or one of a list."""
    if isinstance(place, str):
        # Keras puts the model's own name in front of a variable's path
        return fnmatch.fnmatchcase(path, place) or fnmatch.fnmatchcase(path, f"*/{place}")
    if isinstance(place, keras.Layer):
        return any(variable is v for v in place.variables)
    if isinstance(place, (keras.Variable, tf.Variable)):
        return variable is place
    if isinstance(place, (list, tuple)):
        return any(matches(part, path, variable) for part in place)
    raise TermwiseTypeError(
        f"groups= holds {place!r}. Accepted: a pattern of variable paths such as 'critic/*', a "
        "layer, a variable, or a list of these."
    )


def check_kind(groups) -> None:
    """Raises TypeError where `groups=` is no dict."""
    if groups is not None and not isinstance(groups, Mapping):
        raise TermwiseTypeError(
            f"groups={groups!r}. Give a dict of group name -> pattern of variable paths, such as "
            "{'critic': 'critic/*'}."
        )


def check_names(by_group, groups, what: str) -> None:
    """Raises ValueError where a dict by group names a group that is not there."""
    for name in by_group:
        if name not in groups:
            raise TermwiseError(
                f"{what} names group {name!r}; the groups are {', '.join(map(repr, groups))}."
                f"{suggestion(name, groups)}"
            )
