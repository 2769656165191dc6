"""The values in a checkpoint's data files, read by the places of variables in their lists."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import tensorflow as tf

from trainer.persistence.errors import FileError

# what TensorFlow raises of damaged data files, by their kind of damage
UNREADABLE = (tf.errors.OpError, IndexError, ValueError, RuntimeError)

_KEY = re.compile(r"([^/]+)/(\d+)/\.ATTRIBUTES/VARIABLE_VALUE")
_PATTERN = re.compile(r"[*?\[\\]")  # TensorFlow takes a path with one of these for a pattern


class SavedVariable(NamedTuple):
    """One variable, of a run or of a checkpoint: its path, shape and dtype."""

    path: str
    shape: tuple
    dtype: str

    def __str__(self):
        return f"{self.path} {self.shape}"


@contextmanager
def open_tensors(path: str) -> Iterator[Any]:
    """TensorFlow's reader of the checkpoint `.../ckpt-<step>`.

    Where the path would be taken for a pattern of paths, the files are read through a link whose
    own path is none.
    """
    if not _PATTERN.search(path):
        yield tf.train.load_checkpoint(path)
        return
    with tempfile.TemporaryDirectory(prefix="termwise-") as temporary:
        link = os.path.join(temporary, "checkpoints")
        os.symlink(os.path.abspath(os.path.dirname(path)), link)
        yield tf.train.load_checkpoint(os.path.join(link, os.path.basename(path)))


def check_readable(path: str) -> str | None:
    """Why a checkpoint without a manifest cannot be read, in words; None where it can.

    Every tensor is read: TensorFlow then compares its own checksums.
    """
    try:
        with open_tensors(path) as tensors:
            for name in tensors.get_variable_to_shape_map():
                tensors.get_tensor(name)
    except UNREADABLE as error:
        return str(error).splitlines()[0][:120]
    return None


class CheckpointReader:
    """An open checkpoint.

    Args:
      path: `.../ckpt-<step>`.
      names: list name -> [[path, shape, dtype], ...] of a manifest; empty where there is none.
      tensors: what `open_tensors` gives.
    """

    def __init__(self, path: str, names: dict, tensors):
        self._path, self._names, self._tensors = path, names, tensors

    def variables(self) -> dict[str, list[SavedVariable]]:
        """What the files hold, by list; named by the manifest where it fits them."""
        with readable(self._path):
            shapes = self._tensors.get_variable_to_shape_map()
            dtypes = self._tensors.get_variable_to_dtype_map()
        places: dict[str, dict[int, SavedVariable]] = {}
        for key, shape in shapes.items():
            if matched := _KEY.fullmatch(key):
                part, place = matched[1], int(matched[2])
                variable = SavedVariable(f"{part}/{place}", tuple(shape), dtypes[key].name)
                places.setdefault(part, {})[place] = variable
        saved = {part: [by_place[i] for i in sorted(by_place)] for part, by_place in places.items()}
        for part, described in self._names.items():
            variables = saved.get(part, [])
            if len(described) == len(variables):
                pairs = zip(variables, described, strict=True)
                saved[part] = [variable._replace(path=path) for variable, (path, *_) in pairs]
        return saved

    def assign(self, part: str, places) -> None:
        """Gives variables their values.

        Args:
          part: the name of a list.
          places: (place in the list, variable) pairs.
        """
        for place, variable in places:
            with readable(self._path):
                value = self._tensors.get_tensor(f"{part}/{place}/.ATTRIBUTES/VARIABLE_VALUE")
            variable.assign(value)


@contextmanager
def open_checkpoint(path: str, names: dict) -> Iterator[CheckpointReader]:
    """Opens a checkpoint; arguments as of `CheckpointReader`.

    Raises:
      OSError: its files cannot be read.
    """
    with ExitStack() as stack:
        with readable(path):
            tensors = stack.enter_context(open_tensors(path))
        yield CheckpointReader(path, names, tensors)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turns what TensorFlow raises of damaged files into one OSError."""
    try:
        yield
    except UNREADABLE as error:
        reason = str(error).splitlines()[0][:200]
        raise FileError(
            f"{path} cannot be read: {reason}. Start again: the newest whole checkpoint is looked "
            "for anew."
        ) from error
