"""`python -m experiments.sweep`: one run folder for each setting, and a table at the end."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from experiments.cli import command_line, configuration
from experiments.cli.configuration import ConfigurationError
from experiments.cli.startup import start_tensorflow
from experiments.program import resolve
from experiments.sweep.processes import Stopped, python, run_all
from experiments.sweep.results import choose, final_values, summarize, table
from experiments.sweep.settings import Setting, parse_axis, settings
from trainer.launch.exit_codes import DONE, WRONG

SOME_FAILED = 3
USAGE = """\
Trains an experiment in many settings.

  python -m experiments.sweep --config=experiments/configs/digits.py --workdir=runs/sweep \\
      --sweep=config.loss_weights.l2=1e-4,1e-3 --sweep=config.seed=0..4 --parallel=2

  --sweep=config.FIELD=A,B  the values of a field; 0..4 for whole numbers. Several --sweep vary
                            together: every value of the one with every value of the other
  --workdir=DIRECTORY       one run folder for each setting, named by what varies, a log beside it,
                            and sweep.json. The same command goes on: what is finished stays,
                            what was interrupted continues
  --parallel=N              runs at once; 1 by default
  --by=TAG                  compares by total, terms/NAME, metrics/NAME, ..., of the evaluation as
                            eval/TAG, of a check as checks/NAME; eval/total by default, or total
                            where nothing is evaluated
  --mode=min|max            whether less or more is better; by the name of TAG by default
  --dry_run                 lists the settings, runs nothing
  other flags               go to every run: --config.FIELD=VALUE, --strategy=, --precision=, ...

The table has the mean over seeds (a field of that name) and its standard error, best first.
Exit codes: 0 done; 2 something given was wrong, nothing was run; 3 some settings failed, the table
says which; 130 or 143 stopped by a signal, the same command continues.
"""


def main(argv: list[str] | None = None) -> int:
    """Does what the arguments say; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"--help", "-h"} & set(argv):
        print(USAGE)
        return DONE
    try:
        arguments, passed = _parse(argv)
        swept = settings([parse_axis(text) for text in arguments.sweep])
        for setting in swept:  # as `experiments.run` would: nothing is written if one is wrong
            command = command_line.parse(_words(arguments, passed, setting))
            resolve(command)
            _check_picture(command)
        if arguments.dry_run:
            print("\n".join(setting.name for setting in swept))
            return DONE
        return _run(arguments, passed, swept)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except Stopped as stopped:
        print("stopped; the same command goes on", file=sys.stderr)
        return stopped.code


def _check_picture(command: command_line.Command) -> None:
    if command.picture is not None:
        raise ConfigurationError(
            "--picture: every run of a sweep would draw into the same file. Draw a finished one by "
            "python -m experiments.run --workdir=FOLDER --mode=evaluate --picture=FILE.png."
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ConfigurationError(f"{message}. --help lists the flags.")


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and those of every run."""
    parser = _Parser(prog="python -m experiments.sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("--sweep", action="append", default=[])
    parser.add_argument("--config")
    parser.add_argument("--workdir")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--by")
    parser.add_argument("--mode", choices=("min", "max", "auto"), default="auto")
    parser.add_argument("--dry_run", action="store_true")
    arguments, passed = parser.parse_known_args(argv)
    for name in ("config", "workdir", "sweep"):
        if not getattr(arguments, name):
            raise ConfigurationError(f"--{name}: is missing. --help lists the flags.")
    if arguments.parallel < 1:
        raise ConfigurationError(f"--parallel={arguments.parallel}: give a number of at least 1.")
    return arguments, passed


def _words(arguments: argparse.Namespace, passed: list[str], setting: Setting) -> list[str]:
    """The arguments of `experiments.run` for a setting."""
    workdir = Path(arguments.workdir, setting.name)
    return [
        f"--config={arguments.config}",
        *passed,
        *setting.overrides,
        f"--workdir={workdir}",
    ]


def _run(arguments: argparse.Namespace, passed: list[str], swept: list[Setting]) -> int:
    workdir = Path(arguments.workdir).expanduser()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--workdir={workdir}: {error.strerror}.") from None
    finished = [s.name for s in swept if final_values(workdir / s.name) is not None]
    left = [setting for setting in swept if setting.name not in finished]
    print(f"{len(swept)} settings, {len(finished)} of them finished | {workdir}", flush=True)
    states = dict.fromkeys(finished, "done")
    states |= run_all(
        left,
        lambda setting: python("experiments.run", *_words(arguments, passed, setting)),
        workdir,
        arguments.parallel,
        lambda line: print(line, flush=True),
    )
    runs = [(s, states[s.name], final_values(workdir / s.name)) for s in swept]
    known = [values for _, _, values in runs if values]
    by = arguments.by or choose(known)
    entries = summarize(runs, by, _descending(by, arguments.mode))
    summary = {"by": by, "settings": entries}
    (workdir / "sweep.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(table(entries, by))
    if arguments.by and not any(by in values for values in known):
        tags = ", ".join(sorted({tag for values in known for tag in values})[:40])
        raise ConfigurationError(f"--by={configuration.printable(by)}: no run has it. {tags}")
    failed = [name for name, state in states.items() if state != "done"]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return SOME_FAILED if failed else DONE


def _descending(by: str, mode: str) -> bool:
    """Whether more is better."""
    if mode != "auto" or "metrics/" not in by:
        return mode == "max"
    start_tensorflow()  # quietly: what knows the names of metrics brings it
    from trainer.persistence.retention import more_is_better

    return more_is_better(by)


if __name__ == "__main__":
    sys.exit(main())
