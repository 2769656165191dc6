"""`python -m experiments.run`: one experiment, from what was typed to its results.

Everything that can be wrong with what was typed is found before TensorFlow is imported, so that
a mistyped flag answers at once, and before anything is written.
"""

from __future__ import annotations

import json
import sys
import traceback

from ml_collections.config_dict import RequiredValueError

from experiments.cli import command_line, configuration, precision, saved
from experiments.cli.command_line import Command
from experiments.cli.configuration import ConfigurationError
from experiments.cli.startup import start_tensorflow
from experiments.cli.user_errors import user_errors
from experiments.experiment import Experiment, check_name, load
from trainer.launch.exit_codes import DONE, INTERRUPTED, WRONG


def main(argv: list[str] | None = None) -> int:
    """Does what the arguments say.

    Args:
      argv: the arguments after the program's name; those of the process by default.
    Returns:
      the exit code: 0 done, 2 something given was wrong, 42 preempted and saved, 75 another
      host is gone, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        command = command_line.parse(argv)
        if command.help:
            print(_help(command))
            return DONE
        config = _configuration(command)
        return _run(command, config)
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


def _configuration(command: Command) -> dict:
    """The resolved configuration, agreed with the one that the workdir was started with."""
    started = None if command.workdir is None else saved.read(command.workdir)
    if command.config is not None:
        config = configuration.load(command.config)
    elif started is not None:
        config = configuration.from_plain(started)
    elif command.workdir is not None:
        raise ConfigurationError(
            f"--workdir={command.workdir}: has no config.json, so no run was started there. "
            "Add --config=FILE to start one."
        )
    else:
        raise ConfigurationError(
            "neither --config nor --workdir is given. "
            "Give --config=FILE to start a run, or --workdir=DIRECTORY to continue one."
        )
    for name, text in command.overrides:
        configuration.override(config, name, text)
    if command.precision is not None:
        precision.override(config, command.precision)
    resolved = json.loads(json.dumps(configuration.plain(config)))
    precision.of(resolved)
    if command.workdir is not None:
        if started is not None:
            overridden = [name for name, _ in command.overrides]
            overridden += [precision.FIELD] * (command.precision is not None)
            both = precision.agreed(started, resolved)
            saved.check_same(command.workdir, *both, overridden)
        saved.check_workdir(command.workdir)
    if command.follow and command.mode != "evaluate":
        raise ConfigurationError("--follow: goes with --mode=evaluate.")
    if (command.step is not None) != (command.mode == "replay"):
        raise ConfigurationError("--mode=replay and --step=K: go together. Give both, or neither.")
    if command.profile_steps is not None and (command.mode != "train" or not command.workdir):
        raise ConfigurationError("--profile_steps: goes with --mode=train and --workdir=DIRECTORY.")
    if command.mode in ("evaluate", "replay"):
        saved.check_evaluable(command.workdir, command.mode)
    check_name(resolved.get("experiment"), command.workdir)
    return resolved


def _run(command: Command, resolved: dict) -> int:
    start_tensorflow(command.virtual_devices)
    with precision.in_use(resolved):
        return _do(command, resolved)


def _do(command: Command, resolved: dict) -> int:
    strategy = _strategy(command)
    experiment = _build(command, strategy, resolved)
    if command.mode == "describe":
        print(experiment.trainer.describe())
        return DONE
    if command.mode == "replay" and command.step is not None:
        with user_errors():
            print(
                experiment.trainer.replay(experiment.train_data, command.step, **experiment.batch)
            )
        return DONE
    if command.mode == "train":
        with user_errors():
            experiment.trainer.fit(
                experiment.train_data,
                validation_data=experiment.validation_data,
                profile_steps=command.profile_steps,
                **experiment.fit,
            )
    elif command.follow:
        for step in experiment.trainer.follow():
            _evaluate(experiment, f"step {step} validation", experiment.validation_data)
    else:
        _evaluate(experiment, "validation", experiment.validation_data)
    _evaluate(experiment, "test", experiment.test_data)
    return DONE


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
        experiment.trainer.build(experiment.train_data, **experiment.batch)
    return experiment


def _evaluate(experiment: Experiment, split: str, data) -> None:
    """Prints `test  total 0.21 = digit 0.01 + ... | digit_accuracy 0.99`."""
    from trainer.ledger.format import equation

    if data is None:
        return
    with user_errors():
        values = experiment.trainer.evaluate(data, **experiment.batch)
    scores = [
        f" | {key.removeprefix('metrics/')} {value:.4f}"
        for key, value in values.items()
        if key.startswith("metrics/")
    ]
    if experiment.trainer.is_chief:
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


if __name__ == "__main__":
    sys.exit(main())
