"""The share of time spent on steps that count, when workers are killed.

Two local workers train under `trainer.launch`, and one of them, each in its turn, is killed by
SIGKILL every so many seconds. What counts is the time of the windows whose rows stand in
metrics.jsonl at the end: rows of steps that were lost are cut when the run goes on. The rest of
the time is told by what the workers said when: until the others had ended, until TensorFlow was
imported, until all had met, until the first new step, and steps done once more. The time from the
first step of a life to the first step of the next one is a round, with what its kill cost.

  python -m benchmarks.goodput --minutes=10 --every=60 --checkpoint_every=auto --launch=--standby
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.machine import users_environment

FOREVER = 10**9  # steps
LOG_EVERY = 20  # steps
LAUNCH = ("--workers=2", "--max_restarts=1000")
# what a worker has come to, in this order in each life, and what the time up to there is called
MARKS = {
    "killed": "steps",
    "restarting": "detection and the others' end",
    "imported": "start of Python and TensorFlow",
    "met": "meeting, and TensorFlow's servers",
    "built": "model and tracing",
    "stepped": "restoring, the loop's trace and its first call",
}
REST = "steps done once more, checkpoints, the rest"


def train(workdir: str, checkpoint_every: int | str, units: int) -> None:
    """A worker's program: a classifier whose step takes some milliseconds, without end."""
    import keras
    import numpy as np

    from trainer import Trainer, resolve_strategy

    say("imported")
    strategy = resolve_strategy("multi_worker")
    say("met")

    class Stepped(keras.callbacks.Callback):
        """Says when the first call of the loop is over."""

        said = False

        def on_train_batch_end(self, batch, logs=None):
            if not Stepped.said:
                say(f"stepped {batch + 1}")
            Stepped.said = True

    def build():
        dense = [keras.layers.Dense(units, activation="relu") for _ in range(3)]
        return keras.Sequential([keras.Input((64,)), *dense, keras.layers.Dense(10)])

    keras.utils.set_random_seed(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer = Trainer(build, optimizer="adam", loss=loss, strategy=strategy, workdir=workdir)
    x = np.random.default_rng(0).normal(size=(4096, 64)).astype("float32")
    data = x, (x[:, :10].argmax(1)).astype("int32")
    trainer.build(data, batch_size=128)
    say("built")
    cadence = {"log_every": LOG_EVERY, "checkpoint_every": checkpoint_every, "steps_per_loop": 40}
    trainer.fit(
        data, batch_size=128, steps=FOREVER, callbacks=[Stepped()], verbose=False, **cadence
    )


def say(word: str) -> None:
    print(f"mark {word}", flush=True)


class Killed:
    """A launcher whose workers are killed in turn; what it said, with the times.

    Args:
      command: of the launcher.
      folder: the workdir's parent.
    """

    def __init__(self, command: list[str], folder: Path):
        self.process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[1],
            env=users_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.marks: list[tuple[float, str]] = []  # of worker 0 and of the launcher
        self.workers: list[int] = []
        self._log = open(folder / "log", "w")  # noqa: SIM115  written by a thread until the end
        self._news: queue.SimpleQueue = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            now = time.monotonic()
            print(f"{now:.2f} {line}", end="", file=self._log, flush=True)
            if "worker 0 is process" in line:
                words = line.replace(",", "").split()
                self.workers = [int(words[i + 1]) for i, w in enumerate(words) if w == "process"]
                self.marks.append((now, "restarting"))
            elif line.startswith("[worker 0] mark"):
                self.marks.append((now, line.split()[3]))
                self._news.put(line.split()[3])

    def run(self, seconds: float, every: float) -> None:
        """Kills a worker every so many seconds, the first time so long after the first step."""
        while self._news.get(timeout=300) != "stepped":
            pass
        self.began = began = time.monotonic()
        self.kills = 0
        while (now := time.monotonic() - began) < seconds:
            time.sleep(min(every * (self.kills + 1), seconds) - now)
            if time.monotonic() - began < seconds:
                self.marks.append((time.monotonic(), "killed"))
                _kill(self.workers[self.kills % 2])
                self.kills += 1
        self.ended = time.monotonic()

    def close(self) -> None:
        """Ends the launcher as Ctrl-C twice does."""
        for _ in range(2):
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        self.process.wait(timeout=120)
        self._reader.join(timeout=10)
        self._log.close()


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        print(f"process {process} had ended before it was to be killed")


@dataclasses.dataclass(frozen=True)
class Round:
    """The time from the first step of a life to the first step of the next one.

    Attributes:
      began, ended: times.
      lost: cause, of `MARKS` -> seconds between the kill and the end.
    """

    began: float
    ended: float
    lost: dict[str, float]


def rounds(marks: list[tuple[float, str]]) -> list[Round]:
    """The rounds of a run; a life that was killed before its first step has none of its own.

    Args:
      marks: (time, word of MARKS), in order of time.
    """
    found: list[Round] = []
    began: float | None = None
    before: float | None = None  # the mark before, of what a kill made necessary
    lost: dict[str, float] = {}
    for now, word in marks:
        if word == "stepped" and began is None:
            began = now
        elif began is None or word not in MARKS:
            continue
        elif word == "killed":
            before = now
        elif before is not None:
            lost[MARKS[word]] = lost.get(MARKS[word], 0.0) + now - before
            before = now
            if word == "stepped":
                found.append(Round(began, now, lost))
                began, before, lost = now, None, {}
    return found


def rows_that_stand(workdir: Path, offset: float) -> list[dict]:
    """The rows of training in metrics.jsonl, with "time" less an offset."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return [{**row, "time": row["time"] - offset} for row in rows if row["split"] == "train"]


def share_that_counts(rows: list[dict], began: float, ended: float) -> float:
    """The share of the time between two times that is of windows of training which ended in it."""
    inside = [row for row in rows if began < row["time"] <= ended]
    return sum(LOG_EVERY / row["steps_per_second"] for row in inside) / (ended - began)


def told(marks: list[tuple[float, str]], rows: list[dict], began: float, ended: float) -> dict:
    """What a run came to between two times.

    Args:
      marks: (time, word of MARKS), in order of time.
      rows: that stand, with their "time".
    Returns:
      "goodput": of the whole time; "steps" that count; and of each round "shares" that count, and
      "lost": cause -> seconds.
    """
    shares, lost = [], []
    for one in rounds(marks):
        share = share_that_counts(rows, one.began, one.ended)
        rest = (one.ended - one.began) * (1 - share) - sum(one.lost.values())
        shares.append(share)
        lost.append({**one.lost, REST: rest})
    steps = [row["step"] for row in rows if began < row["time"] <= ended]
    return {
        "goodput": share_that_counts(rows, began, ended),
        "steps": steps[-1] - steps[0] if steps else 0,
        "shares": shares,
        "lost": lost,
    }


def measure(options: argparse.Namespace) -> dict:
    """One run with kills; gives what it came to."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        work = [f"--work={workdir}", f"--checkpoint_every={options.checkpoint_every}"]
        worker = [sys.executable, "-m", "benchmarks.goodput", *work, f"--units={options.units}"]
        launch = [sys.executable, "-m", "trainer.launch", *LAUNCH, *options.launch]
        run = Killed([*launch, "--", *worker], Path(folder))
        offset = time.time() - time.monotonic()
        try:
            run.run(options.minutes * 60, options.every)
            # what a further kill at the end would lose does not count
            rows = rows_that_stand(workdir, offset)
        finally:
            run.close()
            if options.log:
                Path(options.log).write_text((Path(folder) / "log").read_text())
    return {"kills": run.kills, **told(run.marks, rows, run.began, run.ended)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two kills")
    parser.add_argument("--checkpoint_every", default="500", help='steps, or "auto"')
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--launch", action="append", default=[], help="a flag of trainer.launch")
    parser.add_argument("--log", help="a file that takes what the workers said")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        every = options.checkpoint_every
        train(options.work, every if every == "auto" else int(every), options.units)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the workers are ended then too
    found = measure(options)
    kills, shares = found["kills"], found["shares"]
    print(f"goodput {found['goodput']:.1%}, {kills} kills, {found['steps']} steps")
    if not shares:
        return
    each = " ".join(f"{share:.1%}" for share in shares)
    print(
        f"of a round {max(shares):.1%} ({statistics.median(shares):.1%}), best (median) of {each}"
    )
    for cause in [*list(MARKS.values())[1:], REST]:
        seconds = [causes.get(cause, 0.0) for causes in found["lost"]]
        least, median = min(seconds), statistics.median(seconds)
        print(f"{least:7.1f} ({median:.1f}) s a kill, at most {max(seconds):.1f}: {cause}")


if __name__ == "__main__":
    main()
