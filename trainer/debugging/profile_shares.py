"""Where the time of profiled steps went, read from the file that profiling.py has written.

    profile of steps 11-20: compute 71 %, input 12 %, reduction 5 %, host 12 % of 41.2 ms (...)

The time is that of the clock on the wall, from the beginning of the first profiled step to the
end of the last; what is due between them (a log row, an evaluation, a checkpoint) is part of it.
Every moment counts once, for the first of these that is at work anywhere on this host:

    compute    an operation of a step runs: a kernel of a GPU's stream; without a GPU an operation
               of TensorFlow or of a program of XLA
    reduction  a collective operation, from its start to its end: its wait for others is in it
    input      the loop waits for the next batch of the pipeline; on a GPU also copies to it
    host       none of them: Python, and TensorFlow between the operations

So work of the pipeline that hides behind computing costs nothing, as it should: it would go no
faster without. Arrays are indexed (and augmented) by operations of the loop: compute. A sum over
replicas that is made without a collective (by copies and AddN) cannot be told from computing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from losses.errors import TermwiseError
from trainer.ledger.format import round_to_sum

KINDS = ("compute", "reduction", "input", "host")  # the first at work takes the moment
SHOWN = ("compute", "input", "reduction", "host")
WINDOW = "termwise profile"  # the event that spans the profiled steps

_OPERATION = re.compile(r":(_?[A-Z]\w*)$")  # an operation's event is named `name:Type`
_REDUCES = re.compile(r"Collective|_?Nccl")  # types of operations
_READS = re.compile(r"IteratorGetNext|QueueDequeue")  # types; `IteratorGetNextOp::DoCompute`
_OF_XLA = ("CpuExecutable::", "ThunkExecutor::")
_HLO_SUM = re.compile(r"all-reduce|all-gather|reduce-scatter|collective")


class Shares(NamedTuple):
    """Seconds of the profiled steps, by what they went to; they add up to the time that passed."""

    compute: float
    reduction: float
    input: float
    host: float


def shares_line(shares: Shares, steps: int) -> str:
    """The shares in whole percents that add up to 100.

    Example:
      >>> shares_line(Shares(compute=0.030, reduction=0.001, input=0.006, host=0.003), steps=10)
      'compute 75 %, input 15 %, reduction 3 %, host 7 % of 40 ms (4 ms a step)'
    """
    total = sum(shares)
    percents = round_to_sum([100 * part / total for part in shares], 0)
    by_kind = dict(zip(KINDS, percents, strict=True))
    parts = ", ".join(f"{kind} {by_kind[kind]:.0f} %" for kind in SHOWN)
    return f"{parts} of {1e3 * total:.3g} ms ({1e3 * total / steps:.3g} ms a step)"


def newest(folder) -> Path:
    """The profile that was written last below a log folder.

    Raises:
      FileNotFoundError: there is none.
    """
    files = list(Path(folder).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"no profile in {folder}. Was it recorded?")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def read_shares(file) -> Shares:
    """What the profiled steps of a file went to.

    Args:
      file: an `*.xplane.pb` that a `Profile` wrote; two seconds per million events.
    Raises:
      ValueError: it was not written by a `Profile`, or not to its end.
    """
    # not documented, but in the wheel: what tf.profiler writes has no other reader without a plugin
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    try:
        space = xplane_pb2.XSpace.FromString(Path(file).read_bytes())
    except DecodeError as error:
        raise TermwiseError(f"{file} is no whole profile ({error}). Record it again.") from error
    return attribute(space)


def attribute(space) -> Shares:
    """The shares of an XSpace (planes of lines of events: devices, their streams or threads).

    Raises:
      ValueError: no event spans the profiled steps.
    """
    lines = [(plane, line) for plane in space.planes for line in plane.lines if line.events]
    on_gpu = any(_stream(plane, line) for plane, line in lines)
    spans: dict[str, list] = {kind: [] for kind in KINDS}
    window = None
    for plane, line in lines:
        kinds: dict = {}  # of the line's events by their metadata, which hold the name
        for event in line.events:
            number = event.metadata_id
            if number not in kinds:
                kinds[number] = _kind(plane, line, event, on_gpu)
            kind = kinds[number]
            start = line.timestamp_ns * 1000 + event.offset_ps
            if kind == WINDOW:
                window = start, start + event.duration_ps
            elif kind is not None:
                spans[kind].append((start, start + event.duration_ps))
    if window is None:
        raise TermwiseError(f"The profile has no event {WINDOW!r}, which spans the profiled steps.")
    covered: list = []
    reached = [0]  # covered by the first kind, by the first two, ...
    for kind in KINDS[:-1]:
        covered += spans[kind]
        reached.append(covered_length(covered, window))
    reached.append(window[1] - window[0])
    return Shares(*(1e-12 * float(length) for length in np.diff(reached)))


def covered_length(intervals, window) -> int:
    """How much of a window a set of intervals covers.

    Args:
      intervals: (start, end) pairs of whole numbers, in any order, which may overlap.
      window: (start, end).

    Example:
      >>> covered_length([(0, 4), (2, 6), (8, 20)], window=(1, 10))
      7
    """
    if not intervals:
        return 0
    starts, ends = np.clip(np.asarray(intervals, np.int64), *window).T
    order = np.argsort(starts)
    starts, ends = starts[order], ends[order]
    reached = np.maximum.accumulate(np.concatenate([starts[:1], ends[:-1]]))  # before each one
    return int(np.maximum(ends - np.maximum(starts, reached), 0).sum())


def _kind(plane, line, event, on_gpu) -> str | None:
    """What an event is: one of KINDS, WINDOW, or None where others tell of that time."""
    name = plane.event_metadata[event.metadata_id].name
    if name == WINDOW:
        return WINDOW
    if _stream(plane, line):
        return _kind_of_kernel(name.lower())
    if not plane.name.startswith("/host:CPU"):
        return None
    if line.name.startswith("collective_ops"):
        return "reduction"
    operation = _OPERATION.search(name) if "::" not in name else None
    if name.endswith("::DoCompute") and _READS.match(name):
        return "input"
    if line.name.startswith("tf_data"):  # the pipeline's threads: only the wait for them counts
        return None
    if operation is not None and _READS.match(operation[1]):
        return "input"
    if operation is not None and _REDUCES.match(operation[1]):
        return "reduction"
    stats = {plane.stat_metadata[stat.metadata_id].name for stat in event.stats}
    if "hlo_op" in stats and _HLO_SUM.match(name):
        return "reduction"
    computes = operation is not None or "hlo_op" in stats or name.startswith(_OF_XLA)
    return "compute" if computes and not on_gpu else None  # with a GPU the host only starts it


def _kind_of_kernel(name) -> str | None:
    # names as NVIDIA's and TensorFlow's sources have them; not yet seen on a GPU here
    if "nccl" in name or "memcpyp2p" in name:
        return "reduction"
    if "memcpyh2d" in name:
        return "input"
    return None if "memcpyd2h" in name else "compute"


def _stream(plane, line) -> bool:
    return plane.name.startswith("/device:GPU") and line.name.startswith("Stream")
