"""Settings of the site that `make docs` builds: Sphinx, MyST for the pages, furo for the looks.

No network: nothing is fetched while building, and no page asks a foreign host for a script, a font
or a style. Equations are Unicode text in the docstrings and pages, and are shown as such.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "site")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

project = "Termwise"
author = "the authors of Termwise"
version = release = "0.1.0"
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "docstrings",
    "public_names",
]
exclude_patterns = ["_build", "site"]
myst_heading_anchors = 3  # the addresses that GitHub gives headings

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    # ours are shown where they are inherited; those of Keras and of Python are not
    "inherited-members": "Callback, Loss, LearningRateSchedule, Variable, object, BaseException",
}
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # what an argument may be stands in its line
viewcode_line_numbers = True

html_theme = "furo"
html_title = "Termwise"
html_static_path = ["site/static"]
html_css_files = ["equations.css"]
html_copy_source = False
