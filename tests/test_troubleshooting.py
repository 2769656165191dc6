"""docs/troubleshooting.md holds every error message that the code can raise."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "docs" / "make_troubleshooting_page.py"
PAGE = ROOT / "docs" / "troubleshooting.md"
# Errors without words of their own: (file, class) -> why.
SPEECHLESS = {
    ("trainer/debugging/bad_values.py", "TermwiseError"): "what TensorFlow said, and the steps",
    ("trainer/debugging/blame.py", "Nonfinite"): "another message, and what was found out since",
    ("trainer/loop/jit_choice.py", "_Refused"): "caught, noted in starts.jsonl",
    ("trainer/launch/on_ray/crew.py", "OSError"): "the system's own words",
    ("trainer/distributed/rendezvous.py", "TimeoutError"): "caught, and told in other words",
    ("trainer/persistence/checkpoint.py", "OSError"): "the system's own words",
    ("trainer/persistence/disk.py", "IsADirectoryError"): "the system's own words",
    ("trainer/persistence/disk.py", "OSError"): "the kind of a file, told by who reads it",
    ("experiments/cli/user_errors.py", "ConfigurationError"): "another message",
    ("experiments/program.py", "ConfigurationError"): "another message",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_troubleshooting_page", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_says(script):
    assert PAGE.read_text(encoding="utf-8") == script.make_page(script.messages(ROOT)), (
        "docs/troubleshooting.md is stale. Run: python docs/make_troubleshooting_page.py"
    )


def test_every_error_has_words_on_the_page_or_a_reason_for_none(script):
    speechless = {
        (file, kind)
        for file, module in script.modules(ROOT).items()
        for kind, expression in module.errors()
        if not module.texts(expression)
    }
    assert speechless - SPEECHLESS.keys() == set()


def literal_pieces(raised):
    """The text between what is put into the message of a `raise`."""
    first = raised.exc.args[0]
    nodes = first.values if isinstance(first, ast.JoinedStr) else [first]
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def test_the_words_of_every_raise_are_on_the_page():
    """Found without the script: the longest piece of each message, in the page's text."""
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    missing, count = [], 0
    for package in ("losses", "trainer", "experiments"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Raise) and getattr(node.exc, "args", None)):
                    continue
                place = path.relative_to(ROOT).as_posix(), ast.unparse(node.exc.func)
                if place in SPEECHLESS:
                    continue
                pieces = literal_pieces(node)
                longest = " ".join(max(pieces, key=len, default="").split())
                count += len(longest) > 12
                if len(longest) > 12 and longest not in page:
                    missing.append(f"{path.relative_to(ROOT)}:{node.lineno}: {longest}")
    assert count > 400
    assert missing == []


def test_what_a_function_composes_is_followed_to_its_texts(script):
    tree = ast.parse(
        "LIMIT = 3\n"
        "def told(name):\n"
        "    '''Not a message.'''\n"
        "    return f'{name} is missing. Give at most {LIMIT}.'\n"
        "def f(names):\n"
        "    message = 'nothing was given' if not names else told(names[0])\n"
        "    raise ValueError(message)\n"
    )
    (made,) = script.Module(tree, []).errors()
    texts = script.Module(tree, []).texts(made[1])
    assert made[0] == "ValueError"
    assert texts == ["nothing was given", "⟨name⟩ is missing. Give at most 3."]


def test_the_arguments_of_a_helper_are_put_into_its_message(script):
    tree = ast.parse(
        "def wrong(what):\n"
        "    return TypeError(f'X {what}. Set it.')\n"
        "def f(a):\n"
        "    raise wrong(f'names no {a}')\n"
    )
    module = script.Module(tree, [])
    texts = {text for _, made in module.errors() for text in module.texts(made)}
    assert texts == {"X ⟨what⟩. Set it.", "X names no ⟨a⟩. Set it."}


def test_every_theme_has_messages_and_a_heading():
    headings = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert {"Data", "Files and resuming", "The command line"} <= set(headings)
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[2:]
    assert all("Error: " in section or "Preempted: " in section for section in sections)
