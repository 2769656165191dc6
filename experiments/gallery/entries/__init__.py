"""The entries of the gallery: a file for each experiment, which defines `ENTRY`.

The entry in `x.py` runs `experiments/configs/x.py` and has the picture `docs/gallery/x.png`. It is
found by its place; nothing lists them. None imports TensorFlow.
"""

__all__ = []
