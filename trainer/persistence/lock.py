"""One writer per workdir: a lock that the system itself releases when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
import warnings
import weakref
from pathlib import Path

from trainer.persistence.errors import FileError, WorkdirTakenError
from trainer.persistence.files import refusal

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NOTE = b'{"pid": '  # how the text of every lock begins
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class WorkdirLock:
    """The right to write in a workdir, held until `release`, the end of `with`, or death.

    It is a lock of the system on the file `lock`, not the file's presence: a holder that was
    killed, even by SIGKILL, holds nothing, and the next start goes ahead. The file's text says
    who holds it, for the message. Reading a run needs no lock.

    Args:
      workdir: the run's folder; made when missing.
      say: called with the message where a lock cannot be had at all (some network file systems).
    Raises:
      BlockingIOError: another process, or another Trainer of this one, writes there.
      OSError: the folder cannot be written to.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with WorkdirLock(folder):
      ...     WorkdirLock(folder)
      Traceback (most recent call last):
      trainer.persistence.errors.WorkdirTakenError: ... is being written by this process, ...
    """

    def __init__(self, workdir, say=warnings.warn):
        self.file = Path(workdir) / "lock"
        self._descriptor: int | None = None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._acquire(say)
        except OSError as error:
            raise refusal(self.file, error) from error
        _OPEN.add(self)

    def release(self) -> None:
        """Gives the lock back; a second call does nothing."""
        if self._descriptor is None:
            return
        if _same_file(self._descriptor, self.file):  # the workdir may have been moved meanwhile
            with contextlib.suppress(OSError):  # a file that nobody has locked stands in no way
                self.file.unlink()  # while it is still locked: see _acquire
        self._drop()

    def __enter__(self) -> WorkdirLock:
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def _acquire(self, say) -> None:
        while True:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                locked = self._lock(descriptor)
                if locked and not _same_file(descriptor, self.file):
                    os.close(descriptor)  # its holder removed it while this one waited at the door
                    continue
                if not locked:
                    say(
                        f"{self.file} cannot be locked: this file system has no locks. Take care "
                        "that one process at a time trains in this workdir."
                    )
                self._write_note(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
            return

    def _lock(self, descriptor: int) -> bool:
        """Whether the file is locked now; False where the file system has no locks.

        Raises:
          BlockingIOError: another one holds the lock.
        """
        try:
            return _flock(descriptor)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise WorkdirTakenError(
                f"{self.file.parent} is being written by {_holder(descriptor)}. Wait for it, stop "
                "it, or use another workdir."
            ) from None

    def _write_note(self, descriptor: int) -> None:
        """Writes who holds the lock; a file that is no lock is left as it is."""
        # nothing yet, or zeros after a power cut, is the lock of a process that died early
        if not _NOTE.startswith(os.pread(descriptor, len(_NOTE), 0).rstrip(b"\0")):
            raise FileError(
                f"{self.file} holds something else than a lock. Move that file, or use another "
                "workdir."
            )
        note = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{json.dumps(note)}\n".encode(), 0)

    def _drop(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _OPEN.discard(self)


_OPEN: weakref.WeakSet[WorkdirLock] = weakref.WeakSet()


def _leave_to_parent() -> None:
    # a forked child shares the parent's lock, and would hold it after the parent's death
    for lock in list(_OPEN):
        lock._drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _flock(descriptor: int) -> bool:
    """Whether the file is locked now; False where the file system has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _same_file(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Who wrote the lock's text: `process 1234 on host h since ...`."""
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        pid, host, since = note["pid"], note["host"], note["since"]
    except (ValueError, KeyError, TypeError):
        return "another process"
    if (pid, host) == (os.getpid(), socket.gethostname()):
        return f"this process, since {since}"
    return f"process {pid} on host {host} since {since}"
