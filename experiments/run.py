"""`python -m experiments.run`: the door of the command line.

Python puts the current directory, or what PYTHONPATH names, in front of the places from which
modules are imported. Where that is the workdir, a file called `json.py` in it would be run. So the
workdir is left out here before anything else is imported; the program is in `program.py`.
"""

import importlib.util
import os
import sys

PEER_LOST = 75  # of trainer/launch/exit_codes.py, which may not be imported yet


def main(argv: list[str] | None = None) -> int:
    """Does what the arguments say.

    Args:
      argv: the arguments after the program's name; those of the process by default.
    Returns:
      the exit code; `--help` lists them.
    """
    argv = sys.argv[1:] if argv is None else argv
    before = list(sys.path)
    sys.path[:] = import_path(argv, before)
    try:
        hidden = hidden_package()
        if hidden is not None:
            print(f"error: {hidden}", file=sys.stderr)
            return 2
        from experiments.program import run

        return run(argv)
    finally:
        sys.path[:] = before


def hidden_package() -> str | None:
    """Which file of the user's hides a package that this program needs; None where none does."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name in ("losses", "trainer"):
        ours = os.path.join(root, name, "__init__.py")
        module = sys.modules.get(name)
        spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
        found = None if spec is None else spec.origin
        if found and os.path.exists(ours) and os.path.realpath(found) != ours:
            return (
                f"{os.path.relpath(found)} hides the package {name} of Termwise. Rename it, or "
                "start from another folder."
            )
    return None


def import_path(argv: list[str], folders: list[str]) -> list[str]:
    """The folders of an import path that do not lie in the workdir.

    Where this program, or Python itself, lies in the workdir, their folders stay.

    Args:
      argv: the arguments, of which `--workdir` counts; they need not be right.
      folders: as of `sys.path`; "" is the current directory.
    """
    workdir = _typed_workdir(argv)
    if not workdir or "\0" in workdir:
        return folders
    workdir = os.path.realpath(os.path.expanduser(workdir))
    program = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    python = [os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)]

    def stays(folder: str) -> bool:
        place = os.path.realpath(folder or os.curdir)
        ours = place == program or any(_lies_in(place, prefix) for prefix in python)
        return ours or not _lies_in(place, workdir)

    return [folder for folder in folders if stays(folder)]


def _typed_workdir(argv: list[str]) -> str:
    """The value of `--workdir`, the last one where there are several; empty where there is none."""
    workdir = ""
    for k, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in ("--workdir", "-workdir"):
            workdir = value if equals else "".join(argv[k + 1 : k + 2])
    return workdir


def _lies_in(place: str, folder: str) -> bool:
    """Whether a real path is a folder itself or lies below it."""
    return place == folder or place.startswith(os.path.join(folder, ""))


def leave(code: str | int | None) -> None:
    """Ends the process; where another host is gone, without TensorFlow's end, which waits for it.

    Everything is written by then. With a cable pulled, TensorFlow waited for 45 seconds.
    """
    if code == PEER_LOST:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as ended:
        leave(ended.code)
    else:
        leave(code)
