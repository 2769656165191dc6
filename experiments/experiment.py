"""What an experiment's module gives to the program: a Trainer and what it is fed."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.configuration import ConfigurationError, printable

if TYPE_CHECKING:
    from trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A Trainer and its data, as `experiment(config, *, strategy, workdir)` of a module returns it.

    Attributes:
      trainer: Trainer, made with the given strategy and workdir and `config=config.to_dict()`.
      train_data: what `Trainer.fit` takes.
      validation_data: the same, evaluated while training; None for none.
      test_data: the same, evaluated after training; None for none.
      fit: further arguments of `Trainer.fit`: steps, batch_size, log_every, validate_every, ...
    """

    trainer: Trainer
    train_data: Any
    validation_data: Any = None
    test_data: Any = None
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def batch(self) -> dict[str, int]:
        """The arguments that `build` and `evaluate` share with `fit`."""
        return {key: self.fit[key] for key in ("batch_size",) if key in self.fit}


def check_name(name, workdir: str | None) -> str:
    """The name of an experiment's module, if there is such a module; it is not imported yet.

    Args:
      name: the configuration's `experiment`.
      workdir: str, the run's directory: a saved configuration must not name code inside it.
    Raises:
      ConfigurationError: no name, no such module, or a module inside the workdir.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name):
        given = "is not set" if name is None else f"is {printable(repr(name))}"
        raise ConfigurationError(
            f"--config.experiment: {given}. "
            "Give the module that defines experiment(), such as experiments.digits."
        )
    if workdir is not None:
        inside = Path(workdir).resolve()
        for folder in sys.path:
            place = Path(folder or ".").joinpath(*name.split(".")).resolve()
            if inside == place or inside in place.parents:
                raise ConfigurationError(
                    f"--config.experiment: {name} lies in the workdir {workdir}, "
                    "and nothing there is run. Move the module out of it."
                )
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise ConfigurationError(f"--config.experiment: no module named {name}.{_suggestion(name)}")
    return name


def load(name: str) -> Callable[..., Experiment]:
    """The function `experiment` of a module.

    Raises:
      ConfigurationError: the module defines none, or needs a package that is not installed.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or importlib.util.find_spec(missing) is not None:
            raise
        raise ConfigurationError(
            f"{name} needs the package {missing}, which is not installed. "
            'pip install "termwise[experiments]" brings what the experiments here need.'
        ) from error
    function = getattr(module, "experiment", None)
    if not callable(function):
        raise ConfigurationError(
            f"--config.experiment: {name} defines no experiment(). "
            "Define `def experiment(config, *, strategy, workdir)` there; it returns an Experiment."
        )
    return function


def _suggestion(name: str) -> str:
    import experiments

    known = [f"experiments.{module.name}" for module in pkgutil.iter_modules(experiments.__path__)]
    match = difflib.get_close_matches(name, known, 1, 0.7)
    return f" Did you mean {match[0]}?" if match else ""
