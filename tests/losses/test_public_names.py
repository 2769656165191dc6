"""What `losses` makes public, and what else it lets reach."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import losses

ROOT = Path(losses.__file__).parent


def test_the_packages_of_losses_come_with_it():
    command = "import losses; losses.balancing.PCGrad(); losses.schedules.Linear(0.0, 1.0, 5)"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["Described", "Layout", "Objective", "reduce_values"])
def test_the_machinery_of_a_loop_is_reached_but_not_listed(name):
    assert name not in losses.__all__
    assert getattr(losses, name).__module__.startswith("losses.objective.")


def test_the_two_steps_are_not_classes_of_one_name():
    assert losses.Step.__name__ == "Step"
    assert "Step" not in losses.schedules.__all__


def test_the_registry_knows_no_loss_of_this_library():
    tree = ast.parse((ROOT / "objective" / "registry.py").read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for node in ast.walk(tree):
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    assert "losses" not in modules
    assert not [name for name in modules if name.startswith("losses.catalog")]
