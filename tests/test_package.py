"""What is installed is whole: the wheel is built, unpacked, and used from an empty folder."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "losses", "trainer", "experiments")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which the wheel was unpacked."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:  # a copy: building leaves files behind
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*wheel, "-w", folder, source], check=True, capture_output=True, cwd=folder)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_every_file_of_the_packages_is_in_the_wheel(installed):
    for package in ("losses", "trainer", "experiments"):
        files = {
            path.relative_to(ROOT)
            for path in (ROOT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert {file for file in files if not (installed / file).exists()} == set()
        assert (installed / package / "py.typed").exists()


def test_the_metadata_says_what_a_package_index_shows(installed):
    (file,) = installed.glob("termwise-*.dist-info/METADATA")
    metadata = Parser().parsestr(file.read_text(encoding="utf-8"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().lstrip().startswith("# Termwise")
    assert "](docs/" not in metadata.get_payload()  # such a link leads nowhere there
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert "keras" in metadata["Keywords"]
    assert (file.parent / "LICENSE").exists() or (file.parent / "licenses").exists()


def test_the_quickstart_runs_from_an_empty_folder(installed, tmp_path):
    """docs/quickstart.md, word by word, with nothing of this repository on the path."""
    spec = importlib.util.spec_from_file_location("documents", ROOT / "tests/test_documents.py")
    documents = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(documents)
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    where = "\nimport trainer\nprint(trainer.__file__)\n"
    (tmp_path / "quickstart.py").write_text(documents.program(text) + where, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "quickstart.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == str(installed / "trainer" / "__init__.py")
    lines = documents.printed(text)
    assert len(lines) > 10
    assert [line for line in lines if not documents.is_printed(line, done.stdout)] == []


def test_a_configuration_of_the_package_is_described_from_an_empty_folder(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--config=digits", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Fields of digits:" in done.stdout
    assert "--config.optimizer.learning_rate=0.003" in done.stdout
