"""Which exceptions are answers to what the user gave, and which are bugs to be traced."""

from __future__ import annotations

import contextlib
import re
import sysconfig
import traceback
from pathlib import Path

from experiments.cli.configuration import ConfigurationError, one_line

HOUSE = Path(__file__).resolve().parents[2]
PACKAGES = tuple(HOUSE / name for name in ("trainer", "losses", "experiments"))
FRAME = re.compile(r'File "(.+?)", line (\d+), in .*\n\s*(.*)')
LIBRARIES = tuple(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib"))


@contextlib.contextmanager
def user_errors(building: bool = False):
    """Turns what Termwise raises about its input into a `ConfigurationError`; bugs pass through.

    Args:
      building: bool; what Keras and TensorFlow say about a value is the user's too, as long as
        nothing is trained. It is shown with the place it came from.
    Raises:
      ConfigurationError: instead of such an exception, from it.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        message, frames = _traced(error)
        if _said_by_us(frames[-1]):
            raise ConfigurationError(message) from error
        if building and isinstance(error, _of_a_value()):
            kind = type(error).__name__
            raise ConfigurationError(f"{kind}: {one_line(message)}\n  {_place(frames)}") from error
        raise


def _of_a_value() -> tuple:
    """What Keras and TensorFlow raise where a value is wrong."""
    from tensorflow.errors import OpError

    return ValueError, TypeError, OverflowError, OpError


def _ours(frame) -> bool:
    return any(map(Path(frame.filename).is_relative_to, PACKAGES))


def _said_by_us(frame) -> bool:
    """Whether a `raise` of these packages says it, and not Python about a bug in them."""
    return _ours(frame) and (frame.line or "").startswith("raise")


def _traced(error: Exception) -> tuple[str, list]:
    """The message, and the frames it came through; AutoGraph writes its own into the message."""
    message, frames = str(error), list(traceback.extract_tb(error.__traceback__))
    if message.startswith("in user code:"):
        inner = list(FRAME.finditer(message))
        frames += [traceback.FrameSummary(m[1], int(m[2]), "", line=m[3]) for m in inner]
        if inner:
            message = message[inner[-1].end() :]
        message = re.sub(r"^\w+Error: ", "", message.strip())
    return message, frames


def _place(frames) -> str:
    """The last place that a reader can look up and that is not a library's."""
    places = [f for f in frames if Path(f.filename).is_file()]
    readable = [
        f for f in places if _ours(f) or not any(map(Path(f.filename).is_relative_to, LIBRARIES))
    ]
    place = (readable or frames)[-1]
    path = Path(place.filename)
    path = path.relative_to(HOUSE) if path.is_relative_to(HOUSE) else path
    return f"from {path}, line {place.lineno}; --traceback shows the whole way"
