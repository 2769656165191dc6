"""One experiment, from what was typed to its results.

Everything that can be wrong with what was typed is found before TensorFlow is imported, so that
a mistyped flag answers at once, and before anything is written.
"""

from __future__ import annotations

import json
import sys
import traceback

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from experiments.cli import command_line, configuration, precision, saved, xla_cache
from experiments.cli.command_line import Command
from experiments.cli.configuration import ConfigurationError
from experiments.cli.startup import start_tensorflow
from experiments.cli.user_errors import user_errors
from experiments.experiment import Experiment, check_name, load
from experiments.outcome import check_all, check_drawable, check_picture_path, draw
from trainer.launch.exit_codes import DONE, INTERRUPTED, WRONG, missed

HARDEST = 20  # examples of each term in the tables of --mode=examples


def run(argv: list[str]) -> int:
    """Does what the arguments say.

    Args:
      argv: the arguments after the program's name.
    Returns:
      the exit code: 0 done, 1 done and a check is missed, 2 the command, the configuration or the
      data is wrong, 42 preempted and saved, 75 another host is gone, 130 interrupted.
    """
    try:
        command = command_line.parse(argv)
        if command.help:
            print(_help(command))
            return DONE
        return carry_out(command, resolve(command))
    except ConfigurationError as error:
        if {"--traceback", "--traceback=true"} & set(argv):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt as interruption:
        print(interruption.args[0] if interruption.args else "interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stopped:  # preempted, or another host is gone
        if not isinstance(stopped.code, int):
            raise
        return stopped.code


def resolve(command: Command) -> dict:
    """The resolved configuration, agreed with the one that the workdir was started with.

    Raises:
      ConfigurationError: something that was typed, or that a file holds, is wrong.
    """
    started = None if command.workdir is None else saved.read(command.workdir)
    config = _configuration(command, started)
    for name, text in command.overrides:
        configuration.override(config, name, text)
    if command.precision is not None:
        precision.override(config, command.precision)
    resolved = json.loads(json.dumps(configuration.plain(config)))
    precision.of(resolved)
    if command.workdir is not None:
        _check_workdir(command, command.workdir, started, resolved)
    _check_mode(command)
    check_name(resolved.get("experiment"), command.workdir)
    return resolved


def _configuration(command: Command, started: dict | None) -> ConfigDict:
    """The configuration of the file that was given, else the one that the run was started with."""
    if command.config is not None:
        return configuration.load(command.config)
    if started is not None and command.workdir is not None:
        return configuration.from_plain(saved.grown(command.workdir, started))
    if command.workdir is not None:
        raise ConfigurationError(
            f"--workdir={command.workdir}: has no config.json, so no run was started there. "
            "Add --config=FILE to start one."
        )
    raise ConfigurationError(
        "neither --config nor --workdir is given. "
        "Give --config=FILE to start a run, or --workdir=DIRECTORY to continue one."
    )


def _check_workdir(command: Command, workdir: str, started: dict | None, resolved: dict) -> None:
    """Raises unless the run of a workdir may go on with a configuration, and be kept there."""
    if started is not None:
        overridden = [name for name, _ in command.overrides]
        overridden += [precision.FIELD] * (command.precision is not None)
        saved.check_same(workdir, *precision.agreed(started, resolved), overridden)
        if command.mode == "train" and (grown := saved.growth(started, resolved)) is not None:
            print(f"{workdir}: {grown}", flush=True)
    saved.check_workdir(workdir)


def _check_mode(command: Command) -> None:
    """Raises unless the flags go together, and the workdir holds what the mode reads."""
    if command.follow and command.mode != "evaluate":
        raise ConfigurationError("--follow: goes with --mode=evaluate.")
    if (command.step is not None) != (command.mode == "replay"):
        raise ConfigurationError("--mode=replay and --step=K: go together. Give both, or neither.")
    if command.profile_steps is not None and (command.mode != "train" or not command.workdir):
        raise ConfigurationError("--profile_steps: goes with --mode=train and --workdir=DIRECTORY.")
    if command.picture is not None:
        if command.mode not in ("train", "evaluate"):
            raise ConfigurationError("--picture: goes with --mode=train or --mode=evaluate.")
        check_picture_path(command.picture)
    if command.mode in ("evaluate", "replay", "examples"):
        saved.check_evaluable(command.workdir, command.mode)


def carry_out(command: Command, resolved: dict) -> int:
    """Starts TensorFlow and does what the command says; gives the exit code."""
    code_of_missed = _code_of_missed()
    place = start_tensorflow(command.virtual_devices, command.xla_cache)
    with precision.in_use(resolved):
        experiment = _build(command, _strategy(command), resolved)
        _MODES[command.mode](experiment, command)
        reached = command.mode not in ("train", "evaluate") or _conclude(experiment, command)
    if place is not None and command.xla_cache is not None:
        xla_cache.check_kept(command.xla_cache, place)
    return DONE if reached else code_of_missed


def _code_of_missed() -> int:
    try:
        return missed()
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _conclude(experiment: Experiment, command: Command) -> bool:
    """Checks and draws what a run came to; whether it reached what it must."""
    if command.mode == "evaluate":
        with user_errors():
            experiment.trainer.restore()  # where there was nothing to evaluate
    reached = check_all(experiment, keep=command.mode == "train")
    if command.picture is not None:
        draw(experiment, command.picture)
    return reached


def _strategy(command: Command):
    """The strategy, made before TensorFlow runs anything: several hosts must find each other."""
    from trainer import resolve_strategy

    name = "one_device" if command.mode == "describe" else command.strategy
    with user_errors(building=True):
        return resolve_strategy(name)


def _build(command: Command, strategy, resolved: dict) -> Experiment:
    """The experiment, traced: what is wrong with its values is found here, not while training."""
    name = resolved["experiment"]
    workdir = None if command.mode == "describe" else command.workdir
    with user_errors(building=True):
        experiment = load(name)(
            configuration.from_plain(resolved), strategy=strategy, workdir=workdir
        )
        if not isinstance(experiment, Experiment):
            raise ConfigurationError(
                f"{name}.experiment() returned {type(experiment).__name__}. "
                "Return an experiments.experiment.Experiment."
            )
        if command.picture is not None:
            check_drawable(experiment, name)
        experiment.trainer.build(experiment.train_data, **experiment.batch)
    return experiment


def _train(experiment: Experiment, command: Command) -> None:
    with user_errors():
        experiment.trainer.fit(
            experiment.train_data,
            validation_data=experiment.validation_data,
            profile_steps=command.profile_steps,
            **experiment.fit,
        )
    _print_evaluation(experiment, "test", experiment.test_data)


def _evaluate(experiment: Experiment, command: Command) -> None:

    if command.follow:
        for step in experiment.trainer.follow():
            _print_evaluation(experiment, f"step {step} validation", experiment.validation_data)
    else:
        _print_evaluation(experiment, "validation", experiment.validation_data)
    _print_evaluation(experiment, "test", experiment.test_data)


def _describe(experiment: Experiment, command: Command) -> None:
    print(experiment.trainer.describe())


def _replay(experiment: Experiment, command: Command) -> None:
    assert command.step is not None  # as `_check_mode` has seen to
    with user_errors():
        arguments = {k: v for k, v in experiment.fit.items() if k in ("batch_size", "hardest")}
        table = experiment.trainer.replay(experiment.train_data, command.step, **arguments)
    print(table)


def _examples(experiment: Experiment, command: Command) -> None:
    """Writes every example's values, and the hardest as a table, of each part of the data."""
    trainer = experiment.trainer
    for split in ("train", "validation", "test"):
        data = getattr(experiment, f"{split}_data")
        if data is None:
            continue
        if _endless(data):
            print(f"{split}  has no end, and is left out", flush=True)
            continue
        with user_errors():
            examples = trainer.examples(data, top=HARDEST, **experiment.batch_of(data))
            if trainer.is_chief:
                assert trainer.workdir is not None  # as `check_evaluable` has seen to
                path = trainer.workdir.path / "examples" / f"{split}.npz"
                step = f"step {int(trainer.step.numpy())}"
                examples.save(path, f"{split}, {step}: the {HARDEST} hardest examples of each term")
                print(f"{split}  {path.with_suffix('.txt')}  {path}", flush=True)


def _endless(data) -> bool:
    """Whether data is a pipeline that is repeated without end."""
    import tensorflow as tf

    pipeline = isinstance(data, tf.data.Dataset)
    return pipeline and int(data.cardinality()) == tf.data.INFINITE_CARDINALITY


_MODES = {
    "train": _train,
    "evaluate": _evaluate,
    "describe": _describe,
    "replay": _replay,
    "examples": _examples,
}


def _print_evaluation(experiment: Experiment, split: str, data) -> None:
    """Prints `test  total 0.21 = digit 0.01 + ... | digit_accuracy 0.99`."""
    from losses.distributed.hosts import host_index
    from trainer.ledger import equation

    if data is None:
        return
    with user_errors():
        values = experiment.trainer.evaluate(data, **experiment.batch_of(data))
    scores = [
        f" | {key.removeprefix('metrics/')} {value:.4f}"
        for key, value in values.items()
        if key.startswith("metrics/")
    ]
    if host_index(experiment.trainer.strategy) == 0:
        print(f"{split}  {equation(values)}{''.join(scores)}", flush=True)


def _help(command: Command) -> str:
    """The usage, and with `--config` its fields and their defaults."""
    if command.config is None:
        return command_line.USAGE
    config = configuration.load(command.config)
    fields = []
    for name in configuration.field_names(config):
        try:
            fields.append(f"  --config.{name}={config[name]}")
        except RequiredValueError:
            fields.append(f"  --config.{name}=<required>")
    return "\n".join([command_line.USAGE, f"Fields of {command.config}:", *fields])
