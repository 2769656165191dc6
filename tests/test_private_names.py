"""Private names of other libraries are used only where WORKSPACE.md says why.

Its section "Private names" holds the table `name | where | why no public one | checked on`. A name
used but not listed, or listed but not used, is a fault, file by file. An attribute that starts with
an underscore counts unless our own code defines one of that name; then it is ours everywhere.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("losses", "trainer", "experiments")
PRIVATE_PATH = re.compile(
    r"(keras\.src|tensorflow\.(python|compiler|core))(\.|$)|.*\b__internal__\b"
)
BY_TEXT = {"getattr", "hasattr", "setattr", "delattr"}
DOCUMENTED = {"_asdict", "_replace", "_fields", "_make"}  # the public interface of namedtuple


def is_private(name):
    """Whether one part of a dotted name is private: `_x`, but not `_` nor `__x__`."""
    return (
        name.startswith("_")
        and name.strip("_") != ""
        and not re.fullmatch(r"__\w+__", name)
        and name not in DOCUMENTED
    )


def is_private_path(path):
    return PRIVATE_PATH.match(path) is not None or any(map(is_private, path.split(".")))


def defined_names(tree):
    """Attributes the module makes: functions, classes, `x = ` of a class or module, `self.x = `."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) in {"self", "cls"}
        ):
            yield node.attr


class PrivateNames(ast.NodeVisitor):
    """Collects in `found` the private names of others that a module uses."""

    def __init__(self, ours):
        self.ours = ours
        self.found = set()

    def visit_Import(self, node):
        self.found |= {alias.name for alias in node.names if is_private_path(alias.name)}

    def visit_ImportFrom(self, node):
        if node.level or node.module.split(".")[0] in PACKAGES:
            return
        paths = {f"{node.module}.{alias.name}" for alias in node.names}
        self.found |= {path for path in paths if is_private_path(path)}

    def visit_Attribute(self, node):
        path = ast.unparse(node)
        if re.fullmatch(r"[\w.]+", path) and PRIVATE_PATH.match(path):
            self.found.add(path)
            return
        self.add_attribute(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node):
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and type(a.value) is str]
        self.found |= {text for text in texts if PRIVATE_PATH.match(text)}
        if isinstance(node.func, ast.Name) and node.func.id in BY_TEXT:
            for text in texts:
                self.add_attribute(text)
        self.generic_visit(node)

    def add_attribute(self, name):
        if is_private(name) and name not in self.ours:
            self.found.add(name)


def used_names(root):
    """{(name, path of the file)} of the private names that the three packages use."""
    trees = {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    ours = {name for tree in trees.values() for name in defined_names(tree)}
    used = set()
    for path, tree in trees.items():
        visitor = PrivateNames(ours)
        visitor.visit(tree)
        used |= {(name, path) for name in visitor.found}
    return used


def table_rows(page):
    """The rows of the table in the section "Private names", each a list of cells."""
    section = re.search(r"^#+ Private names\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^\|(.+)\|\s*$", section.group(1) if section else "", re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def faults(root, page):
    """One line for each way in which the table and the code differ."""
    found, listed = [], set()
    for row in table_rows(page):
        if len(row) != 4 or not all(row):
            found.append(f"expected 4 filled cells, found: {' | '.join(row)}")
            continue
        name = row[0].strip("`").removesuffix("()")
        if not PRIVATE_PATH.match(name):
            name = name.split(".")[-1]
        files = re.findall(r"[\w./-]+\.py", row[1])
        listed |= {(name, file) for file in files}
        if not files:
            found.append(f"{name} is listed without the files it is used in")
    used = used_names(root)
    found += [f"{name} is used in {file} but not listed" for name, file in sorted(used - listed)]
    found += [f"{name} is listed for {file} but not used" for name, file in sorted(listed - used)]
    return found


def test_private_names_are_those_of_the_table():
    page = ROOT / "WORKSPACE.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    assert faults(ROOT, text) == []


@pytest.fixture
def house(tmp_path):
    """A function that writes one module, trainer/loop.py, and gives the root above it."""

    def write(source):
        (tmp_path / "trainer").mkdir()
        (tmp_path / "trainer/loop.py").write_text(source, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("layer._keras_mask", "_keras_mask"),
        ("f(x)[0]._keras_history.operation", "_keras_history"),
        ("layer._mode = 1", "_mode"),
        ("class A(B):\n  def f(self):\n    return self._losses", "_losses"),
        ("getattr(layer, '_mode', None)", "_mode"),
        ("keras.src.ops.core.f()", "keras.src.ops.core.f"),
        ("tf.__internal__.nest.f(g(tf))", "tf.__internal__.nest.f"),
        ("import keras.src.ops as o", "keras.src.ops"),
        ("from keras.src import ops", "keras.src.ops"),
        (
            "def f():\n  from tensorflow.python.eager import context",
            "tensorflow.python.eager.context",
        ),
        ("from keras._tf_keras import keras", "keras._tf_keras.keras"),
        ("from numpy import _core", "numpy._core"),
        ("importlib.import_module('keras.src.ops')", "keras.src.ops"),
    ],
)
def test_a_private_name_is_found(house, source, name):
    assert used_names(house(source)) == {(name, "trainer/loop.py")}


@pytest.mark.parametrize(
    "source",
    [
        "x.__dict__, row._asdict(), [_ for _ in x], tf.raw_ops, keras.ops",
        "class A:\n  def _f(self): ...\n\nA()._f()",
        "class A:\n  def __init__(self): self._x: int = 1\n\nb._x",
        "class A:\n  _x: int\n\nb._x, getattr(b, '_x')",
        "from losses.term import _f\nfrom . import _g",
        "'''Unlike keras.src, or layer._mode.'''",
    ],
)
def test_a_public_name_or_one_of_our_own_is_not(house, source):
    assert used_names(house(source)) == set()


HEAD = "# Workspace\n\n## Private names\n\nWhy.\n\n| name | where | why | on |\n|---|---|---|---|\n"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            HEAD
            + "| `Layer._mode` | `trainer/loop.py` | none | 3.15.1 |\n\n## Next\n\n| a | b |\n",
            [],
        ),
        ("", ["_mode is used in trainer/loop.py but not listed"]),
        (
            HEAD + "| `_mode` | `trainer/loop.py`, `losses/term.py` | none | 3.15.1 |\n",
            ["_mode is listed for losses/term.py but not used"],
        ),
        (
            HEAD + "| _mode | trainer/loop.py | none | |\n",
            [
                "expected 4 filled cells, found: _mode | trainer/loop.py | none | ",
                "_mode is used in trainer/loop.py but not listed",
            ],
        ),
        (
            HEAD + "| _mode | everywhere | none | 3.15.1 |\n",
            [
                "_mode is listed without the files it is used in",
                "_mode is used in trainer/loop.py but not listed",
            ],
        ),
    ],
)
def test_the_table_and_the_code_are_compared_file_by_file(house, page, expected):
    assert faults(house("layer._mode"), page) == expected


def test_no_table_is_needed_where_no_private_name_is_used(house):
    assert faults(house("x = 1"), "# Workspace\n") == []
