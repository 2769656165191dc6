"""A Sphinx extension that warns of a public name the site does not show; `make docs` then fails.

Public are what `__all__` lists, and the methods and properties of its classes that this repository
defines, unless Keras or Python defines them too (`call`, `get_config`).
"""

from __future__ import annotations

import importlib
import inspect

from sphinx.util import logging

MODULES = ("trainer", "losses", "losses.schedules", "losses.balancing")
OWN = ("trainer", "losses", "experiments")
# Shown under another name: trainer.TermwiseError is losses.TermwiseError.
ELSEWHERE = {"trainer.TermwiseError"}


def setup(app):
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}


def check(app, env):
    """Sphinx's event, when all pages are read."""
    missing = public_names() - set(env.get_domain("py").objects) - ELSEWHERE
    for name in sorted(missing):
        logging.getLogger(__name__).warning("%s is public and not on the site", name)


def public_names() -> set[str]:
    """The dotted names of all that is public."""
    found = set()
    for path in MODULES:
        module = importlib.import_module(path)
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value):
                found |= {f"{path}.{name}", *(f"{path}.{name}.{own}" for own in members(value))}
    return found


def members(value) -> set[str]:
    """The public methods and properties of a class that are its own or of a base of ours."""
    kinds = inspect.getmro(value) if inspect.isclass(value) else ()
    ours = [kind for kind in kinds if kind.__module__.split(".")[0] in OWN]
    foreign = {name for kind in kinds if kind not in ours for name in vars(kind)}
    return {
        name
        for kind in ours
        for name, member in vars(kind).items()
        if not name.startswith("_") and name not in foreign and is_method(member)
    }


def is_method(member) -> bool:
    return callable(member) or isinstance(member, (property, classmethod, staticmethod))
