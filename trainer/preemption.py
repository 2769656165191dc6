"""Being asked to stop: finish the current call of the loop, save, and say so by the exit code."""

from __future__ import annotations

import signal
import threading

PREEMPTED = 42  # exit code: saved, and the same command continues


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

    Args:
      noted: whether to note them at all: a run that keeps nothing has nothing to save.

    Attributes:
      received: the signal's number; 0 before.
    """

    def __init__(self, noted: bool):
        self._noted = noted and threading.current_thread() is threading.main_thread()
        self._before: dict = {}
        self.received = 0

    def __enter__(self):
        if self._noted:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = int(number)


def stop(number: int, step: int, saved) -> None:
    """Raises what a stopped run ends with: `Preempted`, or KeyboardInterrupt for SIGINT.

    Args:
      number: the signal's.
      step: the step it stopped at.
      saved: path of the checkpoint.
    """
    message = (
        f"stopped by {signal.Signals(number).name} at step {step} | kept: {saved} | the same "
        "command continues"
    )
    if number == signal.SIGINT:
        raise KeyboardInterrupt(message)
    raise Preempted(message)
