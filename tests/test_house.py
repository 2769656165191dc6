"""The rooms of the house: floors without circles, few entries, small functions, named faces."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the ground up: a room may import from the floors below it, and from itself.
FLOORS = {
    "losses": [
        *("errors", "naming", "layers", "checks", "distributed", "example_random", "objective"),
        *("uncertainty_weight", "schedules", "catalog", "terms", "balancing"),
    ],
    "trainer": [
        *(
            "launch",
            "report",
            "errors",
            "data",
            "model",
            "distributed",
            "optimizers",
            "persistence",
            "ledger",
            "step",
        ),
        *("balancing", "second_order", "loop", "run", "debugging", "fitting", "hooks"),
        *("reading", "trainer"),
    ],
    "experiments": [
        *(
            "cli",
            "configs",
            "check",
            "experiment",
            "outcome",
            "digits",
            "consistency",
            "two_digits",
        ),
        *("two_digits_table", "program", "run", "sweep", "gallery"),
    ],
}
MOST_ENTRIES = {
    **{"trainer": 20, "losses": 13, "losses/balancing": 30, "losses/catalog": 14},
    "losses/terms": 14,  # one file for each kind of term, and what they share
    # one file for each experiment, which is looked up by its name
    **dict.fromkeys(("experiments/configs", "experiments/gallery"), 30),
    "experiments/gallery/entries": 30,
}
ENTRIES = 13  # of any other folder, without __init__.py
LINES, DECISIONS = 40, 8
PURE = ("trainer/step", "trainer/balancing", "trainer/loop")


def modules(root, package):
    """Path below `root` -> syntax tree, of every module of a package."""
    return {
        path.relative_to(root): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((root / package).rglob("*.py"))
    }


def room(parts):
    """The room of a dotted name: the part after the package; "" for the package itself."""
    return parts[1] if len(parts) > 1 else ""


def imports(tree):
    """The dotted modules that a module imports, wherever in it; those for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor_faults(root):
    """One line for each import that goes up, or to a room that stands on no floor."""
    faults = []
    for package, floors in FLOORS.items():
        for path, tree in modules(root, package).items():
            own = room(path.with_suffix("").parts)
            if own == "__init__":
                continue  # the face names what is public of any floor
            for name in imports(tree):
                parts = name.split(".")
                if parts[0] != package or len(parts) < 2 or parts[1] in ("experiments",):
                    continue
                other = room(parts)
                if own not in floors or other not in floors:
                    faults.append(f"{path.as_posix()} imports {name}: no floor has {other or own}")
                elif floors.index(other) > floors.index(own):
                    faults.append(f"{path.as_posix()} imports {name}, of a floor above")
    return faults


def entry_faults(root):
    """One line for each folder with too many entries."""
    faults = []
    for package in ("trainer", "losses"):
        if not (root / package).exists():
            continue
        for folder in [root / package, *(p for p in (root / package).rglob("*") if p.is_dir())]:
            entries = [
                entry.name
                for entry in folder.iterdir()
                if not entry.name.startswith(("__", ".")) and entry.name != "py.typed"
            ]
            where = folder.relative_to(root).as_posix()
            most = MOST_ENTRIES.get(where, ENTRIES)
            if len(entries) > most and "__pycache__" not in where:
                faults.append(f"{where} has {len(entries)} entries, more than {most}")
    return faults


def lines_of_code(function):
    """The lines of a function's body without its docstring."""
    body = function.body
    first = body[1] if ast.get_docstring(function) is not None and len(body) > 1 else body[0]
    return function.end_lineno - first.lineno + 1


def decisions(function):
    """How often a function branches: if, loops, conditions, handlers, filters of comprehensions."""
    count = 0
    for node in ast.walk(function):
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += len(node.ifs)
        elif isinstance(node, (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler)):
            count += 1
    return count


def functions(root, package):
    """(place, function) of every function of a package."""
    for path, tree in modules(root, package).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.as_posix()}: {node.name}", node


def size_faults(root):
    """One line for each function that is too long, or of the step and branches too often."""
    faults = []
    for package in FLOORS:
        for place, function in functions(root, package):
            lines, branches = lines_of_code(function), decisions(function)
            if lines > LINES:
                faults.append(f"{place} has {lines} lines")
            if place.startswith(PURE) and branches > DECISIONS:
                faults.append(f"{place} has {branches} decisions")
    return faults


def trainer_faults(root):
    """One line for each function below the Trainer that is given a trainer."""
    faults = []
    for place, function in functions(root, "trainer"):
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        if any(argument.arg == "trainer" for argument in given):
            faults.append(f"{place} takes a trainer")
    return faults


def face_faults(root):
    """One line for each sub-package that is not introduced, or names nothing."""
    faults = []
    for package in FLOORS:
        for path, tree in modules(root, package).items():
            if path.name != "__init__.py" or len(path.parts) < 3 or "configs" in path.parts:
                continue
            if not ast.get_docstring(tree):
                faults.append(f"{path.as_posix()} says not what it is for")
            names = [
                target.id
                for node in tree.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            ]
            if "__all__" not in names:
                faults.append(f"{path.as_posix()} names nothing public: no __all__")
    return faults


@pytest.mark.parametrize(
    "faults", [floor_faults, entry_faults, size_faults, trainer_faults, face_faults]
)
def test_the_house_stands(faults):
    assert faults(ROOT) == []


@pytest.mark.parametrize("package", ["trainer", "losses", "experiments"])
def test_the_page_of_the_house_names_every_room(package):
    page = (ROOT / "WORKSPACE.md").read_text(encoding="utf-8")
    assert [
        name for name in FLOORS[package] if f"{name}/" not in page and f"{name}.py" not in page
    ] == []


@pytest.fixture
def house(tmp_path):
    """A function that writes one module into an otherwise empty house and gives its root."""

    def write(path, source):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source, encoding="utf-8")
        return tmp_path

    return write


def test_an_import_of_a_floor_above_is_found(house):
    root = house("trainer/step/forward.py", "from trainer.loop.window import LogWindow")
    assert floor_faults(root) == [
        "trainer/step/forward.py imports trainer.loop.window.LogWindow, of a floor above"
    ]


def test_an_import_of_an_unknown_room_is_found(house):
    root = house("trainer/step/forward.py", "from trainer.attic import things")
    assert floor_faults(root) == [
        "trainer/step/forward.py imports trainer.attic.things: no floor has attic"
    ]


def test_a_long_function_is_found(house):
    source = "def f():\n" + "    x = 1\n" * 41
    assert size_faults(house("losses/a.py", source)) == ["losses/a.py: f has 41 lines"]
    assert size_faults(house("losses/a.py", source.replace("    x = 1\n", "", 1))) == []


def test_a_function_of_the_step_that_branches_nine_times_is_found(house):
    source = "def f(x):\n" + "    if x:\n        pass\n" * 9
    place = "trainer/step/a.py: f has 9 decisions"
    assert size_faults(house("trainer/step/a.py", source)) == [place]


def test_a_trainer_that_is_passed_down_is_found(house):
    root = house("trainer/step/a.py", "def f(x, *, trainer): ...")
    assert trainer_faults(root) == ["trainer/step/a.py: f takes a trainer"]


def test_a_crowded_folder_is_found(house):
    for index in range(14):
        root = house(f"trainer/step/a{index}.py", "")
    assert entry_faults(root) == ["trainer/step has 14 entries, more than 13"]


def test_a_room_without_a_face_is_found(house):
    root = house("trainer/step/__init__.py", "")
    assert face_faults(root) == [
        "trainer/step/__init__.py says not what it is for",
        "trainer/step/__init__.py names nothing public: no __all__",
    ]
