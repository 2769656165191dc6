"""`python -m benchmarks [names...] [--rounds=7] [--seconds=1.5] [--quick]`: measures and writes."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.fresh import FRESH
from benchmarks.machine import QUIET, describe_machine
from benchmarks.report import FILES, table, write
from benchmarks.suite import SUITE

RESULTS = Path(__file__).resolve().parent / "results"
NAMES = (*SUITE, *FRESH)
PAGE = "page"
WRONG = 2  # exit code: something given was wrong


def main(argv: list[str] | None = None) -> int:
    """Runs benchmarks one after another, and writes the results after each.

    Results of benchmarks that are not run now stay as they are; 1 where one failed.
    """
    given = _parse(argv)
    if PAGE in given.names:  # files of its own, in other units
        from benchmarks import page

        given.names.remove(PAGE)
        code = page.main(["--quick"] if given.quick else [])
        if code or not given.names:
            return code
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        close = difflib.get_close_matches(unknown[0], NAMES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(
            f"error: no benchmark {unknown[0]!r}.{hint} There are: {', '.join(NAMES)}.",
            file=sys.stderr,
        )
        return WRONG
    try:
        results = _earlier(given.folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    os.environ.update(QUIET)
    machine = describe_machine()
    failed = False
    for name in given.names or NAMES:
        print(f"{name} ...", flush=True)
        try:
            result = measured(name, given.rounds, given.seconds)
        except RuntimeError as error:
            print(f"error: {name} failed: {error}", file=sys.stderr)
            failed = True
            continue
        results[name] = {**result, "machine": machine}
        results = {known: results[known] for known in NAMES if known in results}
        print(table({name: results[name]}), flush=True)
        for line in write(results, machine, given.folder):
            print(line)
    print(f"written to {given.folder}")
    return int(failed)


def _parse(argv):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*NAMES, PAGE]))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a contestant's round")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.2 s: does it run?")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where results are written")
    given = parser.parse_args(argv)
    if given.quick:
        given.rounds, given.seconds = 2, 0.2
    if given.rounds < 1 or given.seconds <= 0:
        parser.error(f"--rounds={given.rounds} --seconds={given.seconds}: give more than 0.")
    return given


def measured(name: str, rounds: int, seconds: float) -> dict:
    """The result of one benchmark, measured in processes of its own.

    Raises:
      RuntimeError: a process failed; with the end of what it said.
    """
    if name in FRESH:
        return FRESH[name](rounds)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.worker", name, str(file)]
        command += [str(rounds), str(seconds)]
        if SUITE[name].hosts > 1:
            launcher = [sys.executable, "-m", "trainer.launch", "--max_restarts=0"]
            command = [*launcher, f"--workers={SUITE[name].hosts}", "--", *command]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if not file.exists():
            raise RuntimeError(f"exit code {done.returncode}:\n{done.stdout[-3000:]}")
        return json.loads(file.read_text())


def _earlier(folder: Path) -> dict:
    """The results that a folder holds.

    Raises:
      ValueError: it holds files of these names that are no results, and would be lost.
    """
    names = [name for name in FILES if (folder / name).exists()]
    if not names:
        return {}
    try:
        return json.loads((folder / "results.json").read_text())["results"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"--folder={folder}: {names[0]} is not of `python -m benchmarks`, and would be lost. "
            "Give another folder."
        ) from None


if __name__ == "__main__":
    sys.exit(main())
