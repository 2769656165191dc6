"""The documents are true: their Python runs, the commands they name exist.

The Python of one page runs as one program, in a process and an empty folder of its own, as a reader
would run it; TensorFlow is imported once for all (`page_worker.py`). In this process it could not:
the devices are set up for tests, and a page may make a strategy of its own.
"""

import contextlib
import importlib.util
import itertools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    path
    for path in [
        *(ROOT / name for name in ("README.md", "README.zh.md", "WORKSPACE.md", "CONTRIBUTING.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if path.exists()
]
SHELLS = {"console", "bash", "sh", "shell"}
LONGEST_RUN = 300  # seconds
ELSEWHERE = {
    "docs/quickstart.md": "tests/test_package.py runs it with what is installed",
    "README.zh.md": "tests/test_translations.py: its program is that of README.md",
    "docs/zh/questions.md": "tests/test_translations.py: its program is that of docs/questions.md",
}
PEERS = ("orbit", "lightning", "deepxde")  # packages that a page compares with, where they are

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES]
)


@dataclass
class Block:
    """A fenced block of a page: `info` follows the fence, `start` is its first line, from 0."""

    info: str
    start: int
    lines: list[str]


def blocks(text):
    """The fenced blocks of a page, in order."""
    found, fence = [], None
    for number, line in enumerate(text.splitlines()):
        if fence is None:
            if opening := re.match(r"( *)(`{3,}|~{3,})\s*([^`]*)$", line):
                indent, fence, info = opening.groups()
                found.append(Block(info.strip(), number + 1, []))
        elif re.fullmatch(re.escape(fence[0]) + "{" + str(len(fence)) + r",}\s*", line.strip()):
            fence = None
        else:
            found[-1].lines.append(line.removeprefix(indent))
    if fence is not None:
        raise ValueError(f"The block that starts at line {found[-1].start} is never closed.")
    return found


def program(text):
    """The page's Python, each line at its own number, so that a traceback points into the page.

    A block that needs another package is left out where that is not installed.
    """
    lines = [""] * len(text.splitlines())
    for block in blocks(text):
        needed = block.info.partition("python needs ")[2]
        if block.info == "python" or (needed and importlib.util.find_spec(needed)):
            lines[block.start : block.start + len(block.lines)] = block.lines
    return "\n".join(lines).rstrip() + "\n"


def python_left_out(text):
    """Info strings of blocks that are Python to a reader but would not be run."""
    run = re.compile(rf"python( needs ({'|'.join(PEERS)}))?$")
    return [
        block.info
        for block in blocks(text)
        if not run.match(block.info) and re.match(r"\W*py", block.info, re.IGNORECASE)
    ]


class Pages:
    """Runs the Python of pages, each in a process and a folder of its own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "page_worker.py")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, text, name, folder):
        """The exit code of the page's Python, run in `folder`, and all that it printed."""
        script, output = folder / f"{name}.py", folder / "output.txt"
        script.write_text(program(text), encoding="utf-8")
        job = json.dumps({"script": str(script), "output": str(output)})
        given_up = threading.Timer(LONGEST_RUN, self.kill)
        given_up.start()
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline()
        given_up.cancel()
        assert code, f"{name} ran for more than {LONGEST_RUN} s, or could not be run"
        return int(code), output.read_text(encoding="utf-8")

    def kill(self):
        """Ends the process and the page that runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self):
        self.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def pages():
    made = Pages()
    yield made
    made.close()


def commands(text):
    """The commands of make and python a page shows, as lists of words, without what they print.

    In a block with lines that start with "$ ", only those are commands.
    """
    for block in blocks(text):
        if block.info.split(" ")[0] not in SHELLS:
            continue
        lines = "\n".join(block.lines).replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in lines:
            if not re.search(r"\b(make|python)", line):
                continue
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
            lexer.whitespace_split = True
            for operator, words in itertools.groupby(lexer, lambda word: set(word) <= set(";&|")):
                if not operator:
                    is_setting = re.compile(r"\w+=").match
                    yield list(itertools.dropwhile(is_setting, words))


def unknown_commands(text, targets):
    """What the page tells its reader to type that does not exist: targets of make, modules."""
    unknown = []
    for program, *words in filter(None, commands(text)):
        if program == "make":
            named = [word for word in words if "=" not in word and not word.startswith("-")]
            unknown += [f"make {target}" for target in named if target not in targets]
        elif re.search(r"(^|/)python[\d.]*$", program) and "-m" in words[:-1]:
            module = words[words.index("-m") + 1]
            if not is_runnable(module):
                unknown.append(f"python -m {module}")
    return unknown


def is_runnable(module):
    """Whether `python -m module` finds something to run."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(module + ".__main__")
    except ModuleNotFoundError:
        return False
    return spec is not None


def make_targets():
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def printed(text):
    """The lines that a page says its program prints: of blocks of `text printed`."""
    shown = [block.lines for block in blocks(text) if block.info == "text printed"]
    return [line for lines in shown for line in lines if line.strip()]


def is_printed(line, output):
    """Whether a line of a page is one of the output, numbers to 5 %; "..." stands for the rest."""
    words = line.split()
    until = words.index("...") if "..." in words else None
    return any(
        len(words) == len(others) or (until is not None and len(others) > until)
        for others in map(str.split, output.splitlines())
        if all(map(is_alike, words[:until], others))
    )


def is_alike(word, other):
    try:
        return math.isclose(float(word), float(other), rel_tol=0.05, abs_tol=2e-4)
    except ValueError:
        return word == other


@each_page
def test_the_python_of_a_page_runs_and_prints_what_it_shows(page, pages, tmp_path):
    text = page.read_text(encoding="utf-8")
    if not program(text).strip():
        assert printed(text) == []
        return
    if page.relative_to(ROOT).as_posix() in ELSEWHERE:
        return
    code, output = pages.run(text, page.name, tmp_path)
    assert code == 0, f"{page.name}:\n{output}"
    missing = [line for line in printed(text) if not is_printed(line, output)]
    assert missing == [], f"{page.name} shows what is not printed; printed is\n{output}"


@each_page
def test_no_python_of_a_page_is_left_out(page):
    assert python_left_out(page.read_text(encoding="utf-8")) == []


@each_page
def test_the_commands_of_a_page_exist(page):
    assert unknown_commands(page.read_text(encoding="utf-8"), make_targets()) == []


def test_there_is_a_readme():
    assert ROOT / "README.md" in PAGES


# The rest holds that the tests above can fail.

PAGE = """\
Text with ```inline``` ticks.

```python
a = 1
```
- in a list:
  ```python
  if a:
      b = a + 1
  ```
````text
```python
not run
```
````
~~~python
assert b == 2
~~~
"""


def test_the_blocks_of_a_page_are_one_program_at_their_own_lines():
    lines = program(PAGE).split("\n")
    assert {number: line for number, line in enumerate(lines, start=1) if line} == {
        4: "a = 1",
        8: "if a:",
        9: "    b = a + 1",
        17: "assert b == 2",
    }


def test_a_block_that_needs_a_package_is_run_where_it_is_installed():
    page = "```python needs json\na = 1\n```\n```python needs no_such_package\nb = 2\n```\n"
    assert program(page).split() == ["a", "=", "1"]


def test_a_failing_block_fails_with_its_line_in_the_page(pages, tmp_path):
    code, output = pages.run(PAGE.replace("b == 2", "b == 3"), "page.md", tmp_path)
    assert code == 1
    assert re.search(r'page\.md\.py", line 17', output)


def test_a_passing_page_writes_into_its_own_folder(pages, tmp_path):
    code, _ = pages.run("```python\nopen('made', 'w').close()\n```", "page.md", tmp_path)
    assert code == 0
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("total 0.2 = a 0.1", True),
        ("total 0.201 = a 0.0999", True),
        ("total 0.3 = a 0.1", False),
        ("total 0.2 = b 0.1", False),
        ("total 0.2", False),
        ("total 0.2 = ...", True),
        ("total 0.3 = ...", False),
    ],
)
def test_what_a_page_shows_is_looked_for_in_what_was_printed(line, found):
    assert printed(f"```text printed\n{line}\n```") == [line]
    assert is_printed(line, "other\ntotal 0.2 = a 0.1\n") is found


@pytest.mark.parametrize("info", ["python skip", "python needs luck", "Python", "py", "{.python}"])
def test_a_block_that_would_not_be_run_is_found(info):
    assert python_left_out(f"```{info}\n1 / 0\n```") == [info]


def test_a_block_that_is_never_closed_is_an_error():
    with pytest.raises(ValueError, match="starts at line 1 is never closed"):
        blocks("```python\na = 1\n")


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("make test    # runs the tests", []),
        ("cd x && make PYTHON=python3.12 -s test; make nothing", ["make nothing"]),
        ("$ make wrong\nmake other, which is what it printed", ["make wrong"]),
        ("python -m json.tool", []),
        (".venv/bin/python -m json", ["python -m json"]),
        ("CUDA_VISIBLE_DEVICES= \\\n  make wrong", ["make wrong"]),
        ("python3 -m no_such.module --flag", ["python -m no_such.module"]),
        ("echo make wrong", []),
    ],
)
def test_an_unknown_command_is_found(line, unknown):
    assert unknown_commands(f"```console\n{line}\n```", {"test"}) == unknown


def test_the_targets_of_make_are_read():
    assert {"run", "test", "check", "bench", "tensorboard"} <= make_targets()
