"""Programs that XLA has compiled, kept in a folder: TensorFlow's persistent cache, made safe.

TensorFlow looks a program up by its own fingerprint alone, and ends a run that meets a damaged file
or a full disk. So each kind of machine, version and flags has a folder of its own, and what is no
whole file is removed before TensorFlow sees it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

from experiments.cli.configuration import ConfigurationError, printable

VARIABLE, FLAG = "TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory"
ABANDONED = 3600  # seconds: a file that is still being written is younger
# what a compiled program depends on beside the program
PROCESSOR = ("model name", "flags", "CPU implementer", "CPU part", "Features")
FILES_OF_GPUS = ("driver/nvidia/version", "driver/nvidia/gpus/*/information")


def use(folder: str, tf) -> Path:
    """Has XLA keep what it compiles below a folder, and load it from there.

    Args:
      folder: is made where it is missing; may be deleted between two runs.
      tf: TensorFlow, which has not looked for devices yet: it reads its flags then.
    Returns:
      the folder for this machine.
    Raises:
      ConfigurationError: nothing can be written there, `TF_XLA_FLAGS` names another, or TensorFlow
        has started.
    """
    flags = os.environ.get(VARIABLE, "")
    if FLAG in flags:
        raise ConfigurationError(
            f"--xla_cache: {VARIABLE} names a folder already, {printable(flags)}. Give one of them."
        )
    if '"' in folder:  # TensorFlow knows no other way to write a space
        raise ConfigurationError(f"--xla_cache={printable(folder)}: give a path without quotes.")
    place = Path(os.path.abspath(folder), f"tensorflow-{tf.__version__}-{_machine()}")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"x")
        _clean(place)
    except OSError as error:
        raise ConfigurationError(
            f"--xla_cache={printable(folder)}: {error.strerror}. Give a folder that can be written."
        ) from None
    os.environ[VARIABLE] = f'{flags} {FLAG}="{place}"'.strip()
    _check_not_started(tf)  # which has TensorFlow read its flags
    return place


def check_kept(folder: str, place: Path) -> None:
    """Says so where XLA has kept nothing in the folder for this machine."""
    if not any(place.glob("*.pb")):
        print(
            f"--xla_cache={printable(folder)}: XLA has kept nothing. It compiles where the "
            "experiment's Trainer has jit_compile=True or 'auto'.",
            flush=True,
        )


def _check_not_started(tf) -> None:
    """Raises where TensorFlow has its devices."""
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    try:
        for count in (threads + 1, threads):  # nothing changes, where it may be changed
            tf.config.threading.set_intra_op_parallelism_threads(count)
    except RuntimeError:
        raise ConfigurationError(
            "--xla_cache: TensorFlow has started, and must know it before. Start a new process."
        ) from None


def _machine() -> str:
    """A name for the processor, the GPUs and the flags of XLA that this process has."""
    told = [os.environ.get(name, "") for name in ("XLA_FLAGS", VARIABLE)]
    proc = Path("/proc")
    for line in _text(proc / "cpuinfo").partition("\n\n")[0].splitlines():
        if line.startswith(PROCESSOR):
            told.append(line)
    for pattern in FILES_OF_GPUS:
        told += [_text(path) for path in sorted(proc.glob(pattern))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _clean(place: Path) -> None:
    """Removes what was not written to its end."""
    for path in place.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process starts here, or ends a file
            old = time.time() - path.stat().st_mtime > ABANDONED
            if (path.suffix == ".tmp" and old) or (path.suffix == ".pb" and not whole(path)):
                path.unlink()


def whole(path: Path) -> bool:
    """Whether a file is a message of protocol buffers from its beginning to its end.

    A file that lost its end, or of which a crash left zeros, is none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            tag = _number(file)
            if tag is None or tag >> 3 == 0 or tag & 7 not in (0, 2):
                return False
            value = _number(file)
            if value is None:
                return False
            if tag & 7 == 2:
                file.seek(value, os.SEEK_CUR)
        return 0 < size == file.tell()


def _number(file) -> int | None:
    """The next varint; None where the file ends in it, or it is none."""
    found = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            return None
        found |= (byte[0] & 127) << (7 * place)
        if byte[0] < 128:
            return found
    return None
