"""Checkpoints: everything that makes the next step what it would have been, off the step."""

from __future__ import annotations

import contextlib
import errno
import math
import numbers
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.persistence.checkpoint_files import manifest_steps, remove, remove_remains
from trainer.persistence.files import PinnedFolder, flush_to_disk, refusal
from trainer.persistence.manifest import (
    Manifest,
    find_newest,
    read_manifest,
    without_manifest,
    write_manifest,
)
from trainer.persistence.metrics_file import METRICS, find_damage, size_of
from trainer.persistence.restore import describe_variables, load, named_variables
from trainer.persistence.retention import Retention

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_WRITING: dict[Path, threading.Thread] = {}  # folder -> the write in flight in this process


class Checkpoints:
    """The checkpoints of a run: `ckpt-<step>`, as `tf.train.Checkpoint` writes them.

    A save copies the values to variables on the host and returns; a thread writes them. Then
    the files are flushed and hashed, and a manifest is written: only with it a checkpoint counts.
    Variables are saved by their place in each list, not by their automatic names, which count
    what else was made in the process.

    The copies take as much host memory as the state does. On a CPU device the two share it until
    a step changes the value.

    Args:
      directory: `checkpoints/` of the workdir; metrics.jsonl lies beside it.
      state: dict of lists of variables (or of dicts by name): model, optimizers, step, ...
      keep_last: how many of the newest checkpoints stay; None keeps all.
      keep_best: how many of the best stay besides.
      best_metric: the key of the row given to `save` that says which are best.
      mode: as in `Retention`.
      trains: plain values of what trains, for the manifests.
      writes: False on the hosts that only take part in reading the variables.
      say: called with a sentence where a damaged checkpoint was passed over, or where rows of
        metrics.jsonl were lost since the checkpoint that is restored.
    Raises:
      ValueError: one of the numbers or `mode` is not accepted.

    Example:
      >>> import tempfile
      >>> folder, a = Path(tempfile.mkdtemp()), tf.Variable(1.0)
      >>> checkpoints = Checkpoints(folder, {"model": [a]}, keep_last=3)
      >>> _ = checkpoints.save(10)
      >>> _ = a.assign(2.0)
      >>> checkpoints.wait()
      >>> Path(checkpoints.restore_latest()).name, float(a)
      ('ckpt-10', 1.0)
    """

    def __init__(
        self,
        directory: Path,
        state: Mapping,
        keep_last: int | None,
        *,
        keep_best: int = 0,
        best_metric: str = "total",
        mode: str = "auto",
        trains: dict | None = None,
        writes: bool = True,
        say: Callable[[str], object] = warnings.warn,
    ):
        self.directory = Path(directory)
        self._retention = Retention(keep_last, keep_best, best_metric, mode, say)
        self._named, self._trains = named_variables(state), trains
        self._writes, self._say = writes, say
        self._workdir = PinnedFolder(self.directory.parent)
        self._workdir.pin()
        self._shadows: dict[str, list[tf.Variable]] = {}
        self._error: OSError | None = None
        self._known: dict[int, Manifest] = {}
        self._latest: str | None = None
        self._tidied = False
        self._seconds: float | None = None  # that the last write took, until it is asked for

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoints stay besides the last."""
        return self._retention.keep_best > 0

    def take_seconds(self) -> float | None:
        """How long the last write took beside the training, once it is over; once, else None."""
        seconds, self._seconds = self._seconds, None
        return seconds

    def hold(self, state: Mapping, trains: dict | None = None) -> None:
        """Saves and restores these variables from now on; arguments as of the constructor."""
        self._join_other()
        self._named, self._shadows, self._trains = named_variables(state), {}, trains

    def newest_trains(self) -> dict | None:
        """What trained when the newest checkpoint was saved; None where that is not known."""
        self._join_other()
        for step in manifest_steps(self.directory):
            with contextlib.suppress(OSError, TermwiseError):  # of which `restore_latest` tells
                return read_manifest(self.directory / f"ckpt-{step}.json").trains
        return None

    @property
    def latest(self) -> str | None:
        """The newest whole checkpoint; while one is being written, the one before."""
        if self._latest is None:
            self._join_other()
            manifest = find_newest(self.directory, self._say, self._known)
            if manifest is not None:
                self._know(manifest)
        return self._latest

    def look_again(self) -> str | None:
        """`latest` of a run that another process is writing."""
        self._latest = None
        return self.latest

    def save(self, step: int, metrics: Mapping | None = None, wait: bool = True) -> str:
        """Writes `ckpt-<step>` behind the training; waits for an earlier write first.

        Args:
          step: the global step.
          metrics: the row at this step; with `best_metric` in it the checkpoint can be a best one.
          wait: return when the checkpoint counts.
        Returns:
          The path that the checkpoint has once it is written.
        Raises:
          OSError: the disk refused this write (with `wait`), or the one before.
        """
        path = str(self.directory / f"ckpt-{step}")
        self._join_other()
        self._raise()
        self.snapshot()
        if not self._writes:
            return path
        self._check_metric(metrics)
        size = size_of(self.directory.parent / METRICS)
        thread = threading.Thread(
            target=self._guard,
            args=(path, self._write, step, path, _finite_numbers(metrics), size),
            name=f"ckpt-{step}",
        )
        _WRITING[self.directory.resolve()] = thread
        thread.start()
        if wait:
            self.wait()
        return path

    def snapshot(self) -> None:
        """Copies the values of all variables to the host.

        Under several hosts reading may be collective: every host calls it at the same step.
        """
        with tf.init_scope(), tf.device("CPU:0"):
            for part, variables in self._named.items():
                values = [tf.convert_to_tensor(variable) for variable in variables.values()]
                if not self._writes:
                    continue
                if part not in self._shadows:
                    self._shadows[part] = [tf.Variable(v, trainable=False) for v in values]
                for shadow, value in zip(self._shadows[part], values, strict=True):
                    shadow.assign(value)

    def wait(self) -> None:
        """Returns when nothing is being written any more; call it before the process ends.

        Raises:
          OSError: the disk refused the last write.
        """
        self._join_other()
        self._raise()
        if self._writes and not self._tidied and manifest_steps(self.directory):
            self._guard(self.directory, self._tidy)
            self._raise()

    def restore(self, path: str) -> None:
        """Restores every variable from `.../ckpt-<step>`.

        Raises:
          ValueError: the checkpoint holds other variables, or its manifest is damaged.
          OSError: its files cannot be read.
        """
        self._join_other()
        try:
            manifest = read_manifest(Path(f"{path}.json"))
        except FileNotFoundError:  # of an older version; TensorFlow's own checksums are checked
            manifest = without_manifest(str(path))
        except TermwiseError as error:
            raise TermwiseError(f"{path} is damaged: {error}. Restore an earlier one.") from None
        load(self._named, manifest)

    def restore_latest(self) -> str | None:
        """Restores the newest whole checkpoint; passes over damaged ones, and says so.

        Returns:
          Its path; None where there is none.
        Raises:
          ValueError: it holds other variables, or none of several checkpoints is whole.
          OSError: the files cannot be read.
        """
        self._join_other()
        for attempt in range(3):
            manifest = find_newest(self.directory, self._say)
            if manifest is None:
                return None
            try:
                load(self._named, manifest)
            except OSError:
                if attempt == 2 or Path(f"{manifest.path}.json").exists():
                    raise
                continue  # its writer has just replaced it by a newer one
            self._know(manifest)
            self._check_rows(manifest)
            return manifest.path
        return None

    def check_rows(self) -> None:
        """Says where rows were lost since the newest checkpoint; for a run that is not restored."""
        steps = manifest_steps(self.directory)
        with contextlib.suppress(TermwiseError, OSError):  # a damaged one is told when it is read
            if steps:
                self._check_rows(read_manifest(self.directory / f"ckpt-{steps[0]}.json"))

    def _check_rows(self, manifest: Manifest) -> None:
        """Says where metrics.jsonl no longer holds what it held when the checkpoint was saved."""
        if not self._writes:
            return  # another process may be writing there
        rows = self.directory.parent / METRICS
        damage = find_damage(rows, manifest.step, manifest.rows_bytes)
        if damage is not None:
            self._say(damage)

    def _join_other(self) -> None:
        # also that of an earlier Checkpoints of this folder, whose fit was broken off
        folder = self.directory.resolve()
        if (thread := _WRITING.get(folder)) is not None:
            thread.join()
            _WRITING.pop(folder, None)

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _guard(self, path, function, *arguments) -> None:
        """Runs what writes, in whichever thread; what it raises is for the next call."""
        try:
            function(*arguments)
        except (OSError, tf.errors.OpError) as error:
            of_system = system_error(error)
            self._error = refusal(path, of_system, self._latest)
            if self._error is not of_system:
                self._error.__cause__ = of_system
        except Exception as error:
            self._error = OSError(f"{path} was not written: {type(error).__name__}: {error}")
            self._error.__cause__ = error

    def _write(self, step: int, path: str, metrics: dict, rows_bytes: int) -> None:
        """Writes the snapshot as `ckpt-<step>`, its manifest last."""
        began = time.perf_counter()
        self._workdir.check()
        if not self.directory.is_dir():
            self.directory.mkdir(parents=True, exist_ok=True)
            flush_to_disk(self.directory.parent)  # metrics.jsonl is new there too
        self._workdir.pin()
        if not self._tidied:
            remove_remains(self.directory)
        remove(path)  # overwritten in part, an old one of this step must not count
        try:
            tf.train.Checkpoint(**self._shadows).write(path)
            variables = describe_variables(self._named)
            manifest = write_manifest(path, variables, metrics, rows_bytes, self._trains)
        except BaseException:
            self._workdir.check()  # where another folder took its place, nothing there is removed
            remove(path)
            remove_remains(self.directory)
            raise
        self._know(manifest)
        self._tidy(step)
        self._seconds = time.perf_counter() - began

    def _know(self, manifest: Manifest) -> None:
        self._known = {manifest.step: manifest}
        self._latest = manifest.path

    def _tidy(self, newest: int | None = None) -> None:
        self._workdir.check()
        self._retention.apply(self.directory, newest)
        self._tidied = True

    def _check_metric(self, row: Mapping | None) -> None:
        """Says where a checkpoint cannot be a best one, because its row lacks the number."""
        best_metric = self._retention.best_metric
        if not self._retention.keep_best or row is None or best_metric in row:
            return
        known = ", ".join(key for key in row if key == "total" or "metrics/" in key)
        self._say(
            f"best_metric={best_metric!r} is not in the row of this checkpoint, which "
            f"cannot be a best one. The row has {known or 'no such values'}."
        )


def finish_writing() -> None:
    """Returns when no checkpoint is being written in this process; from any thread."""
    for thread in list(_WRITING.values()):
        thread.join()


def _finite_numbers(row: Mapping | None) -> dict[str, float]:
    """The values of a row that a manifest can hold."""
    return {
        key: float(value)
        for key, value in (row or {}).items()
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    }


def system_error(error: OSError | tf.errors.OpError) -> OSError:
    """TensorFlow's file error as the system's, whose reason it has in its text."""
    if isinstance(error, OSError):
        return error
    text = str(error)
    for number in _NUMBERS:
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number))
    return OSError(text.splitlines()[0][:200])
