"""TensorFlow's start: quiet, with the devices that were asked for, its GPUs set up for training."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

from experiments.cli import xla_cache
from experiments.cli.configuration import ConfigurationError

# what TensorFlow's C++ code says at every import, before its log level can be set
NOISE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} ")
# and of a GPU, which is news only where there is a driver for one
CUDA = re.compile(rb"E\d{4} .*\bcuda_")
DRIVER = "/proc/driver/nvidia/version"


def start_tensorflow(virtual_devices: int | None = None, cache: str | None = None) -> Path | None:
    """Imports TensorFlow without its chatter; prepares the GPUs, or makes logical CPU devices.

    Args:
      virtual_devices: int, logical CPU devices instead of the machine's own devices; None for
        those it has.
      cache: the folder of `--xla_cache`; None: nothing is kept.
    Returns:
      what `cache` is for this machine.
    Raises:
      ConfigurationError: this process has used its devices already, or the folder cannot be used.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_noise():
        import tensorflow as tf

        # before it looks for devices, when it reads its flags
        place = None if cache is None else xla_cache.use(cache, tf)
        gpus = tf.config.list_physical_devices("GPU")
    if virtual_devices is None:
        from trainer.distributed.devices import prepare_gpus

        prepare_gpus()
        return place
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * virtual_devices
        )
    except RuntimeError:
        have = len(tf.config.list_logical_devices("CPU"))
        if have != virtual_devices:
            raise ConfigurationError(
                f"--virtual_devices={virtual_devices}: TensorFlow has started with {have} already, "
                "and devices are made before. Start a new process."
            ) from None
    return place


@contextlib.contextmanager
def _without_noise():
    """Holds back what is written to stderr, C++ code included; lets through what is not `NOISE`."""
    sys.stderr.flush()
    no_driver = not os.path.exists(DRIVER)
    with tempfile.TemporaryFile() as written:
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not NOISE.match(line) and not (CUDA.match(line) and no_driver):
                    sys.stderr.write(line.decode(errors="replace"))
