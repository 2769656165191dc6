"""Which checkpoints stay: the last ones and the best ones, and the record of the best."""

from __future__ import annotations

import json
import re
from pathlib import Path

from losses.errors import TermwiseError
from trainer.persistence import manifest
from trainer.persistence.files import replace_text

_MORE_IS_BETTER = re.compile(
    r"acc|auc|f1|iou|dice|map|psnr|ssim|r2|cosine_similarity|"
    r".*(accuracy|precision|recall|score|_acc|_auc|_iou)|.*_at_.*"
)


class Retention:
    """Keeps the last checkpoints and, besides, the best ones by a number of their markers.

    The markers are the whole record: `best.json` is made from them, so that it is the same
    after any crash. Of equal values the earlier step is better.

    Args:
      keep_last: how many of the newest stay; None keeps all.
      keep_best: how many of the best stay besides.
      best_metric: the key of the rows by which they are compared.
      mode: "min", "max" or "auto", which is max for names like accuracy, auc, iou.
    Raises:
      ValueError: a number or `mode` that is not accepted.
    """

    def __init__(self, keep_last: int | None, keep_best: int, best_metric: str, mode: str):
        if keep_last is not None and (type(keep_last) is not int or keep_last < 1):
            raise TermwiseError(f"keep_last={keep_last!r}: give a whole number from 1 on, or None.")
        if type(keep_best) is not int or keep_best < 0:
            raise TermwiseError(f"keep_best={keep_best!r}: give a whole number from 0 on.")
        if mode not in ("min", "max", "auto"):
            raise TermwiseError(f"mode={mode!r}: accepted are 'min', 'max' and 'auto'.")
        self.keep_last, self.keep_best, self.best_metric = keep_last, keep_best, best_metric
        descending = mode == "max" or (mode == "auto" and more_is_better(best_metric))
        self._sign = -1 if descending else 1

    def apply(self, directory: Path, newest: int | None = None) -> None:
        """Deletes what neither rule keeps; writes `best.json` and TensorFlow's own list.

        Args:
          directory: `checkpoints/` of a workdir, in which nothing is being written.
          newest: the step just saved. Later ones are of a course that was left, when the run
            was restored to an earlier step, and go.
        Raises:
          OSError: the disk refuses.
        """
        manifest.remove_remains(directory)
        markers: dict[int, manifest.Marker | None] = {}
        for step in manifest.marked_steps(directory):
            try:
                markers[step] = manifest.read_marker(directory / f"ckpt-{step}.json")
            except ValueError:
                markers[step] = None  # damaged: it goes when its age comes
        stay = [step for step in markers if newest is None or step <= newest]
        values = {
            step: marker.metrics[self.best_metric]
            for step, marker in markers.items()
            if step in stay and marker and self.best_metric in marker.metrics
        }
        best = sorted(values, key=lambda step: (self._sign * values[step], step))[: self.keep_best]
        last = stay if self.keep_last is None else stay[: self.keep_last]
        for step in markers:
            if step not in last and step not in best:
                manifest.remove(str(directory / f"ckpt-{step}"))
        if self.keep_best:
            record = [{"step": step, "value": values[step]} for step in best]
            _write(directory / "best.json", json.dumps(record) + "\n")
        kept = sorted({*last, *best})
        if kept:  # for tf.train.latest_checkpoint
            lines = [f'model_checkpoint_path: "ckpt-{kept[-1]}"']
            lines += [f'all_model_checkpoint_paths: "ckpt-{step}"' for step in kept]
            _write(directory / "checkpoint", "\n".join(lines) + "\n")


def more_is_better(name: str) -> bool:
    """Whether a metric's name says that more is better.

    Example:
      >>> more_is_better("metrics/sparse_categorical_accuracy"), more_is_better("total")
      (True, False)
    """
    return bool(_MORE_IS_BETTER.fullmatch(name.split("/")[-1].lower()))


def _write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text(encoding="utf-8", errors="replace") != text:
        replace_text(file, text)
