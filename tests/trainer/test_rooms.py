"""The rooms at the rim name what others may use, and all of it is there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    "trainer",
    "trainer.launch",
    "trainer.distributed",
    "trainer.ledger",
    "trainer.persistence",
]


@pytest.mark.parametrize("room", [*ROOMS, "experiments.cli"])
def test_what_a_room_names_is_there(room):
    module = importlib.import_module(room)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("room", ["trainer", "trainer.persistence"])
def test_a_name_that_a_room_has_not_is_an_attribute_error(room):
    with pytest.raises(AttributeError, match=f"module '{room}' has no attribute 'nothing'"):
        getattr(importlib.import_module(room), "nothing".strip())


def test_what_is_asked_before_tensorflow_starts_needs_none():
    rooms = (
        "trainer, trainer.launch, trainer.persistence, trainer.persistence.disk, experiments.cli"
    )
    program = (
        f"import sys, {rooms}; assert not {{'tensorflow', 'keras', 'losses'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
