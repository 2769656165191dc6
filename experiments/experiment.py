"""What an experiment's module gives to the program: a Trainer and what it is fed."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.check import Check
from experiments.cli import ConfigurationError, printable
from experiments.cli.saved import last_start
from trainer.launch.suggestion import nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainer import Trainer


FIT_SETTINGS = ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A Trainer and its data, as `experiment(config, *, strategy, workdir)` of a module returns it.

    Attributes:
      trainer: Trainer, made with the given strategy and workdir and `config=config.to_dict()`.
      train_data: what `Trainer.fit` takes.
      validation_data: the same, evaluated while training; None for none.
      test_data: the same, evaluated after training; None for none.
      fit: further arguments of `Trainer.fit`: steps, batch_size, log_every, validate_every, ...
      check: a function of the trained Trainer that tells what was reached: name -> `Check`. It is
        called after training and evaluation, on every host; None for none.
      picture: a function of the trained Trainer that draws what was reached, for
        `--picture=FILE.png`; None for none.
    """

    trainer: Trainer
    train_data: Any
    validation_data: Any = None
    test_data: Any = None
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)
    check: Callable[[Trainer], dict[str, Check]] | None = None
    picture: Callable[[Trainer], Figure] | None = None

    @property
    def batch(self) -> dict[str, int]:
        """The arguments that `build` and `evaluate` share with `fit`."""
        return {key: self.fit[key] for key in ("batch_size",) if key in self.fit}

    def batch_of(self, data) -> dict[str, int]:
        """The same for data that are read: sizes by source say nothing of data without names.

        These are read in batches of the default size; what is read does not depend on it.
        """
        from trainer import Sources  # which imports TensorFlow: not before it is configured

        by_source = isinstance(self.fit.get("batch_size"), dict)
        return {} if by_source and not isinstance(data, Sources) else self.batch


def fit_settings(config) -> dict[str, Any]:
    """The arguments of `Trainer.fit` that the configurations here have, for `Experiment.fit`.

    Args:
      config: ConfigDict with the fields of `FIT_SETTINGS`.
    """
    return {name: config[name] for name in FIT_SETTINGS}


def check_name(name, workdir: str | None) -> str:
    """The name of an experiment's module, if there is such a module; it is not imported yet.

    Args:
      name: the configuration's `experiment`.
      workdir: str, the run's directory: a saved configuration must not name code inside it.
    Raises:
      ConfigurationError: no name, no such module, or a module inside the workdir.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name):
        state = "is not set" if name is None else f"is {printable(repr(name))}"
        raise ConfigurationError(
            f"--config.experiment: {state}. "
            "Give the module that defines experiment(), such as experiments.digits."
        )
    if workdir is not None and any(_code_in(workdir, name, folder) for folder in sys.path):
        raise ConfigurationError(_in_workdir(name, workdir))
    if not _is_module(name):
        if workdir is not None and _code_in(workdir, name, workdir):
            raise ConfigurationError(_in_workdir(name, workdir))
        told = _hidden(name) or _where_it_was(name, workdir) or _suggestion(name)
        raise ConfigurationError(f"--config.experiment: no module named {name}.{told}")
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


def _code_in(workdir: str, name: str, folder: str) -> bool:
    """Whether a module that is looked for in a folder would be found in the workdir.

    The packages in which it lies count too: to look for a module is to import its packages.
    """
    inside = Path(workdir).resolve()
    place = Path(folder or ".")
    for part in name.split("."):
        place = (place / part).resolve()
        there = place.is_dir() or any(place.parent.glob(f"{part}.*"))
        if there and (inside == place or inside in place.parents):
            return True
    return False


def _in_workdir(name: str, workdir: str) -> str:
    return (
        f"--config.experiment: {name} lies in the workdir {workdir}, "
        "and nothing there is run. Move the module out of it."
    )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _file_in(folder: str, name: str) -> Path | None:
    """The file of a module, or of a package, below a folder; None where there is none."""
    place = Path(folder, *name.split("."))
    found = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((file for file in found if file.is_file()), None)


def _hidden(name: str) -> str:
    """What to say of a module in a package of the current folder that is hidden by one of these."""
    package = name.partition(".")[0]
    if package not in ("experiments", "trainer", "losses") or not _file_in(".", name):
        return ""
    return (
        f" {_file_in('.', name)} is hidden by the package {package} of Termwise: give the folder "
        "another name."
    )


def _where_it_was(name: str, workdir: str | None) -> str:
    """Where the module of a run stood when it was started last, and how to start from there."""
    folder = None if workdir is None else last_start(workdir).get("folder")
    if not isinstance(folder, str):
        return ""
    shown = printable(folder, 300)
    if _file_in(folder, name) is None:
        return f" The run was started in {shown}, where there is none now."
    return f" It is in {shown}, where the run was started: go there, or set PYTHONPATH={shown}."


def _suggestion(name: str) -> str:
    import experiments

    known = [f"experiments.{module.name}" for module in pkgutil.iter_modules(experiments.__path__)]
    match = nearest(name, known, 0.7)
    return f" Did you mean {match}?" if match else ""
