"""What a process says, line by line, read beside the test that waits for it."""

import queue
import threading
import time


class Said:
    """A process and its lines.

    Args:
      process: a `subprocess.Popen` with `stdout` as text.
      longest: seconds until a test gives up.
    Attributes:
      process: that one.
      said: list of str, the lines that were read so far.
    """

    def __init__(self, process, longest):
        self.process, self._longest = process, longest
        self.said: list[str] = []
        self._lines: queue.SimpleQueue = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def when(self, *words, seconds=None):
        """The next line that has all the words; None when there is no further line."""
        end = time.monotonic() + (self._longest if seconds is None else seconds)
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError("".join(self.said[-40:])) from None
            if line is None:
                return None
            self.said.append(line)
            if all(word in line for word in words):
                return line

    def end(self):
        """The exit code, once it has ended."""
        self.when("no line has this")
        return self.process.wait(timeout=self._longest)

    def stop_reading(self):
        """Waits for the last line of a process that has ended."""
        self._reader.join(timeout=10)
        self.process.stdout.close()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)
