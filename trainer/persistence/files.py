"""Writes to disk that are whole or not there, and one clear error where a disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def refusal(file, error: OSError, kept: str | None = None) -> OSError:
    """The error of a write that the system refused: of the same class, with what to do.

    Args:
      file: what could not be written.
      error: of the system.
      kept: the newest checkpoint, which the run goes on from; None where there is none.

    Example:
      >>> import errno
      >>> full = OSError(errno.ENOSPC, "No space left on device")
      >>> print(refusal("runs/q1/metrics.jsonl", full, "runs/q1/checkpoints/ckpt-20"))
      runs/q1/metrics.jsonl cannot be written: No space left on device. Free some space and
      start again; kept: runs/q1/checkpoints/ckpt-20.
    """
    if error.errno in _FULL:
        advice = "Free some space and start again"
    elif error.errno in _FORBIDDEN:
        advice = "Make it writable, or use another folder"
    else:
        advice = "Mend this and start again"
    reason = error.strerror or str(error)
    tail = f"; kept: {kept}" if kept else ""
    refused = type(error)(f"{file} cannot be written: {reason}. {advice}{tail}.")
    refused.errno = error.errno
    return refused


def flush_to_disk(path) -> None:
    """Returns once a file's bytes, or a folder's names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(file: Path, text: str) -> None:
    """Writes a whole file by a temporary name: a reader sees the old text or the new one.

    Raises:
      OSError: refused; the old file stands, and no temporary one is left.
    """
    temporary = file.with_name(file.name + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush_to_disk(file.parent)


class Lines:
    """A text file that grows by whole lines; a torn last line is cut when it is opened.

    Args:
      file: made when missing.
    Raises:
      OSError: it cannot be opened, or a line cannot be written. No part of the line stays.
    """

    def __init__(self, file: Path):
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._cut_torn_end()
        except OSError:
            self.close()
            raise

    def append(self, line: str) -> None:
        """Adds one line; `line` has no line break."""
        rest = f"{line}\n".encode()
        size = os.fstat(self._descriptor).st_size
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # a device has no length
                os.ftruncate(self._descriptor, size)
            raise

    def sync(self) -> None:
        """Returns once all lines would survive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _cut_torn_end(self) -> None:
        size = os.fstat(self._descriptor).st_size
        end, block = size, 1 << 16
        while end:
            start = max(0, end - block)
            line_break = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if line_break >= 0:
                end = start + line_break + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._descriptor, end)
