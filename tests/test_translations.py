"""A translated page has the program of its original, which runs as a test, and its sections."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORIGINALS = {"README.zh.md": "README.md", "docs/zh/questions.md": "docs/questions.md"}
each_translation = pytest.mark.parametrize("page", ORIGINALS)


@pytest.fixture(scope="module")
def documents():
    spec = importlib.util.spec_from_file_location("documents", ROOT / "tests/test_documents.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def meaning(source):
    """A program without what only its reader reads: comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            del node.body[0]
    return ast.dump(tree)


@each_translation
def test_a_translation_has_the_program_of_its_original(page, documents):
    assert page in documents.ELSEWHERE
    program = documents.program(read(page))
    assert meaning(program) == meaning(documents.program(read(ORIGINALS[page])))
    assert len(ast.parse(program).body) > 5


@each_translation
def test_a_translation_shows_what_its_original_prints_and_types(page, documents):
    def shown(text):
        kept = [b for b in documents.blocks(text) if b.info != "python"]
        return [[line.partition("#")[0].rstrip() for line in block.lines] for block in kept]

    assert shown(read(page)) == shown(read(ORIGINALS[page]))


@each_translation
def test_a_translation_has_as_many_sections_and_pictures(page):
    def outline(text):
        marks = re.findall(r"^(#+) |^(!)\[", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
        return ["".join(mark) for mark in marks]

    assert outline(read(page)) == outline(read(ORIGINALS[page]))


@each_translation
def test_the_links_of_a_translation_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", re.sub(r"```.*?```", "", read(page), flags=re.S))
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_a_program_that_differs_is_noticed():
    assert meaning("x = 1  # one") == meaning("x = 1  # 一")
    assert meaning("def f():\n    'a'\n    return 1") == meaning("def f():\n    'b'\n    return 1")
    assert meaning("x = 1") != meaning("x = 2")
