"""Makes docs/troubleshooting.md of the error messages in the code, so that they are written once.

    python docs/make_troubleshooting_page.py            rewrites the page
    python docs/make_troubleshooting_page.py --check    says whether it is what the code says

A message is found where an error is made, not where it is raised: what a function composes is
followed to its texts. What stands above the messages is docs/site/troubleshooting.md.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
INTRODUCTION = ROOT / "docs" / "site" / "troubleshooting.md"
PACKAGES = ("losses", "trainer", "experiments")
WIDTH = 110

# Title -> (what it means, the folders and files of the messages: the longest that fits counts).
THEMES = {
    "Arguments of Trainer and fit": (
        "What was passed cannot work as it stands. Nothing was run and nothing was written.",
        ["trainer", "trainer/fitting", "trainer/balancing", "trainer/run"],
    ),
    "Models and their variables": (
        "The model cannot be built, called, trained or exported as it is.",
        ["trainer/model", "trainer/step/trainable.py", "trainer/step/loss_parameters.py"],
    ),
    "Losses": (
        "`loss=` or an argument of a loss is wrong, or it does not fit the outputs.",
        ["losses", "losses/catalog", "losses/objective"],
    ),
    "Terms, weights and constraints": (
        "A term, its weight or its bound is wrong, or two terms have one name.",
        [
            *("losses/terms", "losses/schedules.py", "losses/uncertainty_weight.py"),
            *(
                "losses/objective/term.py",
                "losses/objective/weights.py",
                "losses/objective/ratio.py",
            ),
            *("losses/naming.py", "losses/example_random.py"),
        ],
    ),
    "Balancers": ("A balancer is given what it cannot balance.", ["losses/balancing"]),
    "Data": (
        "What is read has another form, length or kind than it should.",
        ["trainer/data", "trainer/loop/feeds"],
    ),
    "The step": (
        "Something goes wrong while a step is traced or run.",
        ["trainer/step", "trainer/loop", "trainer/hooks.py", "trainer/errors.py"],
    ),
    "Values that are not finite": (
        "NaN or infinity: docs/runs.md says how to replay the step.",
        ["trainer/debugging"],
    ),
    "Optimizers": ("An optimizer cannot do what it is asked to.", ["trainer/optimizers"]),
    "Files and resuming": (
        "A workdir, a checkpoint or a file of a run is not what it should be.",
        ["trainer/persistence", "trainer/ledger"],
    ),
    "Devices and hosts": (
        "A strategy, a device or another host.",
        ["trainer/distributed", "losses/distributed", "trainer/launch"],
    ),
    "The report and the tab": ("What `trainer.report` is given.", ["trainer/report"]),
    "The command line": (
        "One line, `error: ...`, with exit code 2; `--traceback` shows where it came from.",
        ["experiments"],
    ),
}


@dataclass(frozen=True)
class Message:
    """A message as a reader searches for it, the class of the error, and the file."""

    text: str
    kind: str
    file: str


def main(arguments):
    if arguments not in ([], ["--check"]):
        raise SystemExit("usage: python docs/make_troubleshooting_page.py [--check]")
    page = make_page(messages(ROOT))
    if arguments:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
            raise SystemExit(
                "docs/troubleshooting.md is stale. Run: python docs/make_troubleshooting_page.py"
            )
    else:
        PAGE.write_text(page, encoding="utf-8")


def make_page(found: list[Message]) -> str:
    """The text of docs/troubleshooting.md."""
    parts = [INTRODUCTION.read_text(encoding="utf-8").strip("\n")]
    for title, (about, _) in THEMES.items():
        parts += [f"## {title}", about]
        own = [message for message in found if theme(message.file) == title]
        for file in dict.fromkeys(message.file for message in own):
            said = dict.fromkeys(wrapped(message) for message in own if message.file == file)
            parts.append(f"`{file}`\n\n```text\n" + "\n\n".join(said) + "\n```")
    return "\n\n".join(parts) + "\n"


def theme(file: str) -> str:
    """The title under which the messages of a file stand."""
    fitting = [
        (len(place), title)
        for title, (_, places) in THEMES.items()
        for place in places
        if file == place or file.startswith(place + "/")
    ]
    return max(fitting)[1]


def wrapped(message: Message) -> str:
    """The message as the last lines of a traceback show it."""
    return "\n".join(
        line
        for part in f"{message.kind}: {message.text.strip()}".split("\n")
        for line in textwrap.wrap(part, WIDTH, break_long_words=False, break_on_hyphens=False)
    )


def messages(root: Path) -> list[Message]:
    """Every message of an error, in the order of the files."""
    return [
        Message(text, kind, file)
        for file, module in modules(root).items()
        for kind, expression in module.errors()
        for text in module.texts(expression)
    ]


def modules(root: Path) -> dict[str, Module]:
    """File -> what it holds; each knows the functions of the others."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    return {
        path.relative_to(root).as_posix(): Module(tree, [*trees.values()])
        for path, tree in trees.items()
    }


OWN = {"Preempted", "PeerLost", "Nonfinite", "KeyboardInterrupt", "AbsentSource"}


class Module:
    """The errors that a file makes, and the texts they are made of."""

    def __init__(self, tree: ast.Module, others: list[ast.Module]):
        self.tree = tree
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        elsewhere = [node for other in others for node in other.body]
        own = [*(node for node in elsewhere if defined(node) & imported), *ast.walk(tree)]
        self.functions = {node.name: node for node in own if isinstance(node, ast.FunctionDef)}
        self.assigned: dict[str, list[ast.expr]] = {}
        for node in own:
            if isinstance(node, ast.Assign):
                for name in defined(node):
                    self.assigned.setdefault(name, []).append(node.value)

    def errors(self):
        """(class, what it says) of each error that is made, by a call of its class or a helper."""
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            kind = name_of(node.func)
            if is_error(kind):
                said = [one for one in node.args if not isinstance(one, ast.Attribute)]
                if said:
                    yield kind, said[-1] if "OSError" in kind else said[0]
            elif made := self.made_by(kind):
                yield name_of(made.func), Filled(self.functions[kind], made.args[0], node)

    def made_by(self, name: str):
        """The error that a helper returns, of one string that it puts its arguments into."""
        function = self.functions.get(name)
        values = returned(function) if function else []
        made = values[0] if len(values) == 1 else None
        if isinstance(made, ast.Call) and is_error(name_of(made.func)) and made.args:
            return made if isinstance(made.args[0], ast.JoinedStr) else None
        return None

    def texts(self, expression, seen=()) -> list[str]:
        """What an expression may say; none where it is made of nothing that stands in this file."""
        if isinstance(expression, Filled):
            return [self.with_constants(expression.text())]
        if isinstance(expression, ast.IfExp):
            return [
                text
                for one in (expression.body, expression.orelse)
                for text in self.texts(one, seen)
            ]
        if isinstance(expression, ast.Name) and expression.id not in seen:
            seen = (*seen, expression.id)
            assigned = self.assigned.get(expression.id, ())
            return [text for value in assigned for text in self.texts(value, seen)]
        if isinstance(expression, ast.Call):
            function = self.functions.get(name_of(expression.func))
            if function is not None and function.name not in seen:
                seen = (*seen, function.name)
                return [
                    text for value in returned(function) for text in self.texts(value, seen)
                ] or self.written_in(function.name, seen)
        text = self.filled(expression)
        if says_something(text):
            return [text]
        if inside := self.passed_on(expression, seen):
            return inside
        parts = [part for part in ast.walk(expression) if isinstance(part, ast.Call)]
        called = {name_of(part.func) for part in parts} & self.functions.keys() - {*seen}
        return [text for name in sorted(called) for text in self.written_in(name, (*seen, name))]

    def passed_on(self, expression, seen) -> list[str]:
        """The texts of what is put into a string that says nothing itself."""
        if isinstance(expression, ast.BinOp):
            parts = [expression.left, expression.right]
        else:
            values = getattr(expression, "values", ())
            parts = [value.value for value in values if isinstance(value, ast.FormattedValue)]
            parts = parts if len(parts) == 1 else []
        names = [part for part in parts if isinstance(part, ast.Name)]
        return [text for name in names for text in self.texts(name, seen)]

    def filled(self, expression) -> str:
        """The template, with the constants in their places."""
        return self.with_constants(template(expression))

    def with_constants(self, text: str) -> str:
        for name, values in self.assigned.items():
            if name.isupper() and isinstance(values[0], (ast.Constant, ast.JoinedStr)):
                value = values[0].value if isinstance(values[0], ast.Constant) else None
                constant = template(values[0]) if value is None else str(value)
                text = text.replace(f"⟨{placeholder(ast.Name(name))}⟩", constant)
        return text

    def written_in(self, name: str, seen) -> list[str]:
        """What a function says that only composes its texts: what it returns, its own strings."""
        function = self.functions[name]
        found = [text for value in returned(function) for text in self.texts(value, seen)]
        body = [node for one in function.body for node in ast.walk(one)]
        own = [node for node in body if isinstance(node, (ast.JoinedStr, ast.Constant))]
        docstring = ast.get_docstring(function, clean=False)
        strings = [self.filled(node) for node in own if getattr(node, "value", "") != docstring]
        said = [text for text in strings if says_something(text) and " " in text.strip()]
        return [*dict.fromkeys([*found, *said])]


@dataclass(frozen=True)
class Filled:
    """What a helper makes of the arguments of one call."""

    helper: ast.FunctionDef
    message: ast.expr
    call: ast.Call

    def text(self) -> str:
        text = template(self.message)
        for parameter, argument in zip(self.helper.args.args, self.call.args, strict=False):
            text = text.replace(f"⟨{placeholder(ast.Name(parameter.arg))}⟩", template(argument))
        return text


def returned(function) -> list:
    """What a function may return."""
    return [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value]


def defined(node) -> set[str]:
    """The names that a statement gives a value."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else ()
    return {target.id for target in targets if isinstance(target, ast.Name)}


def name_of(node) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def is_error(name: str) -> bool:
    return name.endswith("Error") or name in OWN


def says_something(text: str) -> bool:
    """Whether there is more to a text than what is put into it."""
    plain = "".join(part.partition("⟩")[2] for part in ("⟩" + text).split("⟨"))
    return sum(map(str.isalpha, plain)) > 3


def template(node) -> str:
    """A string expression as text, with ⟨what⟩ for what is put into it."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.FormattedValue):
        return f"⟨{placeholder(node.value)}⟩"
    if isinstance(node, ast.Call) and name_of(node.func) == "join" and node.args:
        listed = node.args[0]
        if isinstance(listed, (ast.List, ast.Tuple)) and isinstance(node.func.value, ast.Constant):
            return node.func.value.value.join(map(template, listed.elts))
    return f"⟨{placeholder(node)}⟩"


def placeholder(node) -> str:
    """A word for what an expression puts into a message."""
    if isinstance(node, ast.Name):
        return node.id.strip("_").replace("_", " ")
    if isinstance(node, ast.Attribute):
        if node.attr == "__name__":
            return placeholder(node.value)
        return node.attr.strip("_").replace("_", " ")
    if isinstance(node, ast.Call):
        called = name_of(node.func)
        if called in ("type", "repr", "str", "sorted", "len", "printable", "list") and node.args:
            inside = placeholder(node.args[0])
            return {"type": f"type of {inside}", "len": f"number of {inside}"}.get(called, inside)
        return "..." if called == "join" else called.strip("_").replace("_", " ") or "..."
    if isinstance(node, ast.Subscript):
        return placeholder(node.value)
    if isinstance(node, ast.BinOp):
        return placeholder(node.left)
    return "..."


if __name__ == "__main__":
    main(sys.argv[1:])
