"""Being asked to stop: finish the current call of the loop, save, and say so by the exit code."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback

from trainer.launch.exit_codes import INTERRUPTED, PEER_LOST, PREEMPTED
from trainer.launch.variables import PEER_GONE
from trainer.persistence.checkpoint import finish_writing

PATIENCE_SECONDS = 3.0  # from a second SIGINT to the end, where Python does not get to run


class Preempted(SystemExit):
    """The run was asked to stop and has saved; a program that does not catch it exits with 42."""

    def __init__(self, message: str):
        super().__init__(PREEMPTED)
        self.message = message

    def __str__(self):
        return self.message


class Signals:
    """Notes SIGTERM and SIGINT while a fit runs; a second SIGINT interrupts at once.

    Signals are noted in the main thread only; elsewhere they do what they did before.

    Python runs no handler while TensorFlow is inside a call, and tells two signals of that time as
    one. A thread counts them meanwhile; where a call goes on for long after a second SIGINT, or
    at a third, it ends the process with code 130. What is on the disk is whole, as after a kill.

    Where the launcher says that a peer is gone, SIGTERM ends the process as soon as the checkpoint
    that is being written counts: there is nobody to save another one with, and TensorFlow would
    wait for the peer for ten seconds or more.

    No signal is lost: one that the fit did not end for, because it came last or because the fit
    failed, is handed on to whoever would have had it.

    Args:
      noted: whether to note them at all: a run that keeps nothing has nothing to save.

    Attributes:
      received: the signal's number; 0 before.
    """

    def __init__(self, noted: bool):
        self._noted = noted and threading.current_thread() is threading.main_thread()
        self._before: dict = {}
        self._wakeup = self._pipe = -1
        self._interrupts = 0
        self.received = 0

    def __enter__(self):
        if self._noted:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
            reading, self._pipe = os.pipe()
            os.set_blocking(self._pipe, False)
            self._wakeup = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
            threading.Thread(target=self._count, args=(reading,), daemon=True).start()
        return self

    def __exit__(self, _kind, error, _traceback):
        for number, handler in self._before.items():
            # None: somebody who is not Python had it, and cannot be given it back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe)  # which ends the thread
        if self.received and (error is None or isinstance(error, Exception)):
            self._hand_on(error)

    def _hand_on(self, error):
        if error is not None and signal.getsignal(self.received) == signal.SIG_DFL:
            traceback.print_exception(error)  # nobody gets to see it where the process ends here
        signal.raise_signal(self.received)

    def _count(self, reading):
        with open(reading, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if self._wakeup != -1:  # an event loop's, which would hear of them
                    os.write(self._wakeup, number)
                if number[0] == signal.SIGTERM and os.path.exists(os.environ.get(PEER_GONE, "")):
                    _leave()
                self._interrupts += number[0] == signal.SIGINT
                if self._interrupts < 2:
                    continue
                heard = select.select([pipe], [], [], PATIENCE_SECONDS)[0]
                if self._interrupts > 2 or not heard:
                    print("stopped at once by SIGINT", file=sys.stderr, flush=True)
                    os._exit(INTERRUPTED)

    def _note(self, number, _frame):
        again = self.received == signal.SIGINT or self._interrupts > 1
        if number == signal.SIGINT and again:
            raise KeyboardInterrupt
        self.received = int(number)


def _leave() -> None:
    """Ends this process, which has lost a peer."""
    finish_writing()
    print(
        "error: another host is gone, as the launcher says. Start all hosts again: the same "
        "command continues.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(PEER_LOST)


def stop(number: int, step: int, saved, chief: bool = True) -> None:
    """Raises what a stopped run ends with: `Preempted`, or KeyboardInterrupt for SIGINT.

    Args:
      number: the signal's.
      step: the step it stopped at.
      saved: path of the checkpoint.
      chief: whether this host has written it.
    """
    kept = saved if chief else "by the chief"
    message = (
        f"stopped by {signal.Signals(number).name} at step {step} | kept: {kept} | the same "
        "command continues"
    )
    if number == signal.SIGINT:
        raise KeyboardInterrupt(message)
    print(message, file=sys.stderr, flush=True)  # a SystemExit says nothing of its own
    raise Preempted(message)
