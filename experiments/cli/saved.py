"""The configuration that a workdir was started with, and whether a further start agrees with it."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.cli.configuration import ConfigurationError, printable
from trainer.persistence.disk import find_obstacle, read_file

ABSENT = object()


def read(workdir: str) -> dict | None:
    """The saved configuration of a run; None where none was started.

    Args:
      workdir: str, the run's directory, which need not exist.
    Returns:
      dict of plain values, as `configuration.plain` gives them.
    Raises:
      ConfigurationError: `config.json` cannot be read, or is no configuration.
    """
    path = Path(workdir) / "config.json"
    shown = printable(str(path), 300)
    try:
        text = read_file(path).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigurationError(f"{shown}: {reason}. Give another --workdir.") from None
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise ConfigurationError(
            f"{shown}: is not JSON ({reason}). Termwise writes it once and it is not to be edited; "
            "restore it, or use a new --workdir."
        ) from None
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"{shown}: holds a {type(values).__name__}, not a configuration. "
            "Restore it, or use a new --workdir."
        )
    return values


def differences(before: dict, after: dict) -> list[tuple[str, object, object]]:
    """The fields in which two plain configurations differ.

    Returns:
      list of (dotted name, value before, value after), by name; `ABSENT` where there is none.

    Example:
      >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
      [('a.b', 1, 3)]
    """
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if isinstance(old, dict) and isinstance(new, dict):
            inside = differences(old, new)
            found += [(f"{key}.{name}", one, other) for name, one, other in inside]
        elif not _equal(old, new):
            found.append((key, old, new))
    return found


def check_same(workdir: str, before: dict, after: dict, overridden: list[str]) -> None:
    """Raises unless a run of `workdir` that was started with `before` may continue with `after`.

    Args:
      workdir: str, for the message.
      before, after: plain configurations.
      overridden: the dotted names given on the command line.
    Raises:
      ConfigurationError: they differ; the message names the fields.
    """
    changed = differences(before, after)
    if not changed:
        return
    named = [c for c in changed if c[0] == "experiment"] or changed
    parts = [
        f"{f'without {name}' if old is ABSENT else f'with {name}={_show(old)}'}, "
        f"now {'without it' if new is ABSENT else _show(new)}"
        for name, old, new in ((printable(name), old, new) for name, old, new in named[:4])
    ]
    more = f"; and {len(named) - 4} more" if len(named) > 4 else ""
    if any(name == "experiment" for name, _, _ in named):
        advice = "Use a new --workdir."
    elif {name for name, _, _ in changed} <= set(overridden):
        dropped = "the override" if len(changed) == 1 else "the overrides"
        advice = f"Use a new --workdir, or drop {dropped} to resume."
    else:
        advice = f"Use a new --workdir, or resume with --workdir={workdir} alone."
    raise ConfigurationError(f"{workdir} was started {'; '.join(parts)}{more}. {advice}")


def check_workdir(workdir: str) -> None:
    """Raises unless a run can be kept in `workdir`; creates nothing.

    Raises:
      ConfigurationError: it is a file, lies below one, may not be written, or has a name that
        the file system cannot take.
    """
    obstacle = find_obstacle(workdir)
    if obstacle is not None:
        raise ConfigurationError(
            f"--workdir={printable(workdir, 300)}: {printable(obstacle.reason, 300)}. Give a "
            "directory, new or of an earlier run."
        )


def check_evaluable(workdir: str | None, mode: str = "evaluate") -> None:
    """Raises unless `workdir` holds what a mode reads: to evaluate, a checkpoint.

    Raises:
      ConfigurationError: no workdir was given, no run was started there, or none was saved yet.
    """
    if workdir is None:
        raise ConfigurationError(
            f"--mode={mode}: needs --workdir=DIRECTORY, of a run that was started."
        )
    found = [*Path(workdir).glob("checkpoints/ckpt-*.json")]
    if mode == "evaluate" and not found and not any(Path(workdir).glob("checkpoints/*.index")):
        raise ConfigurationError(
            f"--mode=evaluate: {workdir} holds no checkpoint. Train it first, or wait for one."
        )


def _equal(old, new) -> bool:
    # True == 1 in Python; in a configuration they are two things
    if isinstance(old, bool) is not isinstance(new, bool):
        return False
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_equal, old, new))
    return old == new


def _show(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return printable(text if text else "''")


def _no_constant(name: str):
    raise ValueError(f"it holds {name}")
