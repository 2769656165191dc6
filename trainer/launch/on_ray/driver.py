"""The driver: starts the workers on Ray's nodes, and again with those left, or with new ones."""

from __future__ import annotations

import functools
import os
import queue
import sys
import types
from typing import Any

from trainer.launch.exit_codes import DONE, MISSED_APART, PEER_LOST, WRONG
from trainer.launch.launcher import Restarts, signals_into, stopped
from trainer.launch.local_cluster import LocalCluster, after, next_event, say
from trainer.launch.on_ray.crew import Crew, RemoteWorker, wait_for
from trainer.launch.on_ray.flags import USAGE, Flags, parse

PASSED = ("TERMWISE_", "TF_", "KERAS_", "XLA_")  # how variables begin that workers are given
# of local processes, of which there are none: each actor guards its own
NO_GUARD: Any = types.SimpleNamespace(watch=lambda _: None, forget=lambda _: None)


def main(argv: list[str] | None = None) -> int:
    """Runs the workers to their end.

    Args:
      argv: the arguments after the program's name; those of the process by default.
    Returns:
      the exit code, as of `python -m trainer.launch`.
    """
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv[: argv.index("--") if "--" in argv else None]):
        print(USAGE, end="")
        return DONE
    try:
        flags = parse(argv)
        return _drive(_ray(), flags)
    except (ValueError, ImportError, ConnectionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG


def _ray():
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"the package `ray` cannot be imported ({error}). Install it: pip install "
            "'termwise[ray]'."
        ) from error
    return ray


def _drive(ray, flags: Flags) -> int:
    """Starts the workers, and starts them again until they are done; gives the exit code."""
    events: queue.SimpleQueue = queue.SimpleQueue()
    ray.init(address=flags.address or None, log_to_driver=True, logging_level="warning")
    try:
        with signals_into(events):
            resources = {"num_cpus": flags.cpus_per_worker, "num_gpus": flags.gpus_per_worker}
            crew = Crew(ray, flags.workers, resources, flags.grace_s)
            return _lives(ray, crew, flags, events)
    finally:
        ray.shutdown()


def _lives(ray, crew: Crew, flags: Flags, events: queue.SimpleQueue) -> int:
    restarts = Restarts(flags.max_restarts)
    signals: list[int] = []

    def stop() -> bool:
        event = next_event(events, after(0.0))
        if event is not None and event[0] == "signal":
            signals.append(event[1])
        return bool(signals)

    while True:
        crew.ask()
        waits = (flags.workers, flags.least, flags.patience_s, flags.startup_s)
        enough = wait_for(crew, *waits, stop)
        if signals:
            return stopped(signals[0], {})
        if not enough:
            say(
                f"{len(crew.members)} of {flags.workers} workers have a place, and --least="
                f"{flags.least} are needed, after {flags.startup_s:g} s. Look at `ray status`."
            )
            return PEER_LOST
        cluster = _start(ray, crew, flags, events)
        end_watch = crew.watch(lambda: events.put(("regroup",)))
        try:
            blamed = cluster.run()
        finally:
            end_watch()
        if not any(cluster.codes.values()):
            return DONE
        if cluster.signal is not None:
            return stopped(cluster.signal, cluster.codes)
        if blamed is None:
            say("a further worker has come: all saved, and start again with it")
            continue
        ended = restarts.count(blamed, cluster.codes[blamed])
        if ended is not None:
            return ended
        event = next_event(events, after(restarts.pause_s))
        if event is not None and event[0] == "signal":
            return stopped(event[1], {})


def _start(ray, crew: Crew, flags: Flags, events: queue.SimpleQueue) -> LocalCluster:
    """One life of the workers, one on each member of the crew."""
    addresses = crew.addresses()
    members = list(crew.members)
    hosts = ",".join(address.rpartition(":")[0] for address in addresses)
    variables = {name: text for name, text in os.environ.items() if name.startswith(PASSED)}
    variables |= {
        "PYTHONUNBUFFERED": "1",
        "TERMWISE_ENGINE": "Ray",
        "TERMWISE_MISSED": str(MISSED_APART),
        "TERMWISE_STARTUP_S": f"{flags.startup_s:g}",
        # gRPC would look for its peers behind a proxy, where one is set
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy"), hosts])),
    }

    def start(index, *rest):
        actor = members[index]
        return RemoteWorker(ray, actor, functools.partial(crew.lose, actor), index, *rest)

    command = list(flags.command)
    environments = [variables] * len(members)
    try:
        cluster = LocalCluster(
            command, environments, addresses, flags.grace_s, events, NO_GUARD, start
        )
    except OSError as error:
        raise ValueError(
            f"{command[0]!r} cannot be started on a node: {error.strerror}. Give a program that "
            "every node has after --."
        ) from error
    places = ", ".join(f"worker {index} at {address}" for index, address in enumerate(addresses))
    say(f"{len(members)} of {flags.workers} workers: {places}")
    return cluster
