"""The rooms of `losses`: each says what it is for and what it offers; none stands on itself."""

import ast
import importlib
from pathlib import Path

import pytest

import losses

ROOT = Path(losses.__file__).parent
ROOMS = sorted(
    ".".join(["losses", *path.parent.relative_to(ROOT).parts])
    for path in ROOT.rglob("__init__.py")
    if path.parent != ROOT
)
MOST_ENTRIES = 15  # of a folder, its __init__.py among them; balancing's methods apart


def modules(root=ROOT):
    """Dotted name -> path, of every module of `losses`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(["losses", *(part for part in parts if part != "__init__")])] = path
    return found


def imports(path):
    """(module, name) for each `from losses... import name` of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "losses":
            yield from ((node.module, alias.name) for alias in node.names)


def rooms_around(name):
    """The rooms that a dotted name lies in: a room may have a smaller one in it."""
    return [room for room in ROOMS if name == room or name.startswith(room + ".")]


def room_of(name):
    """The innermost room that a dotted name lies in; `losses` itself is none."""
    return max(rooms_around(name), key=len, default="losses")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_few_lines_what_it_is_for_and_what_it_offers(room):
    module = importlib.import_module(room)
    assert len([line for line in module.__doc__.splitlines() if line.strip()]) <= 3
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


def test_other_rooms_are_asked_for_what_they_offer_alone():
    faults = []
    for module, path in modules().items():
        for origin, name in imports(path):
            room = room_of(f"{origin}.{name}")
            around = [*rooms_around(module), "losses", f"{origin}.{name}"]
            if room in around or module == "losses":
                continue
            offered = importlib.import_module(room).__all__
            if name not in offered and origin.removeprefix(room + ".") not in offered:
                faults.append(f"{module} imports {name} of {origin}")
    assert not faults


def test_no_module_stands_on_itself():
    names = modules()
    below = {
        module: {
            f"{origin}.{name}" if f"{origin}.{name}" in names else origin
            for origin, name in imports(path)
        }
        for module, path in names.items()
    }
    # a package's __init__ names its modules, and they do not import it
    finished, open_ = set(), []

    def visit(module):
        assert module not in open_, " -> ".join([*open_, module])
        if module in finished:
            return
        open_.append(module)
        for other in below[module] - {module}:
            visit(other)
        finished.add(open_.pop())

    for module in names:
        visit(module)


def test_the_floors_of_the_rooms():
    floors = [
        {"losses.balancing", "losses.balancing.numerics", "losses.distributed"},
        {"losses.objective", "losses.objective.compiled"},
        {"losses.catalog"},
        {"losses.terms"},
    ]
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    assert set(floor) == set(ROOMS)
    for module, path in modules().items():
        if room_of(module) == "losses":
            continue
        for origin, name in imports(path):
            other = room_of(f"{origin}.{name}")
            assert other == "losses" or floor[other] <= floor[room_of(module)], (module, origin)


def test_no_folder_holds_more_than_one_can_learn():
    for folder in [ROOT, *(path for path in ROOT.rglob("*") if path.is_dir())]:
        if folder.name not in ("balancing", "__pycache__"):
            entries = [path for path in folder.iterdir() if path.name != "__pycache__"]
            assert len(entries) <= MOST_ENTRIES, folder
