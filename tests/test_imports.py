"""The house: imports point one way; every module is small, introduced and named for what it is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "losses": {"losses"},
    "trainer": {"losses", "trainer"},
    "experiments": {"losses", "trainer", "experiments"},
}
MAY_IMPORT_TENSORBOARD = {"trainer/ledger/tensorboard.py", "trainer/report/plugin.py"}
OUR_OTHER_FOLDERS = {"tests", "benchmarks"}
NAMES_THAT_SAY_NOTHING = {"utils", "helpers", "common", "misc", "manager"}
LONGEST = 350  # lines


def modules(root):
    """Path below `root` -> source, of every module of the three packages."""
    return {
        path.relative_to(root): path.read_text(encoding="utf-8")
        for package in MAY_IMPORT
        for path in sorted((root / package).rglob("*.py"))
    }


def imported_names(path, source):
    """Dotted names that the module imports, wherever in it; `from a import b` gives "a.b"."""
    for node in ast.walk(ast.parse(source, filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: len(path.parts) - node.level] if node.level else ()
            base = [*above, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def is_within(name, package):
    return name == package or name.startswith(package + ".")


def import_faults(root):
    """One line for each import that the house does not allow."""
    faults = []
    for path, source in modules(root).items():
        package = path.parts[0]
        forbidden = (MAY_IMPORT.keys() | OUR_OTHER_FOLDERS) - MAY_IMPORT[package]
        if path.as_posix() not in MAY_IMPORT_TENSORBOARD:
            forbidden = forbidden | {"tensorboard"}
        if package != "experiments":
            forbidden = forbidden | {"absl.flags", "absl.app", "ml_collections"}
        faults += [
            f"{path.as_posix()} imports {name}"
            for name in imported_names(path, source)
            if any(is_within(name, other) for other in forbidden)
        ]
    return faults


def shape_faults(root):
    """One line for each module that is badly named, not introduced or too long."""
    faults = []
    for path, source in modules(root).items():
        where = path.as_posix()
        faults += [
            f"{where}: '{part}' says nothing about what is in it"
            for part in path.with_suffix("").parts
            if NAMES_THAT_SAY_NOTHING & set(part.split("_"))
        ]
        if not ast.get_docstring(ast.parse(source)):
            faults.append(f"{where} has no docstring")
        length = len(source.splitlines())
        if length > LONGEST:
            faults.append(f"{where} has {length} lines, more than {LONGEST}")
    return faults


def test_imports_point_from_experiments_to_trainer_to_losses():
    assert import_faults(ROOT) == []


def test_every_module_is_named_introduced_and_short():
    assert shape_faults(ROOT) == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_each_package_is_there_to_be_looked_at(package):
    assert Path(package, "__init__.py") in modules(ROOT)


@pytest.fixture
def house(tmp_path):
    """A function that writes one module into an otherwise empty house and gives its root."""

    def write(path, source):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("path", "line", "name"),
    [
        ("losses/term.py", "import trainer", "trainer"),
        ("losses/deep/term.py", "from trainer.loop import run", "trainer.loop.run"),
        ("losses/term.py", "from ..trainer import loop", "trainer.loop"),
        ("trainer/loop.py", "def f():\n    import experiments.run", "experiments.run"),
        ("trainer/loop.py", "from tests import conftest", "tests.conftest"),
        ("trainer/loop.py", "import tensorboard.summary as s", "tensorboard.summary"),
        ("experiments/run.py", "from tensorboard import program", "tensorboard.program"),
        ("trainer/ledger/tensorboard.py", "from absl import flags", "absl.flags"),
        ("trainer/loop.py", "from absl.flags import FLAGS", "absl.flags.FLAGS"),
        ("trainer/report/runs.py", "import tensorboard", "tensorboard"),
        ("losses/term.py", "from absl import app", "absl.app"),
        ("trainer/loop.py", "import ml_collections", "ml_collections"),
    ],
)
def test_a_forbidden_import_is_found(house, path, line, name):
    assert import_faults(house(path, line)) == [f"{path} imports {name}"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("trainer/loop.py", "import losses, numpy\nfrom absl import logging"),
        ("trainer/ledger/tensorboard.py", "from tensorboard.plugins import custom_scalar"),
        ("trainer/report/plugin.py", "from tensorboard.plugins import base_plugin"),
        (
            "trainer/loop.py",
            "from trainer.ledger import tensorboard\nfrom . import tensorboard",
        ),
        ("experiments/run.py", "from absl import app, flags\nimport ml_collections, trainer"),
    ],
)
def test_an_allowed_import_is_not_a_fault(house, path, line):
    assert import_faults(house(path, line)) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        (
            "losses/utils.py",
            '"""Doc."""',
            "losses/utils.py: 'utils' says nothing about what is in it",
        ),
        (
            "trainer/common/a.py",
            '"""Doc."""',
            "trainer/common/a.py: 'common' says nothing about what is in it",
        ),
        (
            "trainer/checkpoint_manager.py",
            '"""Doc."""',
            "trainer/checkpoint_manager.py: 'checkpoint_manager' says nothing about what is in it",
        ),
        ("losses/term.py", "x = 1", "losses/term.py has no docstring"),
        (
            "losses/term.py",
            '"""Doc."""\n' + "x = 1\n" * 350,
            "losses/term.py has 351 lines, more than 350",
        ),
    ],
)
def test_a_badly_made_module_is_found(house, path, source, fault):
    assert shape_faults(house(path, source)) == [fault]


def test_a_module_of_350_lines_is_short_enough(house):
    assert shape_faults(house("losses/term.py", '"""Doc."""\n' + "x = 1\n" * 349)) == []
