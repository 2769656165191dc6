"""One call of fit: what there is is restored, what is left is trained, the run is left finished."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from losses.errors import TermwiseError
from trainer.debugging.bad_values import check_arrays
from trainer.debugging.profile import Profile
from trainer.distributed.engines import cluster_of, restart_of
from trainer.distributed.hosts import LOST, PeerLost, peer_lost
from trainer.distributed.strategies import describe_devices
from trainer.errors import explain
from trainer.fitting.callback_state import CallbackStates
from trainer.fitting.callbacks import check_callbacks
from trainer.fitting.course import Course
from trainer.fitting.helping import check_measurable
from trainer.fitting.outer_loop import OuterLoop
from trainer.fitting.phases import Phase, check_takeable
from trainer.fitting.plan import Plan
from trainer.fitting.preemption import Signals, stop
from trainer.ledger.console import Console
from trainer.ledger.describe import describe_run, term_notes
from trainer.ledger.format import duration, ledger_table, number
from trainer.ledger.history import History
from trainer.ledger.writers import Writers
from trainer.loop.traced_step import Asked, TracedStep
from trainer.persistence.checkpoint import Checkpoints
from trainer.persistence.lock import WorkdirLock
from trainer.persistence.retention import check_keep
from trainer.persistence.workdir import Workdir
from trainer.report.hints import find_hints
from trainer.run.data_place import enter_data
from trainer.run.run import Run
from trainer.run.settings import Settings, rates_changed, told, told_changed

SHOWN_HINTS = 3


@dataclass(frozen=True)
class FitRequest:
    """What a call of fit asks for, checked.

    Attributes:
      source: the data.
      validation: split -> data that are evaluated on the way.
      phases: of the training, one after another.
      step: the traced step.
      asked: what the fit asks of the step, in its first phase.
      weights: name -> weight, of terms whose weight was set by hand.
      plan: the cadences.
      keep: keep_last, keep_best and best_metric of the checkpoints.
      best_split: the rows that have it.
      events: the Trainer, as the first callback.
      callbacks: the user's.
      describe: () -> the table of terms.
      profile: of some steps.
      verbose: whether lines are printed.
      history: which takes the rows.
    """

    source: Any
    validation: Mapping[str, Any]
    phases: tuple[Phase, ...]
    step: TracedStep
    asked: Asked
    weights: Mapping[str, Any]
    plan: Plan
    keep: Mapping
    best_split: str
    events: Any
    callbacks: Iterable
    describe: Callable[[], str]
    profile: Profile
    verbose: bool
    history: History = field(default_factory=History)


@dataclass(frozen=True)
class Standing:
    """Where a run stands at the start of a fit.

    start: the step; resumed: whether it was restored now; history: the rows so far;
    began: the time, by a clock that does not jump.
    """

    start: int
    resumed: bool
    history: History
    began: float

    @property
    def resumed_from(self) -> int | None:
        return self.start if self.resumed else None

    @property
    def seconds(self) -> float:
        """Since the start of the fit."""
        return time.perf_counter() - self.began


def run_fit(run: Run, request: FitRequest) -> History:
    """Restores what there is, trains what is left, and leaves the run finished or resumable."""
    check_callbacks(request.callbacks)
    check_keep(request.keep["keep_last"], request.keep["keep_best"])
    source = request.source
    batch_size = None if source.per_host else source.batch_size
    run.hosts.check_same("fit", {**request.plan.numbers(), "batch_size": batch_size})
    if request.plan.auto and run.on_nonfinite == "restore":
        raise TermwiseError(
            "checkpoint_every='auto' goes with on_nonfinite='raise' or 'skip': to which step "
            "'restore' goes back would depend on the clock. Give a number of steps."
        )
    for validation in () if run.programs.eager else request.validation.values():
        # what cannot be read is found before a file is written
        run.evaluation.trace(validation, run.jit.xla)
    check_measurable(run, request.source, next(iter(request.validation.values()), None))
    check_arrays(run, request.source)
    check_takeable(request.phases, run.program, request.source)
    run.decide_jit(request.source, request.asked)
    workdir = run.workdir if run.hosts.chief else None  # the only host that writes
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            if workdir is not None:
                stack.enter_context(WorkdirLock(workdir.path))

        run.hosts.from_chief(lock)
        return _locked_fit(run, request, workdir)


def _locked_fit(run: Run, request: FitRequest, workdir: Workdir | None) -> History:
    console = Console(quiet=not (request.verbose and run.hosts.chief))
    checkpoints = run.state.open_checkpoints(
        run.programs, **request.keep, writes=run.hosts.chief, say=console.warning
    )
    described = _described(run)  # as it was given: what a checkpoint holds of it comes now
    standing = _restored(run, request, workdir, checkpoints, console)
    console.line(request.describe())
    for phase in request.phases:
        console.line(f"phase {phase.name}: {phase}")
    ended = _ended(run, request, standing.start)
    if ended is not None:
        if run.hosts.chief:
            console.notice(f"run {run.name}: {ended}: nothing to do. Steps count from the start.")
        if checkpoints is not None:
            checkpoints.wait()
        # killed after its last checkpoint
        if workdir is not None and workdir.seconds() is None:
            workdir.done(_final(standing))
        _summarize(console, standing, checkpoints, workdir)
        return standing.history
    with Signals(noted=run.workdir is not None) as signals:
        enter_data(run.state, request.source, standing.start, console.warning)
        _train(run, request, workdir, checkpoints, console, standing, signals, described)
        if workdir is not None:
            workdir.done(_final(standing))
        _summarize(console, standing, checkpoints, workdir)
        # no host leaves while another still needs it, and all leave alike
        asked = int(run.hosts.exchange(float(signals.received)).max())
        if asked:  # in the last call, or after it
            kept = checkpoints.latest if checkpoints else None
            stop(asked, run.state.step, kept, run.hosts.chief)
    return standing.history


def _restored(run: Run, request: FitRequest, workdir, checkpoints, console) -> Standing:
    """Restores the newest checkpoint, or takes the weights a new run starts with; tells it."""
    began = time.perf_counter()
    resumed = run.state.restore(run.programs, checkpoints)
    start = run.state.step
    if checkpoints is not None and not resumed:
        checkpoints.check_rows()  # between two fits of one Trainer
    # a run that was killed before its first checkpoint has left rows too
    rows = run.hosts.from_chief(lambda: workdir.cut_metrics(start) if workdir else [])
    told = "new" if not start else f"resumed from {start}" if resumed else f"from {start}"
    if run.init_from and not start:
        warm = run.state.initialize(run.programs, run.init_from, run.init_loss_parameters)
        told += f", weights of {warm.path}"
    console.line(
        f"run {run.name} | {describe_devices(run.strategy)} | {request.plan.steps} steps | "
        f"global batch {_sizes(request.source.batch_sizes)} | {told}"
    )
    if (cluster := cluster_of(run.strategy)) is not None:
        console.line(cluster.describe())
    request.history.rows.extend(rows if resumed else ())
    return Standing(start, resumed, request.history, began)


def _sizes(batch) -> str:
    """8, or labelled 8, unlabelled 56."""
    if isinstance(batch, dict):
        return ", ".join(f"{name} {_sizes(size)}" for name, size in batch.items())
    return str(batch or "varies")


def _ended(run: Run, request: FitRequest, start: int) -> str | None:
    """Why nothing is left to do, as a clause; None where something is.

    Args:
      start: the step at which the run stands.
    """
    host, last = run.state.host, request.plan.steps
    if start > last or (start == last and host.ended):
        return f"step {start} is already reached"
    if not (host.ended and host.stopping and host.steps == last):
        return None
    states = CallbackStates([request.events, *(request.callbacks or ())])
    if not states.same(host.callbacks) or run.state.data.difference(host.data, request.source):
        return None
    return f"a callback has ended this run at step {start}, and more steps= would go on"


def _described(run: Run) -> dict:
    """What a Trainer makes of its arguments, as a configuration."""
    return describe_run(
        model=run.program.model,
        optimizers=run.program.optimizers.of_group,
        objective=run.program.objective,
        strategy=run.strategy,
        jit_compile=run.jit.xla,
        seed=run.seed,
    )


def _train(
    run: Run, request: FitRequest, workdir, checkpoints, console, standing, signals, described
) -> None:
    """Trains what is left; files are complete afterwards, whatever happens."""
    terms = term_notes(run.program.objective)
    by_hand = _set_by_hand(run, request, standing, console)
    config = run.config or described
    if workdir is not None:
        own = {"optimizer": described["optimizer"]} if run.config else {}
        more = {**run.jit.notes, **by_hand, **own, "terms": terms}
        changed = workdir.start(config, standing.resumed_from, more)
        if run.config:  # of what else is in it the user knows
            changed = rates_changed(workdir.starts(), described["optimizer"])
        if standing.resumed:
            rates = Settings.of(run.programs, request.weights).rates
            console.notice(told_changed(changed, rates))
    writers = Writers(standing.history, console, workdir, config, standing.resumed_from, terms)
    finished = False
    try:
        _loop(run, request, writers, checkpoints, signals, standing)
        finished = True
    except LOST as error:
        if run.hosts.count == 1 or not peer_lost(error):
            raise
        raise PeerLost(_lost(error, checkpoints, run.strategy)) from error
    finally:
        try:
            if checkpoints is not None:
                checkpoints.wait()
        finally:
            run.state.settings = Settings.of(run.programs, request.weights)
            writers.close(finished)


def _set_by_hand(run: Run, request: FitRequest, standing: Standing, console: Console) -> dict:
    """What was set by hand since the last fit of this Trainer, for starts.jsonl; tells it."""
    before = None if standing.resumed else run.state.settings
    changes = Settings.of(run.programs, request.weights).changes(before)
    if not changes:
        return {}
    console.line(f"set by hand: {told(changes)}")
    return {"by_hand": changes}


def _loop(run: Run, request: FitRequest, writers, checkpoints, signals, standing) -> None:
    host = run.state.host
    course = Course.of(request.phases, host)
    source = request.source.drawn_as(host.rates)
    if not course.begun or (course.rates and not host.rates):  # then the data are others
        source = source.rerated(course.rates, standing.start - run.state.data.start)

    def traced(source) -> TracedStep:
        phase = course.of_step.beside(request.weights)
        return run.traced(source, replace(request.asked, phase=phase))

    outer = OuterLoop(
        run,
        traced=traced,
        source=source,
        validation=request.validation,
        course=course,
        best_split=request.best_split,
        plan=request.plan,
        writers=writers,
        checkpoints=checkpoints,
        signals=signals,
        profile=request.profile,
    )
    try:
        with contextlib.closing(outer.recorder):
            outer.open(run.state.data.start)
            outer.run(standing.start, request.events, request.callbacks)
        if sentence := course.never_ended():
            writers.console.warning(sentence)
    finally:
        outer.leave()
        outer.tell(request.profile.close())


def _final(standing: Standing) -> dict:
    """What DONE.json holds."""
    history = standing.history
    splits = ["eval", *dict.fromkeys(row["split"] for row in history.rows if "/" in row["split"])]
    values = {**(history.last() or {}), **{split: history.last(split) for split in splits}}
    return {**values, "seconds": standing.seconds}


def _lost(error, checkpoints: Checkpoints | None, strategy) -> str:
    cause = explain(error)[:200]
    newest = checkpoints.latest if checkpoints else None
    return (
        f"another host is gone ({type(error).__name__}: {cause}). {restart_of(strategy)} "
        f"Kept: {newest or 'nothing, no checkpoint was written'}."
    )


def _summarize(console, standing: Standing, checkpoints, workdir) -> None:
    history = standing.history
    first, last = history.first(), history.last()
    if not (first and last):
        return
    console.line(ledger_table(history))
    saved = f" | {checkpoints.latest}" if checkpoints is not None else ""
    seconds = (workdir.seconds() if workdir is not None else None) or standing.seconds
    console.line(
        f"done {last['step']} steps in {duration(seconds)} | total {number(last['total'], 'null')} "
        f"(first {number(first['total'], 'null')}){saved}"
    )
    hints = [] if console.quiet else find_hints(history.rows)
    for hint in hints[:SHOWN_HINTS]:
        console.line(f"look: {hint}")
    if len(hints) > SHOWN_HINTS and workdir is not None:
        console.line(
            f"      {len(hints) - SHOWN_HINTS} more: python -m trainer.report {workdir.path}"
        )
    if workdir is not None:
        console.line(f"see it: tensorboard --logdir {workdir.events}")
