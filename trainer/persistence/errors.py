"""Errors of files: of the system's classes, each a `TermwiseError` too, as it says what to do."""

from __future__ import annotations

from losses.errors import TermwiseError


class FileError(TermwiseError, OSError):
    """A file of a run cannot be written or read."""


class FileForbiddenError(FileError, PermissionError):
    """There is no permission to write."""


class FileMissingError(FileError, FileNotFoundError):
    """A file or a folder is not, or no longer, there."""


class NotAFolderError(FileError, NotADirectoryError):
    """A file is where a folder is needed."""


class IsAFolderError(FileError, IsADirectoryError):
    """A folder is where a file is needed."""


class StrangerError(FileError, FileExistsError):
    """Something that is not the run's stands where a file of the run is to be."""


class WorkdirTakenError(FileError, BlockingIOError):
    """Another process, or another Trainer of this one, writes in the workdir."""


_OF_SYSTEM: dict[type[OSError], type[FileError]] = {
    PermissionError: FileForbiddenError,
    FileNotFoundError: FileMissingError,
    NotADirectoryError: NotAFolderError,
    IsADirectoryError: IsAFolderError,
    FileExistsError: StrangerError,
    BlockingIOError: WorkdirTakenError,
}


def error_class(kind: type[OSError]) -> type[FileError]:
    """The class here that is also of the system's class `kind`; `FileError` for other ones."""
    return _OF_SYSTEM.get(kind, FileError)
