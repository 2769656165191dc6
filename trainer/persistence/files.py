"""Writes that are whole or not there, folders that stay the same, refusals that say what to do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from losses.errors import TermwiseError
from trainer.persistence.errors import FileMissingError, error_class

UNFINISHED = ".unfinished-"  # what the folder of a write is called that has not ended
ABANDONED = 86400  # seconds
HERE, RENAME_EXCHANGE = -100, 2  # of Linux: paths are those of the process; its flag
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def refusal(file, error: OSError, newest: str | None = None) -> OSError:
    """The error of a write that the system refused: of the same class, with what to do.

    Args:
      file: what could not be written.
      error: of the system; one that says what to do already stays as it is.
      newest: the newest checkpoint, which the run goes on from; None where there is none.

    Example:
      >>> import errno
      >>> full = OSError(errno.ENOSPC, "No space left on device")
      >>> print(refusal("runs/q1/metrics.jsonl", full, "runs/q1/checkpoints/ckpt-20"))
      runs/q1/metrics.jsonl cannot be written: No space left on device. Free some space and
      start again; kept: runs/q1/checkpoints/ckpt-20.
    """
    if isinstance(error, TermwiseError):
        return error
    if error.errno in _FULL:
        advice = "Free some space and start again"
    elif error.errno in _FORBIDDEN:
        advice = "Make it writable, or use another folder"
    else:
        advice = "Mend this and start again"
    reason = error.strerror or str(error)
    tail = f"; kept: {newest}" if newest else ""
    refused = error_class(type(error))(f"{file} cannot be written: {reason}. {advice}{tail}.")
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
    """Writes a whole file of text by a temporary name, as `replace_bytes`."""
    replace_bytes(file, text.encode())


def replace_bytes(file: Path, content: bytes) -> None:
    """Writes a whole file by a temporary name: a reader sees the old one or the new one.

    Raises:
      OSError: refused; the old file stands, and no temporary one is left.
    """
    temporary = file.with_name(file.name + ".tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # of a writer that was killed; a link would be written through
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = os.open(temporary, flags, 0o666)
        with open(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush_to_disk(file.parent)


def replace_whole(target: Path, write: Callable, check: Callable) -> None:
    """Puts a file or a folder in the place of an earlier one, once it is whole and on the disk.

    Args:
      target: what is replaced; it need not exist.
      write: (folder) -> path, writes into an empty folder beside the target.
      check: (target) -> None, raises where the target may not be replaced.
    Raises:
      OSError: refused; the earlier one stands, and nothing else is left.
    """
    check(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    # of the earlier one nothing is needed by then: what stays of it is swept away some day
    with tempfile.TemporaryDirectory(
        prefix=UNFINISHED, dir=target.parent, ignore_cleanup_errors=True
    ) as beside:
        written = write(Path(beside))
        for path in [written, *written.rglob("*")]:
            flush_to_disk(path)
        check(target)  # once more: it took a while
        earlier = _exchange(written, target, Path(beside, "before"))
        try:
            flush_to_disk(target.parent)
        except OSError:
            _put_back(target, earlier, Path(beside, "undone"))
            raise


def _sweep(folder: Path) -> None:
    """Removes what killed writers left, once it is so old that nobody writes there still."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left)


def _exchange(written: Path, target: Path, before: Path) -> Path | None:
    """Renames to a target; where an earlier one is then; on a failure it is where it was."""
    if not target.exists():
        os.replace(written, target)
        return None
    if not target.is_dir():
        with contextlib.suppress(OSError):  # some file systems have no second names
            os.link(target, before)
        os.replace(written, target)
        return before
    if _swapped(written, target):
        return written
    os.rename(target, before)
    try:
        os.replace(written, target)
    except BaseException:
        os.rename(before, target)
        raise
    return before


def _put_back(target: Path, earlier: Path | None, undone: Path) -> None:
    """Undoes `_exchange`; what was new goes to `undone`."""
    if earlier is None or earlier.exists():
        os.rename(target, undone)
    if earlier is not None and earlier.exists():
        os.rename(earlier, target)


def _swapped(first: Path, second: Path) -> bool:
    """Gives two folders each other's name at once; False where the system cannot."""
    try:
        swap = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not of Linux, or of an old one
        return False
    return swap(HERE, os.fsencode(first), HERE, os.fsencode(second), RENAME_EXCHANGE) == 0


class PinnedFolder:
    """A folder that must stay the one it was.

    A path may lead elsewhere later: the folder was moved or deleted and another one made in its
    place, or the path is relative and the process changed its directory.

    Args:
      path: of the folder, which need not exist yet.
    """

    def __init__(self, path: Path):
        self._path = path
        self._identity: os.stat_result | None = None

    def pin(self) -> None:
        """From now on the path must lead to the folder that it leads to now, if there is one."""
        if self._identity is None:
            with contextlib.suppress(OSError):
                self._identity = os.stat(self._path)

    def check(self) -> None:
        """Raises FileNotFoundError where the path no longer leads to the folder that was pinned."""
        if self._identity is None:
            return
        try:
            same = os.path.samestat(self._identity, os.stat(self._path))
        except OSError:
            same = False
        if not same:
            raise FileMissingError(
                f"{self._path} is no longer the folder that this run writes to: it was moved or "
                "deleted, or the process changed its directory. Bring it back and start again; "
                "nothing was written to another folder."
            )


class Lines:
    """A text file that grows by whole lines; a torn last line is cut when it is opened.

    Args:
      file: made when missing.
    Raises:
      OSError: it cannot be opened, or a line cannot be written. No part of the line stays.
    """

    def __init__(self, file: Path):
        self._file = file
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
                raise OSError(errno.EINVAL, "Is a named pipe")
            self._cut_torn_end()
        except OSError:
            self.close()
            raise

    def append(self, line: str) -> None:
        """Adds one line; `line` has no line break."""
        rest = f"{line}\n".encode()
        opened = os.fstat(self._descriptor)
        if not os.path.samestat(opened, os.stat(self._file)):
            raise FileNotFoundError(errno.ENOENT, "Another file is in its place")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # a device has no length
                os.ftruncate(self._descriptor, opened.st_size)
            raise

    def sync(self) -> None:
        """Returns once all lines would survive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file; a second call is an error."""
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
