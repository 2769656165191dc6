"""`python -m experiments.gallery`: runs the experiments, writes docs/gallery.md of the results."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.cli.configuration import ConfigurationError, printable
from experiments.gallery.table import Entry, find_entries
from experiments.gallery.table.page import measured_of, page, read_results
from experiments.gallery.table.runs import CONFIGS, Run, carry_out, check_runs, noted, runs_of
from experiments.sweep.processes import Stopped
from trainer.launch.exit_codes import DONE, MISSED, WRONG
from trainer.launch.suggestion import nearest

SOME_FAILED = 3
MOST_BYTES = 40_000  # of a picture
USAGE = """\
Runs the experiments of the gallery, and writes docs/gallery.md of what they came to.

  python -m experiments.gallery                         all of them
  python -m experiments.gallery imbalanced gan          these alone; the others keep their results

  --workdir=DIRECTORY       where the runs are kept; runs/gallery by default. The same command goes
                            on: what is finished stays, what was interrupted continues. Remove an
                            experiment's folder there to measure it anew
  --docs=DIRECTORY          where gallery.md, gallery/results.json and the pictures go; docs
  --parallel=N              runs at once; 1 by default, since each uses all cores
  --list                    names the experiments, runs nothing
  --page                    writes gallery.md of the results that are there, runs nothing

Exit codes: 0 all is reached; 1 something is missed; 2 something given was wrong, nothing was run; 3
some runs failed; 130 or 143 stopped by a signal, the same command continues.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the arguments say; the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if {"--help", "-h"} & set(argv):
        print(USAGE)
        return DONE
    entries = find_entries()
    try:
        arguments = _parse(argv, entries)
        if arguments.list:
            print("\n".join(f"{name}  {entry.shows}" for name, entry in entries.items()))
            return DONE
        return Gallery(entries, arguments).carry_out()
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except Stopped as stopped:
        print("stopped; the same command goes on", file=sys.stderr)
        return stopped.code


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ConfigurationError(f"{message}. --help lists the flags.")


def _parse(argv: Sequence[str], entries: dict[str, Entry]) -> argparse.Namespace:
    parser = _Parser(prog="python -m experiments.gallery", add_help=False, allow_abbrev=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--workdir", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.parallel < 1:
        raise ConfigurationError(f"--parallel={arguments.parallel}: give a number of at least 1.")
    for name in arguments.names:
        if name not in entries:
            match = nearest(name, list(entries), 0.5)
            hint = f"Did you mean {match}?" if match else f"There are: {', '.join(entries)}."
            raise ConfigurationError(f"{printable(name)}: no such experiment. {hint}")
    return arguments


class Gallery:
    """The experiments that were asked for, run one after another.

    Args:
      entries: all of the gallery.
      arguments: as typed: names, workdir, docs, parallel, page.
      configs: the folder of their configurations.
    """

    def __init__(
        self, entries: dict[str, Entry], arguments: argparse.Namespace, configs: Path = CONFIGS
    ):
        self.entries, self.arguments, self.configs = entries, arguments, configs
        self.asked = arguments.names or list(entries)
        self.results = arguments.docs / "gallery" / "results.json"

    def carry_out(self) -> int:
        """Runs what is left, and writes the page after each experiment; the exit code.

        Raises:
          ConfigurationError: something is wrong with what is to be run; nothing is run.
        """
        if self.arguments.page:
            self._write_page()
            return self._code([])
        runs = {
            name: runs_of(name, self.entries[name], self.arguments.workdir, self.configs)
            for name in self.asked
        }
        for of_entry in runs.values():
            check_runs(of_entry)
        failed = [f"{name}/{run}" for name in self.asked for run in self._run(name, runs[name])]
        return self._code(failed)

    def _run(self, name: str, runs: list[Run]) -> list[str]:
        """Runs one experiment and notes its results; the names of the runs that failed."""
        finished = sum(run.finished for run in runs)
        print(f"{name}: {len(runs)} runs, {finished} of them finished", flush=True)
        failed = carry_out(runs, self.arguments.workdir / name, self.arguments.parallel, _say(name))
        if not failed:
            results = self._read()
            results[name] = {"cores": os.cpu_count(), "runs": noted(runs)}
            ordered = {key: results[key] for key in sorted(results)}
            self.results.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.results, json.dumps(ordered, indent=1) + "\n")
            for run in runs:
                if run.picture is not None:
                    keep_picture(run.picture, self.results.parent / f"{name}.png")
            self._write_page()
        return failed

    def _read(self) -> dict:
        try:
            return read_results(self.results)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{self.results} cannot be read: {error}. Remove it, and run all anew."
            ) from None

    def _write_page(self) -> None:
        text = page(self.entries, self._read())
        self.arguments.docs.mkdir(parents=True, exist_ok=True)
        _replace(self.arguments.docs / "gallery.md", text)

    def _code(self, failed: list[str]) -> int:
        """Prints what was reached; the exit code."""
        results, missed = self._read(), False
        for name in self.asked:
            measured = measured_of(self.entries[name], results.get(name))
            if measured is None:
                print(f"{name}  not measured")
                missed = True
                continue
            for aim, check in self.entries[name].reached(measured).items():
                print(f"{name}  {aim} {check}  {'reached' if check.reached else 'MISSED'}")
                missed = missed or not check.reached
        if failed:
            print(f"failed: {', '.join(failed)}", file=sys.stderr)
            return SOME_FAILED
        return MISSED if missed else DONE


def keep_picture(drawn: Path, kept: Path) -> None:
    """Copies a picture with as many colours as MOST_BYTES allow, 256 to 16, then half its size."""
    from PIL import Image  # matplotlib brings it

    with Image.open(drawn) as image:
        opaque = image.convert("RGB")
    half = opaque.reduce(2)
    for shown, colours in [*((opaque, n) for n in (256, 64, 32, 16)), (half, 64), (half, 16)]:
        written = io.BytesIO()
        shown.quantize(colours).save(written, "png", optimize=True)
        if written.tell() <= MOST_BYTES:
            break
    kept.write_bytes(written.getvalue())


def _replace(file: Path, text: str) -> None:
    """Writes a whole file or nothing."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _say(name: str):
    return lambda line: print(f"{name}  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
