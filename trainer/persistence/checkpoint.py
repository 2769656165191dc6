"""Checkpoints: everything that makes the next step what it would have been, off the step."""

from __future__ import annotations

import errno
import math
import numbers
import os
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.persistence import manifest
from trainer.persistence.files import refusal
from trainer.persistence.restore import describe_variables, load, named_variables
from trainer.persistence.retention import Retention

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_WRITING: dict[Path, threading.Thread] = {}  # folder -> the write in flight in this process


class Checkpoints:
    """The checkpoints of a run: `ckpt-<step>`, written by TensorFlow's CheckpointManager.

    A save copies the values to variables on the host and returns; a thread writes them. Then
    the files are flushed and hashed, and a marker is written: only with it a checkpoint counts.
    Variables are saved by their place in each list, not by their automatic names, which count
    what else was made in the process.

    The copies take as much host memory as the state does. On a CPU device the two share it until
    a step changes the value.

    Args:
      directory: `checkpoints/` of the workdir.
      state: dict of lists of variables (or of dicts by name): model, optimizers, step, ...
      keep_last: how many of the newest checkpoints stay; None keeps all.
      keep_best: how many of the best stay besides.
      best_metric: the key of the row given to `save` that says which are best.
      mode: as in `Retention`.
      writes: False on the hosts that only take part in reading the variables.
      say: called with a sentence where a damaged checkpoint was passed over.
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
        writes: bool = True,
        say=warnings.warn,
    ):
        self.directory = Path(directory)
        self._retention = Retention(keep_last, keep_best, best_metric, mode)
        self._named = named_variables(state)
        self._writes, self._say = writes, say
        self._shadows: dict[str, list[tf.Variable]] = {}
        self._checkpoint: tf.train.Checkpoint | None = None
        self._error: OSError | None = None
        self._known: dict[int, manifest.Marker] = {}
        self._latest: str | None = None
        self._tidied = False

    @property
    def latest(self) -> str | None:
        """The newest whole checkpoint; while one is being written, the one before."""
        if self._latest is None:
            self._join_other()
            marker = manifest.find_newest(self.directory, self._say, self._known)
            if marker is not None:
                self._know(marker)
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
        thread = threading.Thread(
            target=self._write, args=(step, path, self._numbers(metrics)), name=f"ckpt-{step}"
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
            for part, held in self._named.items():
                values = [tf.convert_to_tensor(variable) for variable in held.values()]
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
        if self._writes and not self._tidied and manifest.marked_steps(self.directory):
            self._guard(self.directory, self._tidy)
            self._raise()

    def restore(self, path: str) -> None:
        """Restores every variable from `.../ckpt-<step>`.

        Raises:
          ValueError: the checkpoint holds other variables, or its marker is damaged.
          OSError: its files cannot be read.
        """
        self._join_other()
        file = Path(f"{path}.json")
        try:
            marker = manifest.read_marker(file)
        except FileNotFoundError:  # of an older version; TensorFlow's own checksums are checked
            marker = manifest.Marker(str(path), -1, {}, {}, {})
        except ValueError as error:
            raise TermwiseError(f"{path} is damaged: {error}. Restore an earlier one.") from None
        load(self._named, marker)

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
            marker = manifest.find_newest(self.directory, self._say)
            if marker is None:
                return None
            try:
                load(self._named, marker)
            except OSError:
                if attempt == 2 or Path(f"{marker.path}.json").exists():
                    raise
                continue  # its writer has just replaced it by a newer one
            self._know(marker)
            return marker.path
        return None

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

    def _write(self, step: int, path: str, metrics: dict) -> None:
        self._guard(path, self._write_files, step, path, metrics)

    def _guard(self, path, function, *arguments) -> None:
        """Runs what writes, in whichever thread; what it raises is for the next call."""
        try:
            function(*arguments)
        except (OSError, tf.errors.OpError) as error:
            if isinstance(error, tf.errors.OpError):
                error = _system_error(error)
            self._error = refusal(path, error, self._latest)
            self._error.__cause__ = error
        except Exception as error:
            self._error = OSError(f"{path} was not written: {type(error).__name__}: {error}")
            self._error.__cause__ = error

    def _write_files(self, step: int, path: str, metrics: dict) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._tidied:
            manifest.remove_remains(self.directory)
        manifest.remove(path)  # overwritten in part, an old one of this step must not count
        if self._checkpoint is None:
            self._checkpoint = tf.train.Checkpoint(**self._shadows)
        manager = tf.train.CheckpointManager(
            self._checkpoint, str(self.directory), max_to_keep=None, checkpoint_name="ckpt"
        )
        try:
            manager.save(checkpoint_number=step)
            marker = manifest.mark(path, describe_variables(self._named), metrics)
        except BaseException:
            manifest.remove(path)
            manifest.remove_remains(self.directory)
            raise
        self._know(marker)
        self._tidy(step)

    def _know(self, marker: manifest.Marker) -> None:
        self._known = {marker.step: marker}
        self._latest = marker.path

    def _tidy(self, newest: int | None = None) -> None:
        self._retention.apply(self.directory, newest)
        self._tidied = True

    def _numbers(self, metrics: Mapping | None) -> dict:
        found = {
            key: float(value)
            for key, value in (metrics or {}).items()
            if isinstance(value, numbers.Real)
            and not isinstance(value, bool)
            and math.isfinite(value)
        }
        wanted = self._retention.best_metric
        if self._retention.keep_best and metrics is not None and wanted not in metrics:
            known = ", ".join(key for key in metrics if key == "total" or "metrics/" in key)
            self._say(
                f"best_metric={wanted!r} is not in the row of this checkpoint, which "
                f"cannot be a best one. The row has {known or 'no such values'}."
            )
        return found


def _system_error(error: tf.errors.OpError) -> OSError:
    """TensorFlow's file error as the system's, whose reason it has in its text."""
    text = str(error)
    for number in _NUMBERS:
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number))
    return OSError(text.splitlines()[0][:200])
