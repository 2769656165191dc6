"""Packaging of Termwise: what it needs to run, and why each bound is where it is.

"Checked" below means the version on which the facts this code builds on were run (TensorFlow
2.21.0 with Keras 3.15.1, Python 3.11). "Lowest set" means one environment on Python 3.10 that holds
every lower bound below at once; what it shows is that the bound works, not that an older one fails.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

# Where everyone can read the repository. It has no public address yet: with one here, the links of
# the long description lead there, and the package index shows them.
HOME = ""
TENSORFLOW = ">=2.21,<2.22"

RUN_TIME = [
    # >=2.21: the distribution and tape behaviour the step relies on was checked on 2.21.0 only.
    # <2.22: a minor release may change that behaviour, and none later has been tried.
    f"tensorflow{TENSORFLOW}",
    # >=3.12: TensorFlow 2.21 asks for it, and it is the last that installs on Python 3.10.
    # <3.16: equality with Model.fit is tested against 3.15.1, the newest there is.
    "keras>=3.12,<3.16",
    # >=2.0: its promotion rules (NEP 50) are assumed, and 2.0 was tried (lowest set).
    # <2.5: checked on 2.4.6; NumPy removes deprecated names in minor releases.
    "numpy>=2.0,<2.5",
    # >=2.1: the oldest that was tried (lowest set); TensorFlow alone would take 1.0.
    # <3: checked on 2.5.1; the next major release may change how flags are parsed.
    "absl-py>=2.1,<3",
    # >=2.21: the Custom Scalars layout and the event writer were checked on 2.21.0 only.
    # <2.22: TensorBoard is released with TensorFlow; the pair is moved together.
    "tensorboard>=2.21,<2.22",
    # >=1.0: the oldest that was tried (lowest set); before it the versions are 0.x.
    # <2: checked on 1.1.0; how overrides and unknown fields behave is not fixed across majors.
    "ml-collections>=1.0,<2",
]

EXPERIMENTS = [
    # Only for its bundled data (the digits).
    # >=1.5: the oldest that was tried, with NumPy 2.0 (lowest set).
    # <2: checked on 1.9.1; the next major release may drop or rename a bundled set.
    "scikit-learn>=1.5,<2",
]

DEV = [
    # >=9: the first that reads `[tool.pytest]` and `strict` of pyproject.toml.
    # <10: checked on 9.2.0; a major release turns deprecations into errors.
    "pytest>=9.0,<10",
    # >=3.6: the first for pytest 9. Two processes halve the time of tests that mostly trace.
    # <4: checked on 3.8.0; a major release may change how tests are shared out.
    "pytest-xdist>=3.6,<4",
    # >=6.130: the oldest that was tried (lowest set).
    # <7: checked on 6.170; a major release may drop settings.
    "hypothesis>=6.130,<7",
    # >=0.17.6: the version the tree was formatted with.
    # <0.18: another minor release may format otherwise, and `make check` would fail on old code.
    "ruff>=0.17.6,<0.18",
    # >=6.0: ml_collections brings it; a test reads docs/kubernetes.yaml with it. Checked on 6.0.3.
    # <7: a major release may change how scalars are read.
    "PyYAML>=6.0,<7",
    # Drives a browser in tests/trainer/report; without a browser these tests are skipped.
    # >=4.20: the oldest API used here (Chrome's new headless mode). <5: checked on 4.51.
    "selenium>=4.20,<5",
    # Run a notebook's cells in a test. >=0.10, >=6.29: older ones were not tried.
    # <1, <8: checked on 0.11 and 7.4; a major release may change how cells are run.
    "nbclient>=0.10,<1",
    "ipykernel>=6.29,<8",
    # >=2.4: `make check` was made to pass on 2.4.1.
    # <2.5: a minor release may report more, and `make check` would fail on old code.
    "mypy>=2.4,<2.5",
    # Build the site, `make docs`. >=8.1, >=4.0: the last for Python 3.10; the site was built with
    # 8.1.3, 4.0.1 and furo 2024.8.6 too. <9, <6, <2027: checked on 8.2.3, 5.2.0 and 2025.12.19;
    # later ones may warn of more, and warnings are errors there.
    "sphinx>=8.1,<9",
    "myst-parser>=4.0,<6",
    "furo>=2024.8,<2027",
]

PLOT = [
    # Only for `history.plot()`, the plots of `make bench` and docs/make_balancing_page.py.
    # >=3.9: the first built for NumPy 2. <3.12: checked on 3.11.2.
    "matplotlib>=3.9,<3.12",
]

RAY = [
    # Only for `python -m trainer.launch.on_ray`, which uses actors and nothing of Ray's trainers.
    # >=2.60: the version that was run. <3: a major release may change actors.
    "ray>=2.60,<3",
]


def long_description() -> str:
    """The README for a package index: links lead to `HOME`; without one only their text stays."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    if HOME:
        return re.sub(r"\]\((?!\w+:|#)([^)]+)\)", rf"]({HOME}/blob/main/\1)", text)
    text = re.sub(r"!\[[^]]*\]\((?!\w+:)[^)]+\)\n*", "", text)  # pictures
    return re.sub(r"\[([^]]+)\]\((?!\w+:|#)[^)]+\)", r"\1", text)


setup(
    name="termwise",
    version="0.1.0",
    description="A TensorFlow training loop in which every term of the objective has a name.",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="the authors of Termwise",
    license="Apache-2.0",
    license_files=["LICENSE"],
    project_urls={"Source": HOME, "Documentation": f"{HOME}/tree/main/docs"} if HOME else {},
    keywords=[
        *("tensorflow", "keras", "training loop", "loss function", "multi-task learning"),
        *("regularization", "loss weighting", "gradient conflict", "physics-informed"),
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Natural Language :: English",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(
        include=["trainer", "trainer.*", "losses", "losses.*", "experiments", "experiments.*"]
    ),
    package_data={
        **{package: ["py.typed"] for package in ("trainer", "losses", "experiments")},
        "trainer.report": ["page/*"],
    },
    # TensorBoard finds its tab by this name.
    entry_points={"tensorboard_plugins": ["termwise = trainer.report.plugin:TermwisePlugin"]},
    # >=3.10: the oldest Python for which TensorFlow 2.21 has wheels.
    # <3.14: 3.13 is the newest for which it has them.
    python_requires=">=3.10,<3.14",
    install_requires=RUN_TIME,
    extras_require={
        # The bounds are TensorFlow's own, above: this adds the CUDA libraries it was built for.
        "gpu": [f"tensorflow[and-cuda]{TENSORFLOW}"],
        "experiments": EXPERIMENTS,
        "plot": PLOT,
        "dev": DEV + EXPERIMENTS + PLOT,
        "bench": PLOT,
        "ray": RAY,
    },
)
