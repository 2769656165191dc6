"""The site builds without a warning, shows every public name; docstrings become what they say."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site's tools are in the extra dev")
ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "docs" / "site"


def load(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def docstrings():
    return load("docstrings")


@pytest.fixture(scope="module")
def public_names():
    return load("public_names")


def test_the_site_builds_without_a_warning(tmp_path):
    """Without writing HTML: a broken link, a page in no list, a name not shown are errors."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "dummy"]
    without = "extensions=myst_parser,sphinx.ext.autodoc,docstrings,public_names"
    done = subprocess.run(
        [*command, "-D", without, "docs", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.very_slow
def test_the_written_site_asks_no_foreign_host(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "docs", tmp_path]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    pages = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html"))
    assert 'src="http' not in pages and 'rel="stylesheet" type="text/css" href="http' not in pages
    assert 'class="equation' in pages and "viewcode-link" in pages


def test_the_public_names_are_those_of_all_and_of_their_methods(public_names):
    names = public_names.public_names()
    assert {
        "losses.SparseFocal",
        "losses.balancing.PCGrad.direction",
        "trainer.Trainer.fit",
    } <= names
    assert {"trainer.Trainer.evaluate", "losses.schedules.Linear", "trainer.History.plot"} <= names
    assert "losses.SparseFocal.call" not in names  # Keras's
    assert "trainer.Trainer.on_epoch_end" not in names


def test_a_public_name_that_the_site_lacks_is_told(public_names, caplog, monkeypatch):
    class Env:
        def get_domain(self, _):
            return self

        objects = {name: None for name in public_names.public_names() - {"losses.Dice"}}

    told = []
    monkeypatch.setattr(
        public_names.logging,
        "getLogger",
        lambda _: type("L", (), {"warning": lambda self, *words: told.append(words)})(),
    )
    public_names.check(None, Env())
    assert told == [("%s is public and not on the site", "losses.Dice")]


DOCSTRING = """\
A loss of `y_true` and *no* other_ thing.

    value = |y - x|

Args:
  gamma, alpha: float >= 0; how
    strongly.
Returns:
  float32 [examples].
Source: Someone 2017.

Example, by hand:
  >>> 1 + 1
  2
"""


def test_a_docstring_becomes_what_it_says(docstrings):
    assert docstrings.to_rst(DOCSTRING).split("\n\n") == [
        r"A loss of \ ``y_true``\  and \*no\* other\_ thing.",
        ".. code-block:: text\n   :class: equation",
        "   value = |y - x|",
        "**Args**",
        "* ``gamma``, ``alpha``: float >= 0; how strongly.",
        "**Returns**: float32 [examples].",
        "**Source**: Someone 2017.",
        "Example, by hand: ",
        ".. code-block:: pycon",
        "   >>> 1 + 1\n   2\n",
    ]


def test_the_file_of_an_inherited_method_is_told(docstrings):
    from trainer import Trainer

    file = docstrings.inherited_from("method", "trainer.Trainer.evaluate", Trainer.evaluate)
    assert file == "trainer/reading.py"
    assert docstrings.inherited_from("method", "trainer.Trainer.fit", Trainer.fit) is None
    assert docstrings.inherited_from("property", "trainer.Trainer.step", Trainer.step) == (
        "trainer/hooks.py"
    )


def test_a_list_and_the_text_below_a_section_stay(docstrings):
    text = "Two ways:\n- one of\n  them;\n- the other.\n\nArgs:\n  a: x.\nAnd more."
    assert docstrings.to_rst(text).split("\n\n") == [
        "Two ways:",
        "* one of them;",
        "* the other.",
        "**Args**",
        "* ``a``: x.",
        "And more.\n",
    ]
