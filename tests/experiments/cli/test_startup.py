"""TensorFlow starts without its chatter, and with the devices that were asked for."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from experiments.cli.configuration import ConfigurationError
from experiments.cli.startup import start_tensorflow

ROOT = Path(__file__).resolve().parents[3]


def python(program):
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_tensorflow_starts_quietly_with_virtual_devices():
    done = python(
        "from experiments.cli.startup import start_tensorflow\n"
        "start_tensorflow(virtual_devices=3)\n"
        "import tensorflow as tf\n"
        "print(len(tf.config.list_logical_devices('CPU')))"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_only_the_chatter_is_held_back():
    done = python(
        "import os, sys\n"
        "from experiments.cli.startup import _without_noise\n"
        "with _without_noise():\n"
        "    os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called\\n'\n"
        "      b'I0000 00:00:1 1 port.cc:153] oneDNN custom operations are on\\nkept\\n'\n"
        "      b'F0000 00:00:1 1 cpu.cc:1] fatal\\n')\n"
        "    print('kept too', file=sys.stderr)\n"
    )
    assert done.stderr == "kept\nF0000 00:00:1 1 cpu.cc:1] fatal\nkept too\n"


def test_what_an_import_that_fails_has_said_is_shown():
    done = python(
        "import os\n"
        "from experiments.cli.startup import _without_noise\n"
        "with _without_noise():\n"
        "    os.write(2, b'the reason\\n')\n"
        "    raise ImportError('no')\n"
    )
    assert done.stderr.startswith("the reason\nTraceback")
    assert done.stderr.endswith("ImportError: no\n")


def test_devices_cannot_be_made_twice():
    have = len(tf.config.list_logical_devices("CPU"))
    start_tensorflow(virtual_devices=have)
    with pytest.raises(ConfigurationError, match=f"has started with {have} already"):
        start_tensorflow(virtual_devices=have + 1)
