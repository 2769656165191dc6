"""Which checkpoints stay: the last ones and the best ones, and the record of the best."""

from __future__ import annotations

import json
import numbers
import re
import warnings
from pathlib import Path

from losses.errors import TermwiseError
from trainer.persistence.checkpoint_files import manifest_steps, remove, remove_remains
from trainer.persistence.disk import read_file
from trainer.persistence.files import replace_text
from trainer.persistence.manifest import Manifest, read_manifest

MODES = ("min", "max", "auto")
_MORE_IS_BETTER = re.compile(
    r"acc|auc|f1|iou|dice|map|psnr|ssim|r2|cosine_similarity|"
    r".*(accuracy|precision|recall|score|_acc|_auc|_iou)|.*_at_.*"
)


class Retention:
    """Keeps the last checkpoints and, besides, the best ones by a number of their manifests.

    The manifests are the whole record. `best.json` and TensorFlow's list `checkpoint` are made
    from them whenever a checkpoint was saved, so that they are right after any crash; where one
    of them cannot be made, the run goes on and says so. Of equal values the earlier step is
    better.

    Args:
      keep_last: how many of the newest stay; None keeps all.
      keep_best: how many of the best stay besides.
      best_metric: the key of the rows by which they are compared.
      mode: "min", "max" or "auto", which is max for names like accuracy, auc, iou.
      say: called with a sentence where one of the two files cannot be made.
    Raises:
      ValueError: a number or `mode` that is not accepted.
    """

    def __init__(
        self,
        keep_last: int | None,
        keep_best: int,
        best_metric: str,
        mode: str,
        say=warnings.warn,
    ):
        check_keep(keep_last, keep_best)
        if mode not in MODES:
            raise TermwiseError(f"mode={mode!r}: accepted are 'min', 'max' and 'auto'.")
        self.keep_last, self.keep_best, self.best_metric = keep_last, keep_best, best_metric
        descending = mode == "max" or (mode == "auto" and more_is_better(best_metric))
        self._sign = -1 if descending else 1
        self._say = say

    def apply(self, directory: Path, newest: int | None = None) -> None:
        """Deletes what neither rule keeps; writes `best.json` and TensorFlow's own list.

        Args:
          directory: `checkpoints/` of a workdir, in which nothing is being written.
          newest: the step just saved. Checkpoints of later steps are deleted: they belong to a
            course of the run that was left when it was restored to an earlier step.
        Raises:
          OSError: the disk refuses.
        """
        remove_remains(directory)
        manifests = _read_manifests(directory)
        candidates = [step for step in manifests if newest is None or step <= newest]
        values = self._values(manifests, candidates)
        best = sorted(values, key=lambda step: (self._sign * values[step], step))[: self.keep_best]
        last = candidates[: self.keep_last]
        for step in set(manifests) - {*last, *best}:
            remove(str(directory / f"ckpt-{step}"))
        if self.keep_best:
            record = [{"step": step, "value": values[step]} for step in best]
            self._derive(directory / "best.json", json.dumps(record) + "\n")
        if last or best:
            self._derive(directory / "checkpoint", _tensorflow_list(sorted({*last, *best})))

    def _values(self, manifests: dict[int, Manifest | None], steps: list[int]) -> dict:
        """step -> the number by which it is compared, of those that have one."""
        return {
            step: manifest.metrics[self.best_metric]
            for step, manifest in manifests.items()
            if step in steps and manifest is not None and self.best_metric in manifest.metrics
        }

    def _derive(self, file: Path, text: str) -> None:
        """Writes a file that is made from the manifests, unless it says the same already."""
        try:
            same = read_file(file) == text.encode()
        except OSError:  # missing, or something else stands in its place
            same = False
        if same:
            return
        try:
            replace_text(file, text)
        except IsADirectoryError:
            self._say(f"{file} is a folder, and is not replaced. Remove it: the file is made anew.")


def check_keep(keep_last: int | None, keep_best: int) -> None:
    """Raises ValueError where these are no numbers of checkpoints to keep."""
    if keep_last is not None and not _is_count(keep_last, 1):
        raise TermwiseError(f"keep_last={keep_last!r}: give a whole number from 1 on, or None.")
    if not _is_count(keep_best, 0):
        raise TermwiseError(f"keep_best={keep_best!r}: give a whole number from 0 on.")


def more_is_better(name: str) -> bool:
    """Whether a metric's name says that more is better.

    Example:
      >>> more_is_better("metrics/sparse_categorical_accuracy"), more_is_better("total")
      (True, False)
    """
    return bool(_MORE_IS_BETTER.fullmatch(name.split("/")[-1].lower()))


def _is_count(value, least: int) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least


def _read_manifests(directory: Path) -> dict[int, Manifest | None]:
    """step -> manifest, newest first; None for a damaged one, which goes when its age comes."""
    manifests: dict[int, Manifest | None] = {}
    for step in manifest_steps(directory):
        try:
            manifests[step] = read_manifest(directory / f"ckpt-{step}.json")
        except TermwiseError:
            manifests[step] = None
    return manifests


def _tensorflow_list(steps: list[int]) -> str:
    """The text of the file `checkpoint`, which `tf.train.latest_checkpoint` reads."""
    lines = [f'model_checkpoint_path: "ckpt-{steps[-1]}"']
    lines += [f'all_model_checkpoint_paths: "ckpt-{step}"' for step in steps]
    return "\n".join(lines) + "\n"
