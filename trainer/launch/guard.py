"""A process that outlives the launcher, so that no worker outlives it for long.

A launcher that is killed cannot stop its workers. This program knows them: the launcher writes
the number of each process to its standard input, `+123` when a worker starts and `-123` when it
has ended. When the input ends, the launcher is gone. Workers that still run get SIGTERM, on which
they save; what is left of them after the grace gets SIGKILL, their children included.

It is started by its path and imports nothing of ours: `python -I -S guard.py GRACE_S`.
"""

import os
import signal
import sys
import time

POLL_S = 0.05


def main(grace_s: float) -> None:
    """Waits for the launcher's end, then ends the workers that it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    workers = read_workers(sys.stdin)
    if not workers:
        return
    print("[launch] the launcher is gone: its workers are stopped", file=sys.stderr, flush=True)
    for worker in workers:
        send(os.kill, worker, signal.SIGTERM)
    end = time.monotonic() + grace_s
    while workers and time.monotonic() < end:
        time.sleep(POLL_S)
        for worker in [worker for worker in workers if not send(os.kill, worker, 0)]:
            send(os.killpg, worker, signal.SIGKILL)  # its children
            workers.remove(worker)
    for worker in workers:
        send(os.killpg, worker, signal.SIGKILL)


def read_workers(lines) -> set[int]:
    """The processes that were started and have not ended, once there are no further lines."""
    running: set[int] = set()
    for line in lines:
        number = int(line)
        if number > 0:
            running.add(number)
        else:
            running.discard(-number)
    return running


def send(function, process: int, number: int) -> bool:
    """Sends a signal by `os.kill` or `os.killpg`; False where there is no such process."""
    try:
        function(process, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main(float(sys.argv[1]))
