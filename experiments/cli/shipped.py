"""The configurations that come with the package, found from any folder: `--config=digits`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "configs"


def locate(path: str) -> str:
    """The file that `--config=` means.

    Args:
      path: a file of the user's, which comes first; else a configuration of the package, by its
        name (`digits`) or as this repository writes it (`experiments/configs/digits.py`).
    Returns:
      str; `path` itself where the package has none of that name.

    Example:
      >>> Path(locate("digits")).name
      'digits.py'
      >>> locate("mine.py")
      'mine.py'
    """
    given = Path(path)
    is_ours = len(given.parts) == 1 or given.parts[:-1] == ("experiments", "configs")
    if not is_ours or given.stem not in names() or given.is_file():
        return path
    return str(FOLDER / f"{given.stem}.py")


def names() -> list[str]:
    """The configurations of the package, in the order of the alphabet."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")
