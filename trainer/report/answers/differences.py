"""What differs in the configurations of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a nested mapping by their dotted paths; an empty mapping is a value.

    Example:
      >>> dict(flatten({"optimizer": {"learning_rate": 0.1}, "seed": 0}))
      {'optimizer.learning_rate': 0.1, 'seed': 0}
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def differences(configs: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """The fields in which runs differ.

    Args:
      configs: run -> its configuration; None where it has none.
    Returns:
      list of {"field": path, "values": {run: value}}; a run that lacks the field is left out.

    Example:
      >>> differences({"a": {"seed": 0, "lr": 0.1}, "b": {"seed": 1, "lr": 0.1}})
      [{'field': 'seed', 'values': {'a': 0, 'b': 1}}]
    """
    fields = {run: dict(flatten(config)) for run, config in configs.items() if config is not None}
    names = dict.fromkeys(name for values in fields.values() for name in values)
    rows = []
    for name in names:
        values = {run: of_run[name] for run, of_run in fields.items() if name in of_run}
        shown = [(type(value).__name__, value) for value in values.values()]
        if len(values) < len(fields) or any(pair != shown[0] for pair in shown):
            rows.append({"field": name, "values": values})
    return rows
