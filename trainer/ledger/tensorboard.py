"""The TensorBoard events of one run, as files; `events.py` writes the rows to them.

The only module that imports `tensorboard`: a run without a workdir does not need it.
"""

import contextlib
import glob
import math
import os
import socket
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar_summary
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.hparams import api_pb2 as hparams_pb2
from tensorboard.plugins.hparams import summary as hparams_summary
from tensorboard.plugins.text.summary_v2 import text_pb

from losses.errors import TermwiseError
from trainer.persistence.errors import FileError
from trainer.persistence.files import refusal

SPLITS = ("train", "eval")

# The directory of what belongs to the whole run. The hparams plugin looks for the metrics of a
# session below the session's own directory, so this one holds the two others.
_RUN = ""

# Category -> title of a chart -> regex of its tags, in the order of the screen, three in a row:
# the first row is the equation. TensorBoard anchors a regex at the start of the tag only, and
# merges the charts of several runs where title and regex are equal: so neither names a term.
_CHARTS = {
    "objective": {
        "terms (weighted)": "terms/",
        "raw": "raw/",
        "weights": "weight/",
        "total": "total$",
        "metrics": "metrics/",
        "loss parameters": "loss_parameters/",
    },
    "constraints": {
        "multipliers": "multiplier/",
        "violations": "violation/",
    },
    "gradients": {
        "gradient norms": "grad_norm/",
        "gradient cosines": "grad_cosine/",
    },
}
# The columns of the HParams tab, in this order; a tag is of the first kind that it begins with.
_COLUMNS = (
    *("total", "metrics/", "terms/", "raw/", "weight/", "loss_parameters/"),
    *("grad_", "update_share/", "learning_rate", ""),
)
_EVALUATED = _COLUMNS[:5]
# Folded at first: most runs do not measure these.
_FOLDED = {"constraints", "gradients"}


class EventFiles:
    """The event files of one run: `train` and `eval`, and above them what concerns both.

    A file is opened by the first value for it. Values reach the operating system at `flush`, so
    that a process killed after it loses none of them.

    Args:
      directory: where the event files go, `runs/q1/tb`.
      restart_step: the step a resumed run was restored to. TensorBoard then drops what the
        interrupted process wrote for later steps: `--load_fast=false` at once, the default data
        server tag by tag, at the first new value of each. None for a run that begins: of what an
        earlier one left there, all is dropped.
    Raises:
      OSError: from any method: the files cannot be written.
    """

    def __init__(self, directory: str | os.PathLike[str], *, restart_step: int | None = None):
        self._directory = os.fspath(directory)
        # TensorBoard purges the steps from that of a START event on, and takes the first START of
        # a directory for its beginning: so a run that begins writes one too.
        self._start_step = 0 if restart_step is None else restart_step + 1
        self._started: set[str] = set()
        self._hyperparameters: dict[str, bool | int | float | str] = {}
        self._descriptions: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
        # An event file is a TFRecord file. TensorBoard's own writer does the same in a thread: five
        # times slower, and where a write fails the traceback is the thread's.
        self._files: dict[str, tf.io.TFRecordWriter] = {}
        named = glob.glob("eval/*/", root_dir=self._directory)
        for split in (*SPLITS, *(name.rstrip("/") for name in named)):
            # The first evaluation may be far away: its old steps go now.
            if os.path.isdir(os.path.join(self._directory, split)):
                with self._file(split) as file:
                    file.flush()

    def scalars(
        self,
        split: str,
        step: int,
        values: Mapping[str, float | None],
        wall_time: float | None = None,
    ) -> None:
        """Writes the values of one step as one event.

        Args:
          split: "train", "eval" or "eval/<name>".
          step: the global step.
          values: tag -> value, kept as float32. NaN is kept and drawn as a triangle; None, which is
            how metrics.jsonl writes it, is left out.
          wall_time: seconds since 1970; now by default.
        """
        if split not in SPLITS and not split.startswith("eval/"):
            raise TermwiseError(f"Unknown split {split!r}: expected one of {SPLITS}.")
        summary = summary_pb2.Summary(
            value=[
                summary_pb2.Summary.Value(tag=tag, simple_value=float(value))
                for tag, value in values.items()
                if value is not None
            ]
        )
        if described := self._descriptions.get(split, self._descriptions["eval"]):
            for value in summary.value:
                if value.tag in described:
                    value.metadata.summary_description = described.pop(value.tag)
        if summary.value:
            self._write(split, event_pb2.Event(wall_time=wall_time, step=step, summary=summary))

    def describe(self, descriptions: Mapping[str, str]) -> None:
        """Has the next value of each tag bring a text, in Markdown, for its chart."""
        self._descriptions = {split: dict(descriptions) for split in SPLITS}

    def image(self, tag: str, step: int, rgb: np.ndarray) -> None:
        """Writes one picture: uint8 [height, width, 3]."""
        rgb = np.asarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3:
            raise TermwiseError(
                f"Image {tag!r}: expected uint8 [height, width, 3]. "
                f"Received {rgb.dtype} {list(rgb.shape)}."
            )
        picture = summary_pb2.Summary.Image(
            height=rgb.shape[0],
            width=rgb.shape[1],
            colorspace=3,
            encoded_image_string=tf.io.encode_png(rgb).numpy(),
        )
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=picture)])
        self._write("train", event_pb2.Event(step=step, summary=summary))

    def text(self, tag: str, markdown: str) -> None:
        """Writes a text for the whole run, in Markdown."""
        self._write_summary(text_pb(tag, markdown))

    def configuration(self, config: Mapping[str, Any]) -> None:
        """Writes a nested configuration twice: as a text, and as hyperparameters.

        Both name a field by its path, `optimizer.learning_rate`. The hyperparameters open a session
        of the HParams tab, one row for the run, which `finish` closes.
        """
        fields = dict(_flatten(config))
        rows = [f"|`{name}`|`{value!r}`|" for name, value in fields.items()]
        self.text("configuration", "\n".join(["|field|value|", "|---|---|", *rows]))
        self._hyperparameters = {name: _hyperparameter(value) for name, value in fields.items()}
        # With a trial_id of its own choice, runs of equal configuration share one row: their mean.
        self._write_summary(hparams_api.hparams_pb(self._hyperparameters, trial_id=""))

    def columns(self, tags: Iterable[str], varied: Container[str] = ()) -> None:
        """Writes the columns of the HParams tab: the total and metrics first, speed last.

        Without this TensorBoard sorts the tags, and shows the first few: `examples_per_second`.

        Args:
          tags: those of a row of training; what an evaluation has of them is listed before.
          varied: the fields of the configuration that are shown before the others.
        """
        metrics = [
            hparams_pb2.MetricInfo(name=hparams_pb2.MetricName(group=split, tag=tag))
            for tag in sorted(tags, key=_column)
            for split in reversed(SPLITS)
            if split == "train" or tag.startswith(_EVALUATED)
        ]
        fields = [
            hparams_pb2.HParamInfo(name=name, type=_kind(value), differs=name in varied)
            for name, value in self._hyperparameters.items()
        ]
        self._write_summary(hparams_summary.experiment_pb(fields, metrics))

    def finish(self) -> None:
        """Marks the run as finished in the HParams tab.

        TensorBoard keeps the first mark it reads: leave a run that may be resumed without one.
        """
        self._write_summary(hparams_summary.session_end_pb(hparams_pb2.STATUS_SUCCESS))

    def layout(self) -> None:
        """Writes the charts of the Custom Scalars tab: one shows all terms of a run."""
        self._write_summary(custom_scalar_summary.pb(_layout()))

    def flush(self) -> None:
        """Hands what was written to the operating system."""
        for split in list(self._files):
            with self._file(split) as file:
                file.flush()

    def close(self) -> None:
        """Flushes and closes the files; a value written later opens new ones."""
        for split in list(self._files):
            with self._file(split) as file:
                file.close()
        self._files.clear()

    def _write_summary(self, summary: Any) -> None:
        # `summary` is TensorBoard's message or TensorFlow's: one format, two Python classes.
        event = event_pb2.Event(step=0)
        event.summary.ParseFromString(summary.SerializeToString())
        self._write(_RUN, event)

    def _write(self, split: str, event: event_pb2.Event) -> None:
        if not event.wall_time:
            event.wall_time = time.time()
        with self._file(split) as file:
            file.write(event.SerializeToString())

    @contextlib.contextmanager
    def _file(self, split: str) -> Iterator[tf.io.TFRecordWriter]:
        """The file of `split`, opened when there is none; what it raises becomes an OSError."""
        directory = os.path.join(self._directory, split)
        try:
            if split not in self._files:
                os.makedirs(directory, exist_ok=True)
                self._files[split] = tf.io.TFRecordWriter(os.path.join(directory, _file_name()))
                for event in self._first_events(split):
                    self._files[split].write(event.SerializeToString())
            yield self._files[split]
        except tf.errors.OpError as error:
            # Readers stop at a record that was cut short: what comes next goes to a new file.
            self._files.pop(split, None)
            raise FileError(
                f"TensorBoard events could not be written to {directory}: {error.message}. "
                "Make room there, or give another workdir; workdir=None keeps nothing on disk."
            ) from error
        except OSError as error:  # the folder cannot be made
            raise refusal(directory, error) from error

    def _first_events(self, split: str) -> Iterator[event_pb2.Event]:
        now = time.time()
        yield event_pb2.Event(wall_time=now, file_version="brain.Event:2")
        if split not in self._started:
            self._started.add(split)
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            yield event_pb2.Event(wall_time=now, step=self._start_step, session_log=start)


def _file_name() -> str:
    # TensorBoard reads the files of a directory in the order of their names, and a run may be
    # resumed within the second: so the time is there to the nanosecond.
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    host, process = socket.gethostname(), os.getpid()
    return f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{host}.{process}"


def _layout() -> layout_pb2.Layout:
    layout = layout_pb2.Layout()
    for title, charts in _CHARTS.items():
        category = layout.category.add(title=title, closed=title in _FOLDED)
        for name, regex in charts.items():
            category.chart.add(title=name).multiline.tag.append(regex)
    return layout


def _flatten(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a nested mapping by their dotted paths; an empty mapping is a value."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _column(tag: str) -> int:
    return next(place for place, head in enumerate(_COLUMNS) if tag.startswith(head))


def _kind(value: bool | int | float | str) -> int:
    if isinstance(value, bool):
        return hparams_pb2.DATA_TYPE_BOOL
    return hparams_pb2.DATA_TYPE_STRING if isinstance(value, str) else hparams_pb2.DATA_TYPE_FLOAT64


def _hyperparameter(value: Any) -> bool | int | float | str:
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)
