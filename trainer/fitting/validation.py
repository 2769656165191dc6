"""The data sets that a fit evaluates on its way: one without a name, or several by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.debugging.bad_values import evaluate_told
from trainer.ledger.recorder import Recorder
from trainer.ledger.rows import stamped
from trainer.ledger.writers import Writers
from trainer.run.events import ReadingEvents
from trainer.run.run import Run

EVAL = "eval"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class BestBy(NamedTuple):
    """By what the best checkpoints are told: a split of the rows, and a tag in them."""

    split: str
    tag: str


def open_validation(data, sets, opened: Callable[[Any, str], Any]) -> dict[str, Any]:
    """split -> source: "eval" of `validation_data`, "eval/<name>" of each of `validation_sets`.

    Args:
      data: `validation_data=`, or None.
      sets: `validation_sets=`, a mapping of names, or None.
      opened: (data, the argument's name for errors) -> source.
    Raises:
      TypeError: sets that are no mapping.
      ValueError: a name that is none.
    """
    sources = {} if data is None else {EVAL: opened(data, "validation_data")}
    if sets is None:
        return sources
    if not isinstance(sets, Mapping) or not sets:
        raise TermwiseTypeError(
            f"validation_sets= is a {type(sets).__name__} of {len(sets)}: give a dict, name -> "
            "data, of at least one set."
        )
    for name, each in sets.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TermwiseError(
                f"validation_sets= names a set {name!r}: give letters, digits and _ . -, as in "
                "{'hard': data}."
            )
        sources[f"{EVAL}/{name}"] = opened(each, f"validation_sets[{name!r}]")
    return sources


def best_by(best_metric: str, splits) -> BestBy:
    """What `best_metric=` means: `<set>:<tag>`, or a tag of the first of the splits.

    Args:
      best_metric: as `Trainer.fit` takes it.
      splits: of `open_validation`; without any it is a tag of the training rows.
    Raises:
      ValueError: a set that there is not.

    Example:
      >>> best_by("hard:metrics/accuracy", ["eval/easy", "eval/hard"])
      BestBy(split='eval/hard', tag='metrics/accuracy')
    """
    name, separator, tag = best_metric.partition(":")
    if not separator:
        return BestBy(next(iter(splits), "train"), best_metric)
    if f"{EVAL}/{name}" not in splits:
        known = ", ".join(repr(split.removeprefix(f"{EVAL}/")) for split in splits if "/" in split)
        raise TermwiseError(
            f"best_metric={best_metric!r} names the validation set {name!r}; there are "
            f"{known or 'none: give validation_sets='}."
        )
    return BestBy(f"{EVAL}/{name}", tag)


def prefix_of(split: str) -> str:
    """What stands before the tags of a split in callbacks' logs: `val_`, `val_hard_`."""
    return "val_" + split.removeprefix(EVAL).removeprefix("/") + ("_" if "/" in split else "")


class Evaluations:
    """Evaluates the data sets of a fit, and has their rows written.

    Args:
      run: whose model.
      sources: of `open_validation`.
      writers, recorder: of rows; those of training are written first.
      steps: of the fit.
    """

    def __init__(
        self, run: Run, sources: Mapping[str, Any], writers: Writers, recorder: Recorder, steps: int
    ):
        self._run, self._sources, self._steps = run, sources, steps
        self._writers, self._recorder = writers, recorder

    def at(self, step: int, events, more: Mapping[str, str]) -> dict[str, dict]:
        """split -> what was evaluated at a step.

        Args:
          events: of the callbacks.
          more: what else stands in the rows.
        """
        state, reading = self._run.state, ReadingEvents.of("test", events.callbacks, events)
        evaluated: dict[str, dict] = {}
        for split, source in self._sources.items():
            values = evaluated[split] = evaluate_told(self._run, source, None, reading)
            row = stamped({**more, **values}, step=step, split=split)
            self._recorder.settle()
            if state.evaluated == step:  # once more, behind an interruption
                self._writers.history.append(row)
            else:
                self._writers.write(row, self._steps)
        if evaluated:
            state.evaluated = step
        return evaluated
