"""docs/losses.md is what the docstrings say, and every public loss, term and weight is in it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import losses

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "docs" / "make_losses_page.py"
PAGE = ROOT / "docs" / "losses.md"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_losses_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_docstrings_give(script):
    assert PAGE.read_text(encoding="utf-8") == script.make_page(), (
        "docs/losses.md is stale. Run: python docs/make_losses_page.py"
    )


def test_the_page_has_an_entry_for_every_public_loss_term_weight_and_schedule():
    headings = re.findall(r"^### `losses\.([\w.]+)`$", PAGE.read_text(encoding="utf-8"), re.M)
    helpers = {"Step", "TermwiseError", "Weight"}
    names = ("Linear", "Cosine", "Cyclical", "PiecewiseConstant")
    schedules = {f"schedules.{name}" for name in names}
    modules = {name for name in losses.__all__ if type(getattr(losses, name)) is type(losses)}
    expected = {*losses.__all__, *schedules} - helpers - modules
    assert sorted(headings) == sorted(expected)


def test_a_public_loss_without_an_entry_is_named(script, monkeypatch):
    monkeypatch.setitem(script.FAMILIES, "Detection", ["YOLOv3"])
    with pytest.raises(ValueError, match="IoU: no entry"):
        script.make_page()


def test_every_entry_has_arguments_and_an_example_and_those_of_formulas_a_source():
    page = PAGE.read_text(encoding="utf-8").partition("\n## Your own\n")[0]
    for section in page.split("\n### ")[1:]:
        name, *lines = section.splitlines()
        needed = {"```python", "**Args**"}
        if name not in ("`losses.get`", "`losses.derivative`"):
            needed.add("**Source**")
            assert any(line.startswith("    ") for line in lines), f"{name}: no equation"
        missing = {start for start in needed if not any(line.startswith(start) for line in lines)}
        assert not missing, f"{name} lacks {missing}"


def test_every_link_of_the_contents_leads_to_a_heading(script):
    text = PAGE.read_text(encoding="utf-8")
    seen: list[str] = []
    for heading in re.findall(r"^##+ (.*)$", text, re.M):
        address = script.anchor(heading)
        again = seen.count(address)
        seen += [address, f"{address}-{again}"] if again else [address]
    assert set(re.findall(r"\(#([\w-]+)\)", text)) <= set(seen)


def test_what_an_example_shows_is_asserted(script):
    text = ">>> round(float(Charbonnier(epsilon=3.0)([[0.0]], [[4.0]])), 1)    # by hand\n5.0"
    expected = "assert round(float(losses.Charbonnier(epsilon=3.0)([[0.0]], [[4.0]])), 1) == 5.0"
    assert script.program(text, losses.Charbonnier) == f"{expected}  # by hand"


@pytest.mark.very_slow
def test_a_stale_page_fails_the_check(tmp_path):
    stale = tmp_path / "docs"
    stale.mkdir()
    for name in ("losses", "trainer"):
        (tmp_path / name).symlink_to(ROOT / name)
    (stale / SCRIPT.name).write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, str(stale / SCRIPT.name)]
    run = {"capture_output": True, "text": True, "cwd": tmp_path}
    (stale / "losses.md").write_text("# Losses\n", encoding="utf-8")
    failed = subprocess.run([*command, "--check"], **run)
    assert failed.returncode == 1 and "docs/losses.md is stale" in failed.stderr
    assert subprocess.run(command, **run).returncode == 0
    assert subprocess.run([*command, "--check"], **run).returncode == 0
