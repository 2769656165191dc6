"""The cluster that TF_CONFIG holds: set by hand, by the launcher or by Ray's driver."""

from __future__ import annotations

import json
import re

from losses.errors import TermwiseError
from trainer.distributed.engines.description import Cluster, Engine

JOBS = ("chief", "worker")


def read(text: str, engine: Engine) -> Cluster:
    """The cluster of a TF_CONFIG.

    Args:
      text: the variable's value, in JSON.
      engine: who set it.
    Raises:
      ValueError: it is wrong or incomplete.
    """
    config = _read_object(text)
    jobs = _read_jobs(config)
    kind, index = _read_task(config, jobs)
    chiefs = jobs.get("chief", [])
    addresses = (*chiefs, *jobs.get("worker", []))
    place = index if kind == "chief" else len(chiefs) + index
    return Cluster(addresses, place, engine, chief_apart=bool(chiefs))


def _read_object(text: str) -> dict:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise TermwiseError(f"TF_CONFIG is no JSON ({error}). {_EXPECTED}") from None
    return config if isinstance(config, dict) else {}


def _read_jobs(config: dict) -> dict[str, list[str]]:
    """job -> the addresses of its processes."""
    jobs = config.get("cluster")
    if not isinstance(jobs, dict) or not jobs:
        raise _wrong("names no cluster")
    for job, addresses in jobs.items():
        if job not in JOBS:
            reason = "parameter servers and evaluators are not supported, every process trains"
            raise _wrong(f"has the job {job!r}, accepted are 'worker' and 'chief': {reason}")
        if not isinstance(addresses, list) or not addresses:
            raise _wrong(f"gives no list of addresses for {job!r}")
    _check_addresses([address for addresses in jobs.values() for address in addresses])
    if len(jobs.get("chief", [])) > 1:
        raise _wrong("has more than one chief")
    return jobs


def _check_addresses(addresses: list) -> None:
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
            raise _wrong(f"has the address {address!r}, accepted is 'host:port'")
    if len(set(addresses)) < len(addresses):
        raise _wrong("gives two workers one address")


def _read_task(config: dict, jobs: dict[str, list[str]]) -> tuple[str, int]:
    """The job of this process, and its place among the processes of that job."""
    task = config.get("task")
    if not isinstance(task, dict) or "type" not in task or "index" not in task:
        raise _wrong("does not say which task this process is")
    kind, index = task["type"], task["index"]
    if kind not in jobs:
        raise _wrong(f"says this process is a {kind!r}, of which the cluster has none")
    index = _whole(index)
    if not 0 <= index < len(jobs[kind]):
        raise _wrong(f"has the index {index}, the cluster has {len(jobs[kind])} of {kind!r}")
    return kind, index


def _whole(index) -> int:
    """A whole number, or the text of one, as TensorFlow reads it."""
    if isinstance(index, str) and index.isdecimal():
        return int(index)
    if isinstance(index, bool) or not isinstance(index, int):
        raise _wrong(f"has the index {index!r}, accepted is a whole number")
    return index


_EXPECTED = (
    'Set it to {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with the index of each process.'
)


def _wrong(what: str) -> TermwiseError:
    return TermwiseError(f"TF_CONFIG {what}. {_EXPECTED}")
