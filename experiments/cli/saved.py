"""The configuration that a workdir was started with, and whether a further start agrees with it."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.cli.configuration import ConfigurationError, printable
from trainer.persistence.checkpoint_files import index_steps, manifest_steps
from trainer.persistence.disk import find_obstacle, read_file

ABSENT = object()
# fields of which a run's course so far does not depend: how far it goes, and when what is due
MAY_CHANGE = (
    *("steps", "epochs", "log_every", "validate_every", "checkpoint_every", "steps_per_loop"),
    *("keep_last", "keep_best", "best_metric", "verbose"),
)


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


def last_start(workdir: str) -> dict:
    """What the last start of a run noted in starts.jsonl; {} where nothing can be read."""
    try:
        lines = read_file(Path(workdir) / "starts.jsonl").decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in reversed(lines):
        try:
            note = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn, or edited
        if isinstance(note, dict) and "argv" in note:  # else it notes what came between two starts
            return note
    return {}


def grown(workdir: str, started: dict) -> dict:
    """The configuration a run was started with, with what its last start has changed of it.

    Args:
      workdir: the run's directory.
      started: of `read`.
    Returns:
      dict, other in fields of `MAY_CHANGE` alone: config.json holds those of the first start.
    """
    changed = last_start(workdir).get("changed")
    if not isinstance(changed, dict):
        return started
    return {**started, **{name: changed[name] for name in MAY_CHANGE if name in changed}}


def differences(before: dict, after: dict) -> list[tuple[str, object, object]]:
    """The fields in which two plain configurations differ.

    Returns:
      list of (dotted name, value before, value after), by name; `ABSENT` where there is none.

    Example:
      >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
      [('a.b', 1, 3)]
    """
    differing = []
    for key in sorted({*before, *after}):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if isinstance(old, dict) and isinstance(new, dict):
            inside = differences(old, new)
            differing += [(f"{key}.{name}", was, now) for name, was, now in inside]
        elif not _equal(old, new):
            differing.append((key, old, new))
    return differing


def check_same(workdir: str, before: dict, after: dict, overridden: list[str]) -> None:
    """Raises unless a run of `workdir` that was started with `before` may continue with `after`.

    They may differ in fields of `MAY_CHANGE`.

    Args:
      workdir: str, for the message.
      before, after: plain configurations.
      overridden: the dotted names given on the command line.
    Raises:
      ConfigurationError: they differ; the message names the fields.
    """
    changed = [each for each in differences(before, after) if each[0] not in MAY_CHANGE]
    if not changed:
        return
    told = [difference for difference in changed if difference[0] == "experiment"] or changed
    parts = "; ".join(_tell(*difference) for difference in told[:4])
    more = f"; and {len(told) - 4} more" if len(told) > 4 else ""
    names = {name for name, _, _ in changed}
    advice = _advise(workdir, names, overridden)
    raise ConfigurationError(f"{workdir} was started {parts}{more}. {advice}")


def growth(before: dict, after: dict) -> str | None:
    """What is other than at the first start, where it may be, in a line; None where nothing is.

    Example:
      >>> growth({"steps": 200, "seed": 0}, {"steps": 400, "seed": 0})
      'started with steps=200, now 400; what is computed of it (a schedule) follows'
    """
    grown = [each for each in differences(before, after) if each[0] in MAY_CHANGE]
    if not grown:
        return None
    follows = "; what is computed of it (a schedule) follows"
    derived = follows if {"steps", "epochs"} & {name for name, *_ in grown} else ""
    return f"started {'; '.join(_tell(*each) for each in grown)}{derived}"


def _tell(name: str, before, after) -> str:
    """One difference in words: `with l2=0.0001, now 0.0003`."""
    name = printable(name)
    then = f"without {name}" if before is ABSENT else f"with {name}={_show(before)}"
    return f"{then}, now {'without it' if after is ABSENT else _show(after)}"


def _advise(workdir: str, changed: set[str], overridden: list[str]) -> str:
    """What to do where fields of these names have changed."""
    if "experiment" in changed:
        return "Use a new --workdir."
    if changed <= set(overridden):
        dropped = "the override" if len(changed) == 1 else "the overrides"
        return f"Use a new --workdir, or drop {dropped} to resume."
    return f"Use a new --workdir, or resume with --workdir={workdir} alone."


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
    """Raises unless `workdir` holds what a mode reads: but for a replay, a checkpoint.

    Raises:
      ConfigurationError: no workdir was given, no run was started there, or none was saved yet.
    """
    if workdir is None:
        raise ConfigurationError(
            f"--mode={mode}: needs --workdir=DIRECTORY, of a run that was started."
        )
    folder = Path(workdir) / "checkpoints"
    if mode != "replay" and not manifest_steps(folder) and not index_steps(folder):
        raise ConfigurationError(
            f"--mode={mode}: {workdir} holds no checkpoint. Train it first, or wait for one."
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
