"""A Sphinx extension that reads the docstrings of this repository as they are written.

They are plain text with `code`, equations indented by four spaces, and the sections of `HEADINGS`.
`to_rst` turns one into reStructuredText; Sphinx calls it for each object that it documents.
"""

from __future__ import annotations

import importlib
import re
import textwrap

from docutils import nodes
from docutils.parsers.rst import Directive

LISTS = ("Args", "Call args", "Attributes", "Raises")
HEADINGS = (*LISTS, "Returns", "Yields", "Source", "Example")
SECTION = re.compile(rf"({'|'.join(HEADINGS)})(?:, ([^:]*))?:\s*(.*)$")


def setup(app):
    app.add_directive("text-of", TextOf)
    app.connect("autodoc-process-docstring", on_docstring)
    return {"parallel_read_safe": True}


def on_docstring(app, what, name, value, options, lines):
    """Sphinx's event: `lines` is changed in place."""
    lines[:] = to_rst("\n".join(lines)).splitlines()
    if file := inherited_from(what, name, value):
        lines += ["", f"Defined in ``{file}``."]  # Sphinx links a class to its own file only


def inherited_from(what: str, name: str, value) -> str | None:
    """The file of a method or property that a class has of another file."""
    if what not in ("method", "property"):
        return None
    module, kind, _ = name.rsplit(".", 2)
    own = getattr(importlib.import_module(module), kind).__module__
    defined = getattr(getattr(value, "fget", value), "__module__", own)
    return None if defined == own else defined.replace(".", "/") + ".py"


def to_rst(text: str) -> str:
    """The reStructuredText of a docstring without its common indent."""
    parts, lines = [], text.splitlines()
    while lines:
        line = lines.pop(0)
        section = SECTION.match(line)
        body = []
        while lines and (not lines[0].strip() or lines[0].startswith(" ")) and section:
            body.append(lines.pop(0))
        if section:
            parts.append(_section(*section.groups(), textwrap.dedent("\n".join(body)).strip("\n")))
        else:
            own = [line]
            while lines and not SECTION.match(lines[0]):
                own.append(lines.pop(0))
            parts += _blocks(own)
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def _section(heading: str, about: str | None, first: str, body: str) -> str:
    if heading == "Example":
        head = inline(f"Example, {about}:") if about else "Example:"
        code = body if body.lstrip().startswith(">>>") else ""
        said = inline(first) if code else inline(f"{first} {body}")
        return "\n\n".join(filter(str.strip, [f"{head} {said}", code and _code("pycon", code)]))
    head = f"**{heading}**" + (f", {inline(about)}" if about else "")
    if heading in LISTS and body:
        return "\n\n".join([f"{head} {inline(first)}".strip(), _items(body)])
    return f"{head}: {inline(f'{first} {body}')}"


def _items(body: str) -> str:
    """A list of "names: what", whose further lines are indented."""
    items: list[str] = []
    for line in body.splitlines():
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        elif line.strip():
            items.append(line.strip())
    marked = []
    for item in items:
        names, colon, what = item.partition(":")
        quoted = ", ".join(f"``{name.strip()}``" for name in names.split(",")) if colon else ""
        marked.append(f"* {quoted}:{_spaced(what)}" if colon else f"* {inline(item)}")
    return "\n".join(marked)


def _spaced(what: str) -> str:
    return f" {inline(what)}" if what.strip() else ""


def _blocks(lines: list[str]) -> list[str]:
    """Paragraphs, lists and equations."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        is_deep = line.startswith("    ")
        was_deep = bool(blocks[-1]) and blocks[-1][-1].startswith("    ")
        if not line.strip():
            blocks.append([])
        elif blocks[-1] and (is_deep != was_deep or line.startswith("- ")):
            blocks.append([line])
        else:
            blocks[-1].append(line)
    return [_block(block) for block in _joined(blocks)]


def _joined(blocks: list[list[str]]) -> list[list[str]]:
    """Without empty blocks; equations that only an empty line parts are one."""
    joined: list[list[str]] = []
    for block in filter(None, blocks):
        if joined and block[0].startswith("    ") and joined[-1][-1].startswith("    "):
            joined[-1] += ["", *block]
        else:
            joined.append(block)
    return joined


def _block(block: list[str]) -> str:
    text = textwrap.dedent("\n".join(block))
    if block[0].startswith("    "):
        return _code("text", text, "equation")
    if text.startswith(">>>"):
        return _code("pycon", text)
    mark = "* " if text.startswith("- ") else ""
    return mark + inline(text.removeprefix("- "))


def _code(language: str, text: str, style: str = "") -> str:
    option = f"\n   :class: {style}" if style else ""
    return f".. code-block:: {language}{option}\n\n{textwrap.indent(text, '   ')}"


def inline(text: str) -> str:
    """One paragraph: what stands in `ticks` as a literal, all other marks as they are."""
    pieces = re.split(r"(`+)(.+?)\1", " ".join(text.split()))
    parts = []
    for plain, ticks, code in zip(
        pieces[::3], [*pieces[1::3], ""], [*pieces[2::3], ""], strict=True
    ):
        # \ and a space: what touches a literal does not undo it
        parts.append(re.sub(r"([\\*|`]|_(?!\w))", r"\\\1", plain))
        if ticks:
            parts.append(f"\\ ``{code}``\\ ")
    return "".join(parts).strip().removeprefix("\\ ").removesuffix("\\ ")


class TextOf(Directive):
    """Shows a constant as it is: `.. text-of:: experiments.cli.command_line.USAGE`."""

    required_arguments = 1

    def run(self):
        module, _, name = self.arguments[0].rpartition(".")
        text = getattr(importlib.import_module(module), name)
        return [nodes.literal_block(text, text, language="text")]
