"""Training runs in processes of their own, which tests may end, and what such runs leave."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("kill_worker.py")

LONGEST = 300  # seconds; nothing that a test waits for takes so long, on any machine
# what two equal runs may differ in: the time, and how often one process has saved
OWN = ("time", "steps_per_second", "examples_per_second")
BOOKKEEPING = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter/.ATTRIBUTES/VARIABLE_VALUE")


@pytest.fixture
def left_by():
    """A function of a workdir: what the run leaves, comparable by ==, in parts by name.

    The bytes of every variable of every checkpoint (weights, optimizer slots, averages, loss
    parameters, random state, log window), the rows, the record of the best, the configuration.
    """

    def left_by(workdir):
        folder, checkpoints = workdir / "checkpoints", {}
        for file in sorted(folder.glob("*.index")):
            reader = tf.train.load_checkpoint(str(file.with_suffix("")))
            names = [name for name in reader.get_variable_to_shape_map() if name not in BOOKKEEPING]
            checkpoints[file.stem] = {
                name: np.asarray(reader.get_tensor(name)).tobytes() for name in names
            }
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return {
            "rows": [{k: v for k, v in json.loads(line).items() if k not in OWN} for line in lines],
            "checkpoints": checkpoints,
            "best": (folder / "best.json").read_text(),
            "config": (workdir / "config.json").read_text(),
            "files": sorted(path.name for path in workdir.iterdir()),
        }

    return left_by


class ForkedRuns:
    """The process that imports TensorFlow once and forks the runs, one at a time."""

    def __init__(self, folder, **more):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **more}
        self.errors = folder / "stderr"
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        self.folder = folder
        self.lines: queue.SimpleQueue = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.run: ForkedRun | None = None

    def start(self, **job):
        """A run of `kill_worker.train`; what it writes to stderr goes to `stderr` of the job.

        One that is told to `hold` waits there until `go`.
        """
        assert self.run is None or self.run.code is not None, "the run before is still running"
        go = self.folder / "go"
        go.unlink(missing_ok=True)
        self.tell(json.dumps({"go": go, **job}, default=str))
        self.run = ForkedRun(self, go)
        return self.run

    def finish(self, **job):
        """A run to its end. It is killed when fit has returned: Python's own end takes a second."""
        run = self.start(**job)
        assert run.when("returned"), self.errors.read_text()[-4000:]
        run.kill()

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=LONGEST)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(timeout=10)
            self.process.stdout.close()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip())
        self.lines.put(None)


class ForkedRun:
    """One run.

    Attributes:
      process: int, its number.
      said: list of str, what it has said so far.
      code: int, its exit code; minus the number of the signal that killed it; None before.
    """

    def __init__(self, runs, go):
        self._runs, self._go = runs, go
        self.said: list[str] = []
        self.code: int | None = None
        self.process = int(self._read(LONGEST).split()[1])

    def when(self, word, times=1, seconds=LONGEST):
        """Reads until a line begins with `word` for the given time; False if the run ends first."""
        end = time.monotonic() + seconds
        while times and self.code is None:
            line = self._read(end - time.monotonic())
            times -= line.startswith(word)
        return not times

    def send(self, number):
        if self.code is None:  # an ended one keeps its number until `ended` is read
            os.kill(self.process, number)
        while self.code is None and self._is_pending(number):
            time.sleep(0.0005)  # a second one would be taken for the same
        return self

    def go(self):
        """Lets it go on from where it was told to hold."""
        self._go.touch()
        return self

    def works(self, seconds):
        """Returns once it has computed for so long from now on."""
        end = self._computed() + seconds
        while self._computed() < end:
            time.sleep(0.001)

    def kill(self):
        return self.send(signal.SIGKILL).end()

    def end(self, seconds=LONGEST):
        """The exit code, once it has ended."""
        self.when("ended", seconds=seconds)
        return self.code

    def _is_pending(self, number):
        """Whether it lives, and was sent a signal that it has not taken yet."""
        lines = Path(f"/proc/{self.process}/status").read_text().splitlines()
        state = dict(line.split(":", 1) for line in lines)
        waits = int(state["ShdPnd"], 16) >> (number - 1) & 1
        return bool(waits) and not state["State"].strip().startswith(("Z", "X"))

    def _computed(self):
        """The seconds that all its threads have computed for."""
        words = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def _read(self, seconds):
        try:
            line = self._runs.lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise AssertionError(f"nothing in time after {self.said[-3:]}") from None
        assert line is not None, self._runs.errors.read_text()[-4000:]
        self.said.append(line)
        if line.startswith("ended"):
            self.code = int(line.split()[1])
            self._runs.tell("")
        return line


@pytest.fixture(scope="session")
def _forked_runs(tmp_path_factory):
    runs = ForkedRuns(tmp_path_factory.mktemp("forked"))
    yield runs
    runs.close()


@pytest.fixture(scope="session")
def _faulty_runs(tmp_path_factory):
    compiler, folder = shutil.which("cc"), tmp_path_factory.mktemp("faulty")
    if compiler is None or sys.platform != "linux":
        pytest.skip("faults of a disk are made by a C program, for Linux, and there is no compiler")
    library = folder / "disk_faults.so"
    source = Path(__file__).parent / "persistence" / "disk_faults.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    runs = ForkedRuns(folder, LD_PRELOAD=str(library))
    yield runs
    runs.close()


def _ended(runs):
    run = runs.run
    if run is not None and run.code is None:
        run.kill()


@pytest.fixture
def forked_runs(_forked_runs):
    """Starts runs of kill_worker.py, one after another; one that runs on is killed."""
    yield _forked_runs
    _ended(_forked_runs)


@pytest.fixture
def faulty_runs(_faulty_runs):
    """The same, with disk_faults.c in them: `disk` of a job is what its head says."""
    yield _faulty_runs
    _ended(_faulty_runs)
