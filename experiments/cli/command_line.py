"""What the user typed: the plain flags and the overrides, checked before anything else happens."""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata

from absl import flags

from experiments.cli.configuration import ConfigurationError, printable
from experiments.cli.precision import PRECISIONS
from trainer.launch.suggestion import nearest

MODES = ("train", "evaluate", "describe", "replay", "examples")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")

USAGE = """\
Trains, evaluates or describes an experiment.

  python -m experiments.run --config=experiments/configs/digits.py --workdir=runs/q1
  python -m experiments.run --workdir=runs/q1          continues it with its saved configuration

  --config=FILE             a Python file with get_config(), or the name of one that comes with
                            the package (digits); with --help, its fields are listed
  --config.FIELD=VALUE      another value of a field: --config.optimizer.learning_rate=3e-4
  --workdir=DIRECTORY       where the run is kept, and found again; without it nothing is kept
  --mode=MODE               train (default): up to the configured steps, or what is left of them
                            evaluate: the newest checkpoint, on the validation and the test data
                            describe: the table of terms; nothing is run and nothing is written
                            examples: each example's value of each term, by the newest checkpoint,
                            into the run's folder examples/, with a table of the hardest
                            replay: a look at the terms of --step, from the checkpoint before it
  --step=K                  the step of --mode=replay
  --follow                  with --mode=evaluate: every new checkpoint, until the run is done
  --strategy=STRATEGY       auto (default): all visible GPUs, else one device
                            one_device, mirrored, multi_worker
  --virtual_devices=N       use N logical CPU devices, to try --strategy=mirrored on any machine
  --precision=PRECISION     float32 (default), float64, mixed_float16 (its loss is scaled),
                            mixed_bfloat16; sets the field precision, so a continued run keeps it
  --xla_cache=FOLDER        keep there what XLA compiles, and load it at the next start; it may be
                            deleted at any time
  --profile_steps=A,B       with --mode=train: profile the steps after A up to B for TensorBoard,
                            and say where their time went
  --picture=FILE.png        with --mode=train or evaluate: the experiment's picture of the result
  --traceback               show the whole Python traceback of an error

Exit codes: 0 done; 1 done, but a check of the experiment is missed (the environment variable
TERMWISE_MISSED sets another code for it); 2 something given was wrong, and nothing was written;
42 stopped by SIGTERM and saved, the same command continues; 75 another host is gone, start all
again; 130 interrupted.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """The parsed command line.

    Attributes:
      config: path of the configuration file, or None.
      workdir: path of the run's directory, or None.
      overrides: (dotted name, text) pairs, in the order given.
      mode: one of `MODES`.
      strategy: one of `STRATEGIES`.
      virtual_devices: int, at least 1, or None.
      precision: one of `PRECISIONS`, or None for the configuration's.
      xla_cache: path of the folder of compiled programs, or None.
      step: int, of the mode replay, or None.
      profile_steps: (first, last), or None.
      picture: path of a .png file to be drawn, or None.
      follow: bool, evaluate every new checkpoint.
      traceback: bool, show tracebacks of user errors too.
      help: bool.
    """

    config: str | None = None
    workdir: str | None = None
    overrides: tuple[tuple[str, str], ...] = ()
    mode: str = "train"
    strategy: str = "auto"
    virtual_devices: int | None = None
    precision: str | None = None
    xla_cache: str | None = None
    step: int | None = None
    profile_steps: tuple[int, int] | None = None
    picture: str | None = None
    follow: bool = False
    traceback: bool = False
    help: bool = False


def parse(argv: list[str]) -> Command:
    """The command of the arguments that follow the program's name.

    Raises:
      ConfigurationError: an unknown flag, a value that is not accepted, or a stray argument.

    Example:
      >>> parse(["--workdir=runs/q1", "--mode=describe"]).mode
      'describe'
    """
    for argument in argv:
        if "\0" in argument or not _is_unicode(argument):
            raise ConfigurationError(f"{printable(ascii(argument))}: is not text. Retype it.")
    overrides, rest = _split(argv)
    values = _parse_flags(rest)
    return Command(
        config=values.config,
        workdir=values.workdir,
        overrides=tuple(overrides),
        mode=values.mode,
        strategy=values.strategy,
        virtual_devices=values.virtual_devices,
        precision=values.precision,
        xla_cache=values.xla_cache,
        step=values.step,
        profile_steps=values.profile_steps,
        picture=values.picture,
        follow=values.follow,
        traceback=values.traceback,
        help=values.help or values.h,
    )


def _parse_flags(arguments: list[str]) -> flags.FlagValues:
    """The values of the plain flags.

    Raises:
      ConfigurationError: as of `parse`.
    """
    values = _flags()
    for argument in arguments:
        # absl would read flags from a file, or let mistyped ones pass
        if match := re.match(r"--?(flagfile|undefok)\b", argument):
            raise ConfigurationError(_unknown(match[1], values))
    try:
        stray = values(["experiments.run", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        raise ConfigurationError(_unknown(error.flagname, values)) from None
    except flags.Error as error:
        raise ConfigurationError(_not_accepted(str(error))) from None
    if stray:
        raise ConfigurationError(
            f"{printable(stray[0])}: stray argument. Every argument is --name=value; "
            "--help lists them."
        )
    return values


def _split(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The overrides, taken out of the other arguments: absl knows no flag with a dot."""
    overrides, rest = [], []
    for argument in argv:
        prefix, dot, override = argument.partition(".")
        if not dot or prefix not in ("--config", "-config"):
            rest.append(argument)
            continue
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigurationError(
                f"{printable(argument)}: has no value. Write {printable(argument)}=VALUE."
            )
        overrides.append((name, text))
    return overrides, rest


class _Path(flags.ArgumentParser):
    def parse(self, argument):
        if not argument:
            raise ValueError("is empty. Give a path.")
        if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in argument):
            raise ValueError("holds a control character. Give a path on one line.")
        return os.path.expanduser(argument)  # which no shell does behind a "="


class _Choice(flags.ArgumentParser):
    def __init__(self, accepted):
        self.accepted = accepted

    def parse(self, argument):
        if argument not in self.accepted:
            match = nearest(argument, self.accepted, 0.5)
            hint = f" Did you mean {match}?" if match else ""
            raise ValueError(f"accepted are {', '.join(self.accepted)}.{hint}")
        return argument


class _Count(flags.ArgumentParser):
    def __init__(self, most: int, what: str):
        self.most, self.what = most, what

    def parse(self, argument):
        try:
            count = int(argument)
        except ValueError:
            count = 0
        if not 1 <= count <= self.most:
            raise ValueError(f"accepted is {self.what}, 1 to {self.most}.")
        return count


class _Steps(flags.ArgumentParser):
    def parse(self, argument):
        typed = re.fullmatch(r"(\d{1,15}),(\d{1,15})", argument, re.ASCII)
        steps = tuple(map(int, typed.groups())) if typed else (0, 0)
        if steps[0] >= steps[1]:
            raise ValueError("accepted are two steps, A,B with A below B.")
        return steps


def _flags() -> flags.FlagValues:
    """The flags, in a registry of their own: the flags of other modules do not count here."""
    values = flags.FlagValues()

    def define(parser, name, default):
        # the list of flags that users read is USAGE
        flags.DEFINE(parser, name, default, help="", flag_values=values)

    define(_Path(), "config", None)
    define(_Path(), "workdir", None)
    define(_Path(), "picture", None)
    define(_Path(), "xla_cache", None)
    define(_Choice(MODES), "mode", "train")
    define(_Choice(STRATEGIES), "strategy", "auto")
    define(_Count(64, "a number of devices"), "virtual_devices", None)
    define(_Choice(PRECISIONS), "precision", None)
    define(_Count(10**15, "a step"), "step", None)
    define(_Steps(), "profile_steps", None)
    for name in ("traceback", "follow", "help", "h"):
        flags.DEFINE_boolean(name, False, help="", flag_values=values)
    return values


def _unknown(name: str, values: flags.FlagValues) -> str:
    known = [flag for flag in values if flag != "h"]
    match = nearest(name, known, 0.5)
    if match:
        return f"--{printable(name)}: no such flag. Did you mean --{match}?"
    return f"--{printable(name)}: no such flag. There are: {', '.join(f'--{k}' for k in known)}."


def _not_accepted(message: str) -> str:
    """absl's words in ours: "flag --mode=x: ..." and "Missing value for flag --mode"."""
    if message.startswith("Missing value for flag "):
        name = printable(message.removeprefix("Missing value for flag "))
        return f"{name}: has no value. Write {name}=VALUE."
    argument, _, reason = message.removeprefix("flag ").partition(": ")
    if "Non-boolean" in reason:
        reason = "accepted are true and false."
    return f"{printable(argument)}: {printable(reason)}"


def _is_unicode(text: str) -> bool:
    """False where bytes that are not UTF-8 were typed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
