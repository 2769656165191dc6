"""What the file system says of a path: whether a run can be kept there, what a file holds.

The command line asks this before TensorFlow is imported, so nothing here needs it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

DEEPEST = 128  # bytes below a workdir that the names of its files may take, temporary ones included
KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


class Obstacle(NamedTuple):
    """Why a run cannot be kept in a folder.

    Attributes:
      kind: the built-in class of the error.
      reason: a clause, such as "is a file".
    """

    kind: type[OSError]
    reason: str


def find_obstacle(path: str | os.PathLike[str]) -> Obstacle | None:
    """Why no run can be kept in a folder, which need not exist; None where one can.

    Nothing is made. What is found: a name that the file system cannot take, a file or a link
    without a target on the way, no permission to write.

    Example:
      >>> import tempfile
      >>> find_obstacle(tempfile.gettempdir() + "/new/run")
      >>> find_obstacle(__file__ + "/run").reason.partition("/")[0]
      'cannot be made, '
    """
    path = Path(path)
    if (obstacle := _unusable_name(path)) is not None:
        return obstacle
    existing = path
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    where = "" if existing == path else f"cannot be made, {existing} "
    if existing.is_symlink() and not existing.exists():
        missing = f"is a link to {os.readlink(existing)!r}, which is missing"
        return Obstacle(FileNotFoundError, where + missing)
    if not existing.is_dir():
        return Obstacle(NotADirectoryError, f"{where}is {_kind(existing)}")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Obstacle(PermissionError, f"no permission to write in {existing}")
    return _too_long(path, existing)


def read_file(file: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file.

    Opening a named pipe would wait for its writer; here it is an error at once.

    Raises:
      FileNotFoundError: nothing has this name.
      OSError: it cannot be read, is no regular file, or is a link without a target.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(file):
            target = os.readlink(file)
            raise OSError(errno.ENOLINK, f"Is a link to {target!r}, which is missing") from None
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"Is {KINDS.get(stat.S_IFMT(mode), 'a device')}")
        with open(descriptor, "rb", closefd=False) as opened:
            return opened.read()
    finally:
        os.close(descriptor)


def _kind(path: Path) -> str:
    mode = stat.S_IFMT(path.stat().st_mode)
    return "a file" if mode == stat.S_IFREG else KINDS.get(mode, "a device")


def _unusable_name(path: Path) -> Obstacle | None:
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return Obstacle(OSError, "holds characters that no file name can")
    if b"\0" in encoded:
        return Obstacle(OSError, "holds a NUL character, which no file name can")
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return Obstacle(OSError, f"cannot be used: {error.strerror}")
    return None


def _too_long(path: Path, existing: Path) -> Obstacle | None:
    """Where a name, or the whole path with a run's files below it, is too long to be made."""
    longest = os.pathconf(existing, "PC_NAME_MAX")
    for name in path.parts:
        if len(os.fsencode(name)) > longest:
            return Obstacle(OSError, f"holds a name of more than {longest} bytes")
    longest = os.pathconf(existing, "PC_PATH_MAX") - DEEPEST
    if len(os.fsencode(path)) > longest:
        return Obstacle(OSError, f"is longer than {longest} bytes")
    return None
