"""The share of time spent on steps that count, when workers are killed.

Two local workers train under `trainer.launch`, and one of them, each in its turn, is killed by
SIGKILL every so many seconds. What counts is the time of the windows whose rows stand in
metrics.jsonl at the end: rows of steps that were lost are cut when the run goes on. The rest of
the time is told by what the workers said when: until the others had ended, until TensorFlow was
imported, until all had met, until the first new step, and steps done once more.

  python -m benchmarks.goodput --minutes=10 --every=60 --checkpoint_every=auto --launch=--standby
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FOREVER = 10**9  # steps
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
    cadence = {"log_every": 20, "checkpoint_every": checkpoint_every, "steps_per_loop": 40}
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
            env=_environment(),
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


def _environment() -> dict[str, str]:
    """Of the workers: without GPUs, and with byte code that is kept, as users have it."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir(), "goodput-bytecode"))
    return environment


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        print(f"process {process} had ended before it was to be killed")


def lost_by_cause(marks: list[tuple[float, str]]) -> dict[str, list[float]]:
    """cause -> the seconds that each kill cost by it, of the lives that came to their first step.

    Args:
      marks: (time, word of MARKS), in order of time.
    """
    found: dict[str, list[float]] = {cause: [] for cause in list(MARKS.values())[1:]}
    before: float | None = None
    for now, word in marks:
        if word == "killed":
            before = now
        elif before is not None and word in MARKS:
            found[MARKS[word]].append(now - before)
            before = None if word == "stepped" else now
    return found


def rows_that_count(workdir: Path, began: float, ended: float) -> list[dict]:
    """The rows that stand, of windows that ended between two times of day."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return [row for row in rows if began <= row["time"] <= ended]


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
            rows = rows_that_count(workdir, run.began + offset, run.ended + offset)
        finally:
            run.close()
            if options.log:
                Path(options.log).write_text((Path(folder) / "log").read_text())
    seconds = run.ended - run.began
    counted = [20 / row["steps_per_second"] for row in rows if row["split"] == "train"]
    lost = {cause: sum(times) / run.kills for cause, times in lost_by_cause(run.marks).items()}
    again = (seconds - sum(counted)) / run.kills - sum(lost.values())
    return {
        "kills": run.kills,
        "goodput": sum(counted) / seconds,
        "steps": rows[-1]["step"] - rows[0]["step"] if rows else 0,
        "lost_s_per_kill": {**lost, "steps done once more, checkpoints, the rest": again},
    }


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
    print(f"goodput {found['goodput']:.1%}, {found['kills']} kills, {found['steps']} steps")
    for cause, seconds in found["lost_s_per_kill"].items():
        print(f"{seconds:7.1f} s a kill: {cause}")


if __name__ == "__main__":
    main()
