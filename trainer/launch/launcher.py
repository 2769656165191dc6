"""`python -m trainer.launch`: local workers, watched, and all started again when one of them dies.

A worker is told its place by TF_CONFIG and tells how it ended by its exit code. Under SLURM or
Kubernetes these start the workers, and this program is not needed. It needs no TensorFlow.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import queue
import shutil
import signal
import sys
import time
from collections.abc import Iterator

from trainer.launch.exit_codes import (
    DONE,
    INTERRUPTED,
    MISSED,
    MISSED_APART,
    PREEMPTED,
    TERMINATED,
    WRONG,
)
from trainer.launch.guard_process import GuardProcess
from trainer.launch.local_cluster import LocalCluster, after, free_addresses, next_event, say
from trainer.launch.standby import Standby
from trainer.launch.suggestion import nearest
from trainer.launch.worker_process import describe_ending

MOST_PREEMPTIONS = 100  # restarts after workers that saved and left; a fault if ever reached
LONGEST_PAUSE_S = 5.0
LONG_LIFE_S = 20.0  # what fails after so long has got somewhere

USAGE = """\
Starts local workers of one training run and watches them.

  python -m trainer.launch --workers=2 -- python -m experiments.run --strategy=multi_worker ...

  --workers=N           how many; each is given TF_CONFIG with ports of its own on 127.0.0.1
  --max_restarts=N      after a failure all workers are stopped and started again, so often; 3
  --grace_s=SECONDS     from SIGTERM, on which workers save, to SIGKILL; 30
  --startup_s=SECONDS   how long a worker waits for its peers at the start (TERMWISE_STARTUP_S)
  --standby             beside each worker a process waits that has imported TensorFlow already
                        and takes its place at the next start; costs the memory of one
  --gpus_per_worker=N   worker 0 sees the first N GPUs, worker 1 the next N, and so on; without
                        it each sees all

Exit codes:
    0  done
    1  all are done, and a check of the experiment is missed; not tried again
    2  something given was wrong; not tried again
   42  stopped by SIGTERM, and all workers saved: the same command continues the run
  143  stopped by SIGTERM, and not all saved: the same command goes on from the last checkpoint
  130  interrupted
  else that of the worker that failed last; 128 and the number of the signal that killed it
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the workers to their end.

    Args:
      argv: the arguments after the program's name; those of the process by default.
    Returns:
      the exit code; `USAGE` lists them.
    """
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv[: argv.index("--") if "--" in argv else None]):
        print(USAGE, end="")
        return DONE
    try:
        options = _parse(argv)
        return launch(options, _environments(options))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG


def launch(options: argparse.Namespace, environments: list[dict[str, str]]) -> int:
    """Starts the workers, and starts them again until they are done; gives the exit code.

    Args:
      options: as `_parse` gives them.
      environments: of each worker, without TF_CONFIG.
    """
    events: queue.SimpleQueue = queue.SimpleQueue()
    used: set[int] = set()
    restarts = Restarts(options.max_restarts)
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals_into(events))
        guard = stack.enter_context(GuardProcess(options.grace_s))
        standby = None
        if options.standby:
            standby = stack.enter_context(Standby(options.command, environments, guard))
        while True:
            addresses, began = free_addresses(options.workers, used), time.monotonic()
            cluster = _start(options, environments, addresses, events, guard, standby)
            blamed = cluster.run()
            if not any(cluster.codes.values()):
                return DONE
            if cluster.signal is not None:
                return stopped(cluster.signal, cluster.codes)
            assert blamed is not None  # one ended badly, and nobody had told it to
            ended = restarts.count(blamed, cluster.codes[blamed], time.monotonic() - began)
            if ended is not None:
                return ended
            if (event := next_event(events, after(restarts.pause_s))) is not None:
                return stopped(event[1], {})


class Restarts:
    """Counts the lives of a cluster, and decides whether there is a further one.

    Preemptions, where workers saved and left because one of them got SIGTERM from elsewhere, do
    not count as failures.

    Args:
      most: restarts after failures.
    """

    def __init__(self, most: int):
        self._most = most
        self._failures = self._preemptions = self._in_a_row = 0

    @property
    def pause_s(self) -> float:
        """How long to wait before the next life: longer after each that failed soon."""
        return min(0.1 * 2**self._in_a_row, LONGEST_PAUSE_S)

    def count(self, blamed: int, code: int, seconds: float = 0.0) -> int | None:
        """The exit code where nothing is started again; None where all are.

        Args:
          blamed: the worker that ended the life.
          code: how it ended.
          seconds: how long the life was.
        """
        why = describe_ending(blamed, code)
        if code in (INTERRUPTED, -signal.SIGINT):
            return _end(INTERRUPTED, why)
        if code == MISSED_APART:
            return _end(MISSED, f"{why}: the run is done, and a check of it is missed")
        if code == WRONG:
            return _end(code, f"{why}: something given was wrong, a restart would not help")
        if code == PREEMPTED:
            self._preemptions += 1
            if self._preemptions > MOST_PREEMPTIONS:
                return _end(code, f"{why}, as {MOST_PREEMPTIONS} others did before")
            say(f"{why}: it saved and left; all start again")
            return None
        self._failures += 1
        self._in_a_row = 1 if seconds > LONG_LIFE_S else self._in_a_row + 1
        if self._failures > self._most:
            return _end(code, f"{why}; --max_restarts={self._most} is used up")
        say(f"{why}; all start again: restart {self._failures} of {self._most}")
        return None


def _start(
    options: argparse.Namespace,
    environments: list[dict[str, str]],
    addresses: list[str],
    events: queue.SimpleQueue,
    guard: GuardProcess,
    standby: Standby | None,
) -> LocalCluster:
    command, grace_s = options.command, options.grace_s
    try:
        cluster = LocalCluster(
            command, environments, addresses, grace_s, events, guard, standby=standby
        )
    except OSError as error:
        raise ValueError(
            f"{command[0]!r} cannot be started: {error.strerror}. Give a program after --."
        ) from error
    places = zip(cluster.workers, addresses, strict=True)
    say(", ".join(f"worker {w.index} is process {w.process.pid} at {a}" for w, a in places))
    return cluster


def stopped(number: int, codes: dict[int, int]) -> int:
    """The exit code after a signal to this program.

    Args:
      number: of the signal.
      codes: worker -> its exit code.
    """
    if number == signal.SIGINT:
        return _end(INTERRUPTED, "interrupted")
    unsaved = [index for index in sorted(codes) if codes[index] not in (DONE, PREEMPTED)]
    if unsaved:
        endings = ", ".join(describe_ending(index, codes[index]) for index in unsaved)
        return _end(TERMINATED, f"stopped, not all saved: {endings}")
    return _end(PREEMPTED, "stopped; the same command continues the run")


def _end(code: int, why: str) -> int:
    """Says why the launcher ends; gives its exit code, as a shell would tell it."""
    say(why)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def signals_into(events: queue.SimpleQueue) -> Iterator[None]:
    """While open, a signal is an event ("signal", number) and ends nothing by itself."""

    def handle(number, _):
        # a closed terminal is a reason to save, as SIGTERM is
        events.put(("signal", signal.SIGTERM if number == signal.SIGHUP else number))

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environments(options: argparse.Namespace) -> list[dict[str, str]]:
    """The environment of each worker; TF_CONFIG is added at each start."""
    # gRPC would look for its peers behind a proxy, where one is set
    no_proxy = ",".join(filter(None, [os.environ.get("no_proxy", ""), "127.0.0.1"]))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "no_proxy": no_proxy}
    environment["TERMWISE_MISSED"] = str(MISSED_APART)
    environment["TERMWISE_ENGINE"] = "local"
    if options.startup_s is not None:
        environment["TERMWISE_STARTUP_S"] = f"{options.startup_s:g}"
    share = options.gpus_per_worker
    if share is None:
        return [environment] * options.workers
    wanted = share * options.workers
    gpus = [str(gpu) for gpu in range(wanted)]
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        gpus = [gpu for gpu in visible.split(",") if gpu]
    if len(gpus) < wanted:
        raise ValueError(
            f"--gpus_per_worker={share}: {options.workers} workers need {wanted} GPUs, and "
            f"CUDA_VISIBLE_DEVICES={visible!r} has fewer. Ask for fewer."
        )
    return [
        {**environment, "CUDA_VISIBLE_DEVICES": ",".join(gpus[index * share :][:share])}
        for index in range(options.workers)
    ]


def _parse(argv: list[str]) -> argparse.Namespace:
    """The flags, and as `command` what follows them.

    Raises:
      ValueError: an unknown flag, a value that is not accepted, no command that can be run.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workers", type=_whole(1), required=True)
    parser.add_argument("--max_restarts", type=_whole(0), default=3)
    parser.add_argument("--grace_s", type=_seconds, default=30.0)
    parser.add_argument("--startup_s", type=_seconds)
    parser.add_argument("--gpus_per_worker", type=_whole(0))
    parser.add_argument("--standby", action="store_true")
    flags = ["workers", "max_restarts", "grace_s", "startup_s", "gpus_per_worker", "standby"]
    for argument in argv[:end]:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name not in flags:
            match = nearest(name, flags)
            hint = f"Did you mean --{match}?" if match else "--help lists them."
            raise ValueError(f"{argument}: no such flag. {hint}")
    options, stray = parser.parse_known_args(argv[:end])
    if stray:
        raise ValueError(f"{stray[0]}: stray argument. The workers' command follows after --.")
    options.command = argv[end + 1 :]
    if not options.command:
        raise ValueError(
            "no command is given. Write it after --, as in "
            "python -m trainer.launch --workers=2 -- python -m experiments.run ..."
        )
    if shutil.which(options.command[0]) is None:
        raise ValueError(f"{options.command[0]!r}: no such program. Give one after --.")
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message.removeprefix('argument ')}. --help lists the flags.")


def _whole(least):
    def parse(text):
        with contextlib.suppress(ValueError):
            if (number := int(text)) >= least:
                return number
        raise argparse.ArgumentTypeError(
            f"received {text!r}, accepted is a whole number of at least {least}"
        )

    return parse


def _seconds(text):
    with contextlib.suppress(ValueError):
        if 0 <= (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"received {text!r}, accepted are seconds, 0 or more")
