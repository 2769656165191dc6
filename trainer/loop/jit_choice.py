"""`jit_compile="auto"`: whether XLA compiles the step, decided by timing both before training."""

from __future__ import annotations

import threading
import time
from typing import Any

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.source import Stream
from trainer.loop.window import Window

AUTO = "auto"
COMPILE_SECONDS = 120.0  # a program that is not compiled by then is given up
TRIAL_SECONDS = 0.2  # of one of the ROUNDS, for each of the two
ROUNDS = 3
MOST_STEPS = 4096  # of a round


def check_jit_compile(given):
    """`jit_compile=` if it is True, False or "auto"; else ValueError."""
    if given is True or given is False or (isinstance(given, str) and given == AUTO):
        return given
    raise TermwiseError(f"jit_compile={given!r}: accepted are True, False and 'auto'.")


def decide(trainer, source) -> dict:
    """Settles `jit_compile="auto"`, once per Trainer; what starts.jsonl notes of it.

    A run that is continued keeps what its first start found. The trial trains on the first batches
    and then puts every variable back; what Python code of the user's does in a step, it does.
    A pipeline is opened once for its first batch, on every start alike: the order of its shuffles
    stays that of the first start.
    """
    if trainer.jit_compile != AUTO:
        return {}
    loops = trainer.loops
    if trainer.compiling is None:
        batch = None if source.indexed else _first_batch(source)
        noted = trainer.hosts.broadcast_json(
            None if trainer.workdir is None else trainer.workdir.noted("jit_compile")
        )
        if not isinstance(noted, dict) or type(noted.get("compiled")) is not bool:
            noted = None  # a first start, or starts.jsonl was edited
            reason = _refused(loops, source)
            noted = {"compiled": False, "because": reason} if reason else None
        trainer.compiling = noted or _timed(trainer, source, batch)
    loops.switch(trainer.compiling["compiled"])
    trainer.reading.switch(trainer.compiling["compiled"])
    return {"jit_compile": trainer.compiling}


def _first_batch(source):
    return next(iter(source.dataset.take(1)))


def _refused(loops, source) -> str | None:
    """Why there is nothing to time; None where there is."""
    if loops.replica.replicas > 1:
        return "several replicas"
    if not all(isinstance(one, tf.TensorSpec) for one in tf.nest.flatten(source.element_spec)):
        return "data that is not dense"
    return None


def _timed(trainer, source, batch) -> dict:
    """Seconds per step of both, and which is the faster."""
    loops = trainer.loops
    trial = source if batch is None else _repeated(source, batch)
    kept: list = []
    best: dict[bool, float] = {}
    because = "timed"
    try:
        for compiled in (False, True):
            loops.switch(compiled)
            loops.open(trial, 0, trainer.state.step_now)
            kept += [(v, tf.identity(v)) for v in loops.traced(trial) if _new(v, kept)]
            if compiled:
                failure = _within(COMPILE_SECONDS, lambda: loops.compile_step(trial))
                if failure:
                    because = failure
                    break
            steps = _enough(trainer, trial)
            for _ in range(ROUNDS):
                taken = _run(trainer, trial, steps) / steps
                best[compiled] = min(taken, best.get(compiled, taken))
    finally:
        loops.switch(False)
        for variable, value in kept:
            variable.assign(value)
        trainer.loops.replica.train_metrics.reset()
    seconds = {"plain": best[False], "xla": best.get(True)}
    faster = True in best and best[True] < best[False]
    return {"compiled": faster, "because": because, "seconds_per_step": seconds}


def _new(variable, kept) -> bool:
    return all(variable is not other for other, _ in kept)


def _repeated(source, batch) -> Stream:
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
    return Stream(dataset.map(loose), source.what)


def _run(trainer, source, steps: int) -> float:
    """Seconds of some steps."""
    window = Window.empty(trainer.state.terms)
    began = time.perf_counter()
    trainer.loops.train(source, window, 0, steps)
    return time.perf_counter() - began


def _enough(trainer, source) -> int:
    """How many steps take about `TRIAL_SECONDS`."""
    _run(trainer, source, 1)
    steps = 1
    while True:
        seconds = _run(trainer, source, steps)
        if seconds > TRIAL_SECONDS / 2 or steps >= MOST_STEPS:
            return steps
        steps = min(4 * steps, MOST_STEPS)


def _within(seconds: float, function) -> str | None:
    """Runs a function; None, or why it did not end well.

    One that takes longer is left behind: it only compiles, and changes nothing when it ends.
    """
    failed: list[Any] = []

    def run():
        try:
            function()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            failed.append(f"XLA refused the step: {type(error).__name__}: {lines[0][:200]}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return f"XLA had not compiled the step after {seconds:.0f} s"
    return failed[0] if failed else None
