"""A line where a call that all hosts make does not come back, for TensorFlow waits in silence."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

QUIET_S = 30.0  # without a word, at least
LONGER = 10  # than the longest call before it


class Waiting:
    """Says that this host waits, when a call takes long, and again each time it has doubled.

    Args:
      hosts: how many there are; a single one waits for nobody.
      index: of this host.
      seconds: how long a call may take until something is said, at least.
      say: called with a line, from another thread.
    """

    def __init__(
        self,
        hosts: int,
        index: int,
        seconds: float = QUIET_S,
        say: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),
    ):
        self._several, self._index, self._say = hosts > 1, index, say
        self._least = self._patience = seconds
        self._longest = 0.0  # seconds of a call that came back
        self._call: tuple[str, float] | None = None  # what it is, when it began
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def call(self, what: str) -> Iterator[None]:
        """While open, this host makes a call that comes back when all hosts have made it."""
        if not self._several:
            yield
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        began = time.monotonic()
        self._patience = max(self._least, LONGER * self._longest)
        self._call = what, began
        try:
            yield
        finally:
            self._call = None
            self._longest = max(self._longest, time.monotonic() - began)

    def close(self) -> None:
        """Nothing is said any more."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        with self._changed:
            while self._thread is not None:
                self._changed.wait(self._least / 4)
                call, now = self._call, time.monotonic()
                if call is None or now - call[1] < self._patience:
                    continue
                self._patience = 2 * (now - call[1])
                self._say(
                    f"waiting: host {self._index} has been in {call[0]} for {now - call[1]:.0f} s "
                    f"(the longest call before took {self._longest:.1f} s). Another host may be "
                    "slow, stopped or cut off; end all hosts and start them again if it does not "
                    "come back: the same command continues."
                )
