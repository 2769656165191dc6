"""The cause in what TensorFlow and Keras raise: one sentence, not two hundred lines of graph."""

from __future__ import annotations

import os
import re
from pathlib import Path

import tensorflow as tf

from losses.errors import TermwiseError

# what a step raises where the data, the model or a term is wrong, not the machine or another host
OF_INPUT = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnknownError,  # an exception in the user's Python code inside a pipeline
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.DataLossError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
)

_STEP = str(Path(__file__).parent / "step")  # stands in the trace of what a step has made
_LONGEST = 300  # characters of a cause
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# "{{function_node __wrapped__...}} " in front, " [Op:IteratorGetNext] name: " behind
_TAGS = re.compile(r"\{\{\w*node [^}]*\}\}|\s*\[Op:[^\]]*\](\s*name:\s*\S*)?")
# an exception of Python, as tf.py_function and from_generator report it
_PYTHON = re.compile(
    r"^\s*(?:[^\n]*?: )??(?P<kind>[A-Za-z_][\w.]*): (?P<text>[^\n]*(?:\n(?!Traceback )[^\n]*)*)\n"
    r"Traceback \(most recent call last\):\n",
    re.MULTILINE,
)
_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+)', re.MULTILINE)
_ELSEWHERE = re.compile(r"site-packages|__autograph_generated_file")
_XLA = re.compile(
    r"Detected unsupported operations when trying to compile graph .*? on \w+: (?P<op>\w+)"
)
# TensorFlow's flag of the folder in which XLA keeps what it has compiled, and what it says of it
_CACHE = re.compile(r'--tf_xla_persistent_cache_directory=(?:"([^"]+)"|(\S+))')
_OF_CACHE = re.compile(
    r"xla_compile_cache|Serialized cache key does not match|Read less bytes than requested"
)
# what a pipeline refuses by `trainer.data.lengths`, which is a sentence
_REFUSED = re.compile(r"assertion failed: \[(?P<said>[^\n]*has parts of different lengths[^\n]*)\]")
# lines of a graph error that say where, not what
_NOISE = re.compile(
    r"Graph execution error|Detected at node|Original stack trace|Errors may have originated"
    r"|Input Source operations|Exception encountered when calling|\d+ root error|\s*File \""
    r"|<stack traces unavailable>|in user code:|Function call stack|The op is created at"
    r"|\s*\[\[|\s*$|\s*\^+|tf2xla conversion failed"
)


def explain(error: BaseException) -> str:
    """What went wrong, first: the cause in one line, and the term or the place it came from.

    Args:
      error: what TensorFlow or Keras raised.
    Returns:
      str without a line break, at most a few hundred characters, without a final full stop. What
      Python code of a user's has raised is not cut.

    Example:
      >>> try:
      ...     tf.function(lambda x: tf.gather(x, [7]))(tf.ones(3))
      ... except tf.errors.InvalidArgumentError as error:
      ...     explain(error)
      'indices[0] = 7 is not in [0, 3)'
    """
    text = _plain(error)
    raised = _PYTHON.search(text)
    if raised:  # in its author's words, however many
        return f"{raised['kind']}: {raised['text'].strip()}" + _user_place(text[raised.end() :])
    if refused := _REFUSED.search(text):
        cause = refused["said"].replace("\\'", "'")
    elif unsupported := _XLA.search(text):
        cause = f"XLA cannot compile the operation {unsupported['op']}. Pass jit_compile=False"
    else:
        cause = _first_line(text) or type(error).__name__
    notes = [note.strip(" ()") for note in getattr(error, "__notes__", ()) if "while" in note]
    return _one_line(cause) + "".join(f", {_one_line(note)}" for note in notes[:1])


def cache_failure(error: BaseException) -> TermwiseError | None:
    """The exception to raise where XLA's persistent cache is the cause; None where it is not.

    TensorFlow ends a step that meets a damaged file in it, or has no space for another.
    """
    folder = _CACHE.search(os.environ.get("TF_XLA_FLAGS", ""))
    if not folder or not _OF_CACHE.search(_plain(error)):
        return None
    return TermwiseError(
        f"XLA cannot use what it keeps in {folder[1] or folder[2]}: {explain(error)}. Delete that "
        "folder, or give it a disk with space."
    )


def reading_failure(source, error: Exception) -> Exception:
    """The exception to raise where evaluation or prediction has met one of `OF_INPUT`."""
    if (failure := cache_failure(error)) is not None:
        return failure
    if raised_by_user_code(error):
        return TermwiseError(user_failure(source, error))
    return TermwiseError(f"{source.what} cannot be evaluated: {explain(error)}.")


def raised_by_user_code(error: BaseException) -> bool:
    """Whether an exception of Python, in a generator or a tf.py_function, is the cause."""
    return _PYTHON.search(_plain(error)) is not None


def user_failure(source, error: BaseException) -> str:
    """The words of such an exception, and then where it came up: in the data, or in a step."""
    of_step = _STEP in str(error)
    where = f"Raised in a step of {source.what}" if of_step else f"{source.what} cannot be read"
    return f"{explain(error)}. {where}."


def _plain(error: BaseException) -> str:
    return _TAGS.sub("", _COLOURS.sub("", str(error)))


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if not _NOISE.match(line)]
    lines = [line for line in lines if line][:2]
    # "... Error encountered:" and what it was
    return " ".join(lines) if lines and lines[0].endswith(":") else "".join(lines[:1])


def _user_place(trace: str) -> str:
    """The innermost place that is not TensorFlow's, as " (file.py, line 3)"; or nothing."""
    frames = [f for f in _FRAME.finditer(trace) if not _ELSEWHERE.search(f["file"])]
    return f" ({Path(frames[-1]['file']).name}, line {frames[-1]['line']})" if frames else ""


def _one_line(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
