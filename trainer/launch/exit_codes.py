"""The exit codes by which a process tells how its run ended.

`python -m experiments.run` and `python -m trainer.launch` document them in their usage.
"""

import os

DONE = 0  # the run is finished
MISSED = 1  # it is finished, and a check of its experiment is missed; so ends a Python bug too
MISSED_APART = 43  # the same, where a launcher must tell it from a bug: it sets TERMWISE_MISSED
WRONG = (
    2  # something in the command, the configuration or the data is wrong; a restart will not help
)
PREEMPTED = 42  # stopped by SIGTERM and saved: the same command continues the run
PEER_LOST = 75  # another host is gone: start all of them again
INTERRUPTED = 130  # stopped by SIGINT
TERMINATED = 143  # the launcher was stopped by SIGTERM, and not all workers saved


def missed() -> int:
    """The code of a finished run that missed a check: MISSED, or what TERMWISE_MISSED says.

    Raises:
      ValueError: that is no exit code of its own.
    """
    text = os.environ.get("TERMWISE_MISSED") or str(MISSED)
    taken = (DONE, WRONG, PREEMPTED, PEER_LOST, INTERRUPTED, TERMINATED)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 128 or int(text) in taken:
        raise ValueError(
            f"TERMWISE_MISSED={text[:100]!r}: accepted is a number from 1 to 127 that means "
            f"nothing else ({', '.join(map(str, taken))} do)."
        )
    return int(text)
