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
        kind, message, frames = _traced(error)
        if _is_on_purpose(error, kind):
            raise ConfigurationError(message) from error
        if building and isinstance(error, _of_a_value()):
            place = _place(frames)
            raise ConfigurationError(f"{kind}: {one_line(message)}\n  {place}") from error
        raise


def _is_on_purpose(error: Exception, kind: str) -> bool:
    """Whether Termwise raised an error to tell the user something.

    Args:
      kind: the name of the class that was raised, where AutoGraph has put an error of its own in
        the place of it.
    """
    from losses.errors import TermwiseError  # imports TensorFlow, which has started here

    if isinstance(error, TermwiseError):
        return True
    return _is_rewritten(error) and kind in _names_below(TermwiseError)


def _names_below(base: type) -> set[str]:
    """The names of a class and of all classes made of it."""
    names = {base.__name__}
    kind: type
    for kind in base.__subclasses__():
        names |= _names_below(kind)
    return names


def _is_rewritten(error: Exception) -> bool:
    """Whether AutoGraph has put this error in the place of another one."""
    return str(error).startswith("in user code:")


def _ours(frame) -> bool:
    return any(map(Path(frame.filename).is_relative_to, PACKAGES))


def _of_a_value() -> tuple:
    """What Keras and TensorFlow raise where a value is wrong."""
    from tensorflow.errors import OpError

    return ValueError, TypeError, OverflowError, OpError


def _traced(error: Exception) -> tuple[str, str, list]:
    """The name of an exception's class, its message, and the frames it came through.

    AutoGraph replaces an exception by one of its own, and writes all three into the message.
    """
    kind, message = type(error).__name__, str(error)
    frames = list(traceback.extract_tb(error.__traceback__))
    if _is_rewritten(error):
        inner = list(FRAME.finditer(message))
        frames += [traceback.FrameSummary(m[1], int(m[2]), "", line=m[3]) for m in inner]
        if inner:
            message = message[inner[-1].end() :]
        message = message.strip()
        if named := re.match(r"(\w+): ", message):
            kind, message = named[1], message[named.end() :]
    return kind, message, frames


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
