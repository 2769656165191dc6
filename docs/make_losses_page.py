"""Makes docs/losses.md of the docstrings of `losses`, so that they are written once.

    python docs/make_losses_page.py            rewrites the page
    python docs/make_losses_page.py --check    says whether it is what the docstrings give

An example of a docstring becomes Python that runs: what it shows is asserted.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import sys
import textwrap
from operator import attrgetter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402

import losses  # noqa: E402
from losses.objective import registry  # noqa: E402

PAGE = ROOT / "docs" / "losses.md"
WIDTH = 100

# A public loss, term, weight or schedule stands in exactly one of these families.
FAMILIES = {
    "By name": ["get", "cosine_proximity", "mean_difference"],
    "Regression": [
        *("WeightedMSE", "WeightedRMSE", "Charbonnier", "Quantile", "noncrossing"),
        *("GaussianNLL", "StudentTNLL", "GeneralRobust", "AdaptiveRobust"),
    ],
    "Classification and overlap": [
        *("BinaryFocal", "CategoricalFocal", "SparseFocal", "SparseCrossentropy"),
        *("Dice", "Tversky"),
    ],
    "Detection": ["IoU", "YOLOv3", "assign_boxes", "detected_boxes"],
    "Embeddings": [
        *("Triplet", "TripletMargin", "NTXent", "InfoNCE", "SupCon", "Contrastive", "NPairs"),
    ],
    "Critics": ["Wasserstein"],
    "Terms that see the whole step": [
        *("AdversarialRegularization", "VirtualAdversarial", "Consistency", "GaussianKL"),
        *("GradientPenalty", "PDEResidual", "Squares", "derivative", "WeightPenalty", "Constraint"),
        "MeanTeacher",
    ],
    "Weights and schedules": [
        "UncertaintyWeight",
        *(f"schedules.{name}" for name in ("Linear", "Cosine", "Cyclical", "PiecewiseConstant")),
    ],
    "Your own": ["Term", "term", "Ratio", "Trains", "Parameter"],
}

INTRODUCTION = """\
# Losses

<!-- Made of the docstrings by docs/make_losses_page.py: change those, and run it again. -->

Every class of the first six families is a `keras.losses.Loss`: give it to `Trainer(loss=)` or to
`Model.compile`. Those that see the whole step are for `Trainer(terms=)`, weights and schedules for
`Trainer(loss_weights=)`. All are serializable: the keys of `get_config()` are the arguments.
[Terms](terms.md) says how they become the objective.

In the shapes, `[examples, ...]` has the examples on its first axis and any number of others after.
The examples run one after another as one program, which begins with
"""


def main(arguments):
    if arguments not in ([], ["--check"]):
        raise SystemExit("usage: python docs/make_losses_page.py [--check]")
    page = make_page()
    if arguments:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
            raise SystemExit("docs/losses.md is stale. Run: python docs/make_losses_page.py")
    else:
        PAGE.write_text(page, encoding="utf-8")


def make_page() -> str:
    """The text of docs/losses.md."""
    missing = set(public_names()) - entries()
    if missing:
        raise ValueError(
            f"{', '.join(sorted(missing))}: no entry. Add each to one of FAMILIES in {__file__}."
        )
    imports = "import keras\nimport numpy as np\nimport tensorflow as tf\n\nimport losses"
    parts = [INTRODUCTION, fenced("python", imports), contents()]
    for family, names in FAMILIES.items():
        parts += [f"## {family}", *(entry(name) for name in names)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def public_names() -> list[str]:
    """The losses, terms, weights and schedules that `losses` makes public."""
    names = []
    for prefix, module in (("", losses), ("schedules.", losses.schedules)):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and issubclass(value, KINDS):
                names.append(prefix + name)
    return names


KINDS = (
    keras.losses.Loss,
    keras.Variable,
    keras.optimizers.schedules.LearningRateSchedule,
    losses.Term,
    losses.UncertaintyWeight,
)


def entries() -> set[str]:
    """The names that have an entry."""
    return {name for names in FAMILIES.values() for name in names}


def contents() -> str:
    """The families and their entries, each a link."""
    lines, seen = [], []
    for family, names in FAMILIES.items():
        links = []
        for name in names:
            address = anchor(title(name))
            again = seen.count(address)  # GitHub numbers the headings of one address
            links.append(f"[{name}](#{address}{f'-{again}' if again else ''})")
            seen.append(address)
        lines.append(f"- [{family}](#{anchor(family)}): {', '.join(links)}")
    return "\n".join(lines)


def title(name) -> str:
    return f'`"{name}"`' if name in registry.CLASSIC else f"`losses.{name}`"


def anchor(heading) -> str:
    """The address that GitHub gives a heading."""
    kept = (c for c in heading.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def find(name):
    """What an entry of this name is about."""
    return registry.CLASSIC.get(name) or attrgetter(name)(losses)


def entry(name) -> str:
    """The section of one name: heading, signature, and what its docstring says."""
    value = find(name)
    head, sections = read_docstring(inspect.getdoc(value))
    call = name if name in registry.CLASSIC else f"losses.{name}"
    parts = [f"### {title(name)}", fenced("text", signature(call, value)), head]
    if name == "get":
        parts.append(table_of_names())
    for heading, first, body in sections:
        if heading == "Example":
            parts += [first[:1].upper() + first[1:], fenced("python", program(body, value))]
        elif body and heading in LISTS:
            parts.append(f"**{heading}**{first}\n\n{bullets(body)}")
        else:
            parts.append(wrap(f"**{heading}**: " + " ".join(f"{first}\n{body}".split())))
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())


def read_docstring(text):
    """Its body, and (heading, the rest of the heading's line, lines below) of each section."""
    body, sections = [], []
    for line in text.splitlines():
        heading = next((h for h in HEADINGS if line.startswith((f"{h}:", f"{h}, "))), None)
        if heading:
            rest = line[len(heading) :]
            first = rest.rstrip(":") if rest.startswith(",") else rest.removeprefix(":").strip()
            sections.append((heading, first, []))
        elif sections and (line.startswith("  ") or not line):
            sections[-1][2].append(line)
        elif sections:
            raise ValueError(f"{line!r} stands below a section. Indent it, or put it above.")
        else:
            body.append(line)
    return "\n".join(body).strip(), [
        (heading, first, textwrap.dedent("\n".join(lines)).strip("\n"))
        for heading, first, lines in sections
    ]


LISTS = ("Args", "Call args", "Attributes", "Raises")
HEADINGS = ("Args", "Call args", "Attributes", "Returns", "Raises", "Source", "Example")


def bullets(text) -> str:
    """A list of "name: what", each with its further lines indented."""
    items = []
    for line in text.splitlines():
        if line.startswith(" "):
            items[-1] += " " + line.strip()
        else:
            items.append(line)
    marked = []
    for item in items:
        names, colon, what = item.partition(":")
        quoted = ", ".join(f"`{name.strip()}`" for name in names.split(","))
        marked.append(f"- {quoted}{colon}{what}")
    return "\n".join(wrap(item, indent="  ") for item in marked)


def wrap(text, indent="") -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def signature(call, value) -> str:
    """How it is called, without annotations."""
    parameters = [
        p.replace(annotation=p.empty) for p in inspect.signature(value).parameters.values()
    ]
    bare = inspect.Signature(parameters)
    line = call + str(bare)
    if len(line) <= WIDTH:
        return line
    return (
        call
        + "(\n"
        + textwrap.fill(str(bare)[1:-1], WIDTH, initial_indent="    ", subsequent_indent="    ")
        + "\n)"
    )


def table_of_names() -> str:
    names = {}
    for name, function in registry.CLASSIC.items():
        names.setdefault(function, []).append(name)
    lines = ["| name | the function of |", "|---|---|"]
    for function, known in names.items():
        own = function.__module__.startswith("losses.")
        place = (
            f"[this library](#{function.__name__})"
            if own
            else f"`keras.losses.{function.__name__}`"
        )
        lines.append(f"| {', '.join(f'`{one}`' for one in known)} | {place} |")
    return "\n".join(lines)


def program(text, owner) -> str:
    """The Python of a docstring's example: its statements, and asserts of what it shows."""
    examples = doctest.DocTestParser().get_examples(text + "\n")
    if not examples:
        raise ValueError(f"{owner.__name__}: the example has no >>> line.")
    source = "".join(example.source for example in examples)
    tree = ast.parse(source)
    assigned = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    imported = {a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    scope = vars(inspect.getmodule(owner))
    lines = []
    for example in examples:
        if example.source.startswith(("import ", "from ")):
            continue  # at the top of the page
        code = qualified(example.source, scope, assigned, imported).rstrip("\n")
        if not example.want:
            lines.append(re.sub(r" +  #", "  #", code))
            continue
        lines += asserted(code, example.want.strip())
    return "\n".join(lines)


def asserted(code, want) -> list[str]:
    """The lines that say an expression is what the example shows."""
    expression, _, comment = code.partition("  #")
    expression, comment = expression.strip(), comment.strip()
    if "." in want and "round(" not in expression and not want.startswith("'"):
        expression = expression.removesuffix(".numpy().tolist()")
        check = f"assert np.allclose({bracketed(expression)}, {want})"
    else:
        check = f"assert {bracketed(expression)} == {want.replace(chr(39), chr(34))}"
    line = f"{check}  # {comment}"
    return [check] if not comment else [line] if len(line) <= WIDTH else [f"# {comment}", check]


def bracketed(expression) -> str:
    """A tuple within its brackets."""
    is_tuple = isinstance(ast.parse(expression).body[0].value, ast.Tuple)
    return f"({expression})" if is_tuple and not expression.startswith("(") else expression


def qualified(source, scope, assigned, imported) -> str:
    """`source` with the public names of `losses` as its reader writes them, `losses.<name>`."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Load)
            and node.id not in assigned
        ):
            value = getattr(losses, node.id, None) if node.id in imported else scope.get(node.id)
            place = public_place(node.id, value)
            if place:
                names.append((node.lineno - 1, node.col_offset, node.id, place))
    lines = source.splitlines()
    for row, column, name, place in sorted(names, reverse=True):
        lines[row] = lines[row][:column] + place + lines[row][column + len(name) :]
    return "\n".join(lines)


def public_place(name, value):
    """How a reader writes `value`, which a docstring calls `name`; None: it is none of `losses`."""
    if not str(getattr(value, "__module__", "")).startswith("losses."):
        return None
    for prefix, module in (("losses", losses), ("losses.schedules", losses.schedules)):
        if getattr(module, name, None) is value:
            return f"{prefix}.{name}"
    return f'losses.get("{name}")' if name in registry.CLASSIC else None


def fenced(info, text) -> str:
    return f"```{info}\n{text}\n```"


if __name__ == "__main__":
    main(sys.argv[1:])
