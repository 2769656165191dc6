"""`jit_compile="auto"`: whether XLA compiles the step, decided by timing both before training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from losses.distributed.hosts import host_count
from losses.errors import TermwiseError
from trainer.data.dataset import DatasetSource
from trainer.errors import cache_failure, explain
from trainer.loop.traced_step import TracedStep
from trainer.loop.train_loop import OpenLoop, TrainLoops
from trainer.loop.window import LogWindow

AUTO = "auto"
COMPILE_SECONDS = 120.0  # a program that is not compiled by then is given up
TRIAL_SECONDS = 0.2  # of one of the ROUNDS, for each of the two
ROUNDS = 3
MOST_STEPS = 4096  # of a round


class JitChoice:
    """Whether XLA compiles the steps of a run.

    Args:
      jit_compile, run_eagerly: of `Trainer`.
    Attributes:
      decided: what "auto" has found, as starts.jsonl notes it; None before.
    Raises:
      ValueError: neither True, False nor "auto"; both compiled and in Python.
    """

    def __init__(self, jit_compile, run_eagerly=False):
        auto = isinstance(jit_compile, str) and jit_compile == AUTO
        if not auto and jit_compile is not True and jit_compile is not False:
            raise TermwiseError(
                f"jit_compile={jit_compile!r}: accepted are True, False and 'auto'."
            )
        if run_eagerly is not True and run_eagerly is not False:
            raise TermwiseError(f"run_eagerly={run_eagerly!r}: accepted are True and False.")
        if run_eagerly and jit_compile is True:
            raise TermwiseError(
                "run_eagerly=True runs each step in Python, which XLA cannot compile. Pass "
                "jit_compile=False."
            )
        self._asked = jit_compile
        self.decided: dict | None = None

    @property
    def pending(self) -> bool:
        """Whether "auto" has still to decide."""
        return self._asked == AUTO and self.decided is None

    @property
    def xla(self) -> bool:
        """Whether XLA compiles; not before it is decided."""
        return self._asked is True or bool(self.decided and self.decided["compiled"])

    @property
    def notes(self) -> dict:
        """What starts.jsonl notes of it."""
        return {} if self.decided is None else {"jit_compile": self.decided}


def decide(
    choice: JitChoice,
    source,
    loops: TrainLoops,
    traced: Callable[[bool], TracedStep],
    noted: Callable[[], Any],
    now: int,
) -> None:
    """Settles `jit_compile="auto"`, once per Trainer.

    A run that is continued keeps what its first start found. The trial trains on the first batches
    and then puts every variable back; what Python code of the user's does in a step, it does.
    A pipeline is opened once for its first batch, on every start alike: the order of its shuffles
    stays that of the first start.

    Args:
      choice: what is settled.
      source: the data.
      loops: of the run.
      traced: whether XLA compiles -> the traced step.
      noted: () -> what an earlier start has noted, on every host alike.
      now: the global step.
    """
    if not choice.pending:
        return
    batch = source.peek()
    decided = noted()
    if not isinstance(decided, dict) or type(decided.get("compiled")) is not bool:
        reason = _refused(traced(False), source)  # a first start, or starts.jsonl was edited
        decided = {"compiled": False, "because": reason} if reason else None
    choice.decided = decided or timed(source, batch, loops, traced, now)


def _refused(step: TracedStep, source) -> str | None:
    """Why there is nothing to time; None where there is."""
    if host_count(step.program.placement.strategy) > 1:
        return "several hosts"  # each would time steps of its own, which wait for the others
    if not all(isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(source.element_spec)):
        return "data that is not dense"
    return None


def timed(source, batch, loops: TrainLoops, traced, now: int) -> dict:
    """What timing a step with XLA and without has found; every variable is put back."""
    return _Trial(source, batch, loops, traced, now).result()


class _Trial:
    """Times a step with XLA and without, and puts every variable back."""

    def __init__(self, source, batch, loops: TrainLoops, traced, now: int):
        self._source = source if source.indexed else _repeated(source, batch)
        self._batch = batch
        self._loops, self._traced, self._now = loops, traced, now
        self._values: list[tuple] = []  # variable, its value before the trial

    def result(self) -> dict:
        """What is decided: whether the compiled step is the faster, why, seconds per step."""
        seconds: dict[str, float] = {}
        because = "timed"
        plain = self._traced(False)
        try:
            seconds["plain"] = self._seconds_per_step(plain)
            try:
                compiled = self._traced(True)
                loop = self._open(compiled)
                self._compile(compiled, loop)
            except _Refused as refused:
                because = str(refused)
            except TermwiseError as error:  # what XLA cannot take on several replicas
                because = f"XLA refused the step: {error}"
            else:
                seconds["xla"] = self._seconds_per_step(compiled, loop)
        finally:
            for variable, value in self._values:
                variable.assign(value)
            plain.program.metrics.reset()
        faster = seconds.get("xla", float("inf")) < seconds["plain"]
        shown = {"plain": seconds["plain"], "xla": seconds.get("xla")}
        return {"compiled": faster, "because": because, "seconds_per_step": shown}

    def _compile(self, step: TracedStep, loop: OpenLoop) -> None:
        """Has XLA compile the step, and with several replicas run it. `_Refused`: it does not."""
        if step.program.placement.replicas == 1:
            _within(COMPILE_SECONDS, lambda: _compile(step, self._batch))
            return
        # a replica's part alone is compiled, which only a run brings about; it cannot be left
        # behind, since it would go on to change variables
        try:
            _run(loop, len(step.program.layout.names), 1)
        except tf.errors.OpError as error:
            raise _Refused(_told(error)) from error

    def _open(self, step: TracedStep) -> OpenLoop:
        loop = self._loops.open(step, self._source, 0, self._now)
        saved = {id(variable) for variable, _ in self._values}
        self._values += [(v, tf.identity(v)) for v in loop.variables if id(v) not in saved]
        return loop

    def _seconds_per_step(self, step: TracedStep, loop: OpenLoop | None = None) -> float:
        """The least seconds of a step in `ROUNDS` rounds."""
        loop = self._open(step) if loop is None else loop
        terms = len(step.program.layout.names)
        steps = _enough(loop, terms)
        return min(_run(loop, terms, steps) / steps for _ in range(ROUNDS))


def _compile(step: TracedStep, batch) -> None:
    """Has XLA compile one step, without running it."""
    arguments = [*tf.nest.flatten(batch, expand_composites=True)]
    if step.program.optimizers.accumulation > 1:
        arguments.append(tf.zeros([len(step.program.layout.names)]))
    alone = tf.function(step.function, jit_compile=True, autograph=False)
    alone.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")


def _repeated(source, batch) -> DatasetSource:
    """A pipeline of one batch, of the source's own structure."""

    def loose(*parts):
        flat = tf.nest.flatten(parts)
        specs = tf.nest.flatten(source.element_spec)
        relaxed = [
            tf.raw_ops.PlaceholderWithDefault(input=part, shape=spec.shape)
            for part, spec in zip(flat, specs, strict=True)
        ]
        return tf.nest.pack_sequence_as(source.element_spec, relaxed)

    dataset = tf.data.Dataset.from_tensors(batch).cache().repeat()
    return DatasetSource(dataset.map(loose), source.what)


def _run(loop: OpenLoop, terms: int, steps: int) -> float:
    """Seconds of some steps."""
    began = time.perf_counter()
    loop.run(LogWindow.empty(terms), 0, steps)
    return time.perf_counter() - began


def _enough(loop: OpenLoop, terms: int) -> int:
    """How many steps take about `TRIAL_SECONDS`."""
    _run(loop, terms, 1)
    steps = 1
    while True:
        seconds = _run(loop, terms, steps)
        if seconds > TRIAL_SECONDS / 2 or steps >= MOST_STEPS:
            return steps
        steps = min(4 * steps, MOST_STEPS)


class _Refused(Exception):
    """The step is not compiled; says why."""


def _told(error: Exception) -> str:
    cause = cache_failure(error) or f"{type(error).__name__}: {explain(error)}"
    return f"XLA refused the step: {cause}"


def _within(seconds: float, function) -> None:
    """Runs a function. `_Refused`: it did not end well.

    One that takes longer is left behind: it only compiles, and changes nothing when it ends.
    """
    failed: list[Exception] = []

    def run():
        try:
            function()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise _Refused(f"XLA had not compiled the step after {seconds:.0f} s")
    if failed:
        raise _Refused(_told(failed[0])) from failed[0]
