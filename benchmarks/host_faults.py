"""What a user sees when something happens between two hosts: `python -m benchmarks.host_faults`.

Two hosts are two network namespaces, each with a network device (TAP) whose packets this program
carries to the other: that is the cable, which can be pulled, lose packets, and be long. It needs
root and Linux's `ip`. Each fault strikes a run that trains and has saved checkpoints. What is
told: after how many seconds each host said something or ended, and how; the steps that were made
meanwhile; and after the same command was started again, the step at which it went on, and how many
were lost.

Faults that pass strike one life of the run, one after another; one that does not pass ends it.

  python -m benchmarks.host_faults --lives=delay,loss,frozen --lives=full --longest=120
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import queue
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PATIENCE_S = 900  # for a start


class Hosts:
    """Two namespaces and a cable; the end of `with` takes them away.

    Attributes:
      pulled: whether the cable carries nothing.
      loss: the share of packets that it loses.
      delay: seconds that a packet takes.
    """

    def __init__(self):
        self.names = [f"termwise{os.getpid()}-{index}" for index in range(2)]
        self.pulled, self.loss, self.delay = False, 0.0, 0.0

    def __enter__(self) -> Hosts:
        ends = [_tap(f"cable{os.getpid() % 10000}-{index}") for index in range(2)]
        for index, address in enumerate(ADDRESSES):
            device = f"cable{os.getpid() % 10000}-{index}"
            command("ip", "netns", "add", self.names[index])
            command("ip", "link", "set", device, "netns", self.names[index])
            self.on(index, "ip", "addr", "add", f"{address}/24", "dev", device)
            self.on(index, "ip", "link", "set", device, "up")
            self.on(index, "ip", "link", "set", "lo", "up")
        for start, end in (ends, ends[::-1]):
            packets: queue.SimpleQueue = queue.SimpleQueue()
            for target, tap in ((self._take, start), (self._give, end)):
                threading.Thread(target=target, args=(tap, packets), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        for name in self.names:
            command("ip", "netns", "del", name)

    def on(self, index: int, *words: str) -> None:
        """Runs a command on a host."""
        command("ip", "netns", "exec", self.names[index], *words)

    def _take(self, tap: int, packets: queue.SimpleQueue) -> None:
        draw = random.Random(0)
        while True:
            try:
                packet = os.read(tap, 65536)
            except OSError:  # the namespace is gone
                return
            if not self.pulled and draw.random() >= self.loss:
                packets.put((time.monotonic() + self.delay, packet))

    def _give(self, tap: int, packets: queue.SimpleQueue) -> None:
        while True:
            due, packet = packets.get()
            time.sleep(max(0.0, due - time.monotonic()))
            with contextlib.suppress(OSError):  # the device is down
                os.write(tap, packet)


def _tap(name: str) -> int:
    """Makes a network device whose packets are read from, and written to, a file descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH", name.encode(), 0x0002 | 0x1000))
    return descriptor


class Worker:
    """A worker on a host, and what it said, with the times."""

    def __init__(self, hosts: Hosts, index: int, port: int, workdir: Path, before: tuple = ()):
        addresses = [f"{address}:{port}" for address in ADDRESSES]
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        words = [
            "-m",
            "benchmarks.goodput",
            f"--work={workdir}",
            "--checkpoint_every=100",
            "--units=64",
        ]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", hosts.names[index], *before, sys.executable, *words],
            cwd=ROOT,
            env={
                **os.environ,
                "TF_CONFIG": config,
                "CUDA_VISIBLE_DEVICES": "",
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "TERMWISE_STARTUP_S": str(PATIENCE_S),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.index = index
        self.said: list[tuple[float, str]] = []
        self.ended: float | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append((time.monotonic(), line.strip()))
        self.process.wait()
        self.ended = time.monotonic()

    def mark(self, word: str) -> str | None:
        """What a line of the program says behind a word; None before it is said."""
        lines = [line.split() for _, line in self.said if line.startswith(f"mark {word}")]
        return lines[0][-1] if lines else None

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def told(self, since: float) -> list[tuple[float, str]]:
        """What it said that a user would read, since a time: seconds from there, and the line."""
        kinds = re.compile("^(error|warning|waiting)|Traceback|stopped")
        return [(at - since, line) for at, line in self.said if at > since and kinds.search(line)]


def start(hosts: Hosts, port: int, workdir: Path, before=((), ())) -> list[Worker]:
    """Both workers, when they train."""
    workers = [Worker(hosts, index, port, workdir, before[index]) for index in range(2)]
    end = time.monotonic() + PATIENCE_S
    try:
        while not all(worker.mark("stepped") for worker in workers):
            if time.monotonic() > end or any(worker.ended for worker in workers):
                raise RuntimeError(f"no start: {[worker.said[-5:] for worker in workers]}")
            time.sleep(0.1)
    except BaseException:
        end_all(workers)
        raise
    return workers


def end_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.signal(signal.SIGKILL)
        worker.process.wait()


def newest(workdir: Path) -> int:
    """The step of the newest checkpoint that has its marker; 0 for none."""
    files = workdir.glob("checkpoints/ckpt-*.json")
    return max((int(file.stem.removeprefix("ckpt-")) for file in files), default=0)


def last_row(workdir: Path) -> int:
    """The step of the last row."""
    file = workdir / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def nothing(hosts: Hosts, workers: list[Worker], workdir: Path) -> None:
    """For faults that are there from the start."""


def cable_short(hosts, workers, workdir) -> None:
    hosts.pulled = True
    time.sleep(5)
    hosts.pulled = False


def cable(hosts, workers, workdir) -> None:
    hosts.pulled = True


def loss(hosts, workers, workdir) -> None:
    hosts.loss = 0.3


def delay(hosts, workers, workdir) -> None:
    hosts.delay = 0.2


def frozen(hosts, workers, workdir) -> None:
    workers[1].signal(signal.SIGSTOP)


def frozen_chief(hosts, workers, workdir) -> None:
    workers[0].signal(signal.SIGSTOP)


def full(hosts, workers, workdir) -> None:
    with contextlib.suppress(OSError), open(workdir.parent / "filler", "wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


def killed_saving(hosts, workers, workdir) -> None:
    while not list(workdir.glob("checkpoints/*_temp")):
        time.sleep(0.001)
    workers[0].signal(signal.SIGKILL)


PASSING = ("cable_short", "delay", "loss", "clock", "none")
PASSING_S = 25.0
LIVES = ("none,delay,loss,frozen", "cable_short", "cable", "full", "killed_saving", "clock")
FAULTS: dict[str, Callable] = {
    "none": nothing,
    "cable_short": cable_short,
    "cable": cable,
    "loss": loss,
    "delay": delay,
    "frozen": frozen,
    "frozen_chief": frozen_chief,
    "clock": nothing,
    "full": full,
    "killed_saving": killed_saving,
}


def strike(name: str, hosts: Hosts, workers: list[Worker], workdir: Path, seconds: float) -> dict:
    """One fault; gives what was seen until all had ended, or for some seconds."""
    began, before = time.monotonic(), last_row(workdir)
    FAULTS[name](hosts, workers, workdir)
    while time.monotonic() - began < seconds and not all(worker.ended for worker in workers):
        time.sleep(0.2)
    return {
        "fault": name,
        "seen_s": round(time.monotonic() - began),
        "steps_in_it": last_row(workdir) - before,
        "told": [worker.told(began)[:3] for worker in workers],
        "ended_s": [worker.ended and round(worker.ended - began, 1) for worker in workers],
        "codes": [worker.process.poll() for worker in workers],
    }


def mend(hosts: Hosts, workdir: Path) -> None:
    """Undoes what a fault did to the cable and to the disk."""
    hosts.pulled, hosts.loss, hosts.delay = False, 0.0, 0.0
    (workdir.parent / "filler").unlink(missing_ok=True)


def live(names: list[str], hosts: Hosts, port: int, workdir: Path, longest: float) -> None:
    """One life of the run, and what strikes it."""
    reached = last_row(workdir) if workdir.exists() else 0
    late = ("faketime", "-f", "+1h") if "clock" in names else ()
    began = time.monotonic()
    workers = start(hosts, port, workdir, ((), late))
    starts = (workdir / "starts.jsonl").read_text().splitlines()
    resumed = json.loads(starts[-1])["resumed_from"] or 0
    lost = max(0, reached - resumed)
    told = {"start_s": round(time.monotonic() - began), "resumed_from": resumed, "lost": lost}
    print(json.dumps(told), flush=True)
    try:
        kept = newest(workdir)
        while newest(workdir) == kept:
            time.sleep(0.1)
        for name in names:
            if any(worker.ended for worker in workers):
                break  # what passes in name has ended it
            seconds = min(longest, PASSING_S) if name in PASSING else longest
            print(json.dumps(strike(name, hosts, workers, workdir, seconds)), flush=True)
            mend(hosts, workdir)
    finally:
        end_all(workers)


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(megabytes: int):
    """A folder on a file system of so many megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
        try:
            yield Path(folder)
        finally:
            command("umount", "-l", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--lives", action="append", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--longest", type=float, default=120.0, help="seconds to wait for an end")
    options = parser.parse_args()
    lives = [*(options.lives or LIVES), ""]  # the last one shows where the run goes on
    with Hosts() as hosts, small_disk(256) as folder:
        for number, names in enumerate(lives):
            faults = [name for name in names.split(",") if name]
            live(faults, hosts, 23450 + 2 * number, folder / "run", options.longest)


if __name__ == "__main__":
    main()
