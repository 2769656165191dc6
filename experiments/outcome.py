"""What a run came to: its checks against the truth, and its picture."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from experiments.check import Check
from experiments.cli.configuration import ConfigurationError, printable
from experiments.cli.user_errors import user_errors
from experiments.experiment import Experiment
from trainer.persistence.disk import find_obstacle


def check_picture_path(path: str) -> None:
    """Raises unless a picture can be drawn into a file; nothing is written.

    Raises:
      ConfigurationError: it is no .png, a folder, or cannot be made; matplotlib is missing.
    """
    shown = f"--picture={printable(path)}"
    if not path.endswith(".png"):
        raise ConfigurationError(f"{shown}: give a file whose name ends in .png.")
    if Path(path).is_dir():
        raise ConfigurationError(f"{shown}: is a folder. Give a file.")
    obstacle = find_obstacle(Path(path).parent)
    if obstacle is not None:
        raise ConfigurationError(f"{shown}: its folder: {obstacle.reason}. Give another file.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError(
            f'{shown}: needs matplotlib. pip install "termwise[plot]" brings it.'
        )


def check_drawable(experiment: Experiment, name: str) -> None:
    """Raises where an experiment of a module's `name` that is to be drawn draws nothing."""
    if experiment.picture is None:
        raise ConfigurationError(
            f"--picture: {name} draws none. Return Experiment(..., picture=FUNCTION) there, a "
            "function of the Trainer that gives a matplotlib Figure; or drop the flag."
        )


def check_all(experiment: Experiment, keep: bool) -> bool:
    """Asks an experiment what it reached, prints a line of each check; whether all are reached.

    Every host asks, for a check may evaluate; the chief prints and writes.

    Args:
      keep: whether DONE.json of the workdir is to hold them.
    Raises:
      ConfigurationError: what `check` returned is no dict of checks.
    """
    if experiment.check is None:
        return True
    trainer = experiment.trainer
    with user_errors():
        checks = experiment.check(trainer)
    if not isinstance(checks, dict) or not all(
        isinstance(name, str) and isinstance(check, Check) for name, check in checks.items()
    ):
        raise ConfigurationError(
            f"check() of the experiment returned {printable(repr(checks))}. "
            "Return a dict: name -> experiments.experiment.Check."
        )
    if trainer.is_chief:
        for name, check in checks.items():
            print(f"check  {name} {check}  {_word(check)}".rstrip(), flush=True)
        if keep and trainer.workdir is not None:
            with user_errors():
                trainer.workdir.add_to_done({"checks": {n: c.plain() for n, c in checks.items()}})
    return all(check.reached for check in checks.values())


def draw(experiment: Experiment, path: str) -> None:
    """Draws an experiment's picture into a file, whole or not at all; the chief writes."""
    assert experiment.picture is not None  # as `check_drawable` has seen to
    with user_errors():
        figure = experiment.picture(experiment.trainer)
    if not hasattr(figure, "savefig"):
        raise ConfigurationError(
            f"picture() of the experiment returned {type(figure).__name__}. "
            "Return a matplotlib Figure."
        )
    if not experiment.trainer.is_chief:
        return
    file = Path(path)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format="png")
        temporary.replace(file)
    except OSError as error:
        raise ConfigurationError(
            f"--picture={printable(path)}: {error.strerror or error}."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    print(f"picture  {file}", flush=True)


def _word(check: Check) -> str:
    if not check.reached:
        return "missed"
    return "" if check.at_least is None and check.at_most is None else "reached"
