"""Scenes of handwritten digits for detection: scikit-learn's real digits, scaled, on one canvas."""

from __future__ import annotations

import numpy as np

from experiments.digits import split_digits

SIDE = 128  # pixels of a scene
SIZES = (24, 56)  # pixels of a digit's side: from, to
MOST = 5  # digits of a scene
OVERLAP = 0.1  # of the smaller of two boxes, at most


def scaled(image, side: int):
    """An image [8, 8] at another size [side, side], linear between the centres of its pixels."""
    places = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
    low = np.minimum(places.astype(int), 6)
    part = places - low
    rows = image[low] * (1 - part)[:, None] + image[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def scene(images, labels, draw):
    """One scene of 2 to `MOST` digits at random places and sizes, nearly apart from each other.

    Args:
      images: [digits, 8, 8] of 0 to 16.
      labels: int [digits].
      draw: numpy Generator.
    Returns:
      uint8 [128, 128, 1]; boxes float32 [MOST, 4], x, y of the centre, width and height as parts
      of the scene's side, rows of zeros where there is no digit; classes int32 [MOST].
    """
    canvas = np.zeros((SIDE, SIDE))
    corners: list[tuple[int, int, int]] = []
    boxes, classes = np.zeros((MOST, 4), "float32"), np.zeros(MOST, "int32")
    wanted = draw.integers(2, MOST + 1)
    for _ in range(10 * wanted):
        size = int(draw.integers(SIZES[0], SIZES[1] + 1))
        top, left = draw.integers(0, SIDE - size + 1, 2)
        if len(corners) == wanted or any(_covered((top, left, size), c) > OVERLAP for c in corners):
            continue
        which, place = draw.integers(len(images)), len(corners)
        part = canvas[top : top + size, left : left + size]
        np.maximum(part, scaled(images[which], size) * 15, out=part)
        boxes[place] = np.array([left + size / 2, top + size / 2, size, size]) / SIDE
        classes[place] = labels[which]
        corners.append((top, left, size))
    noise = draw.normal(0, 8, canvas.shape)
    return np.clip(canvas + noise, 0, 255).astype("uint8")[..., None], boxes, classes


def _covered(one, other) -> float:
    """The common area of two squares as a part of the smaller one's."""
    sides = [
        max(0, min(a + one[2], b + other[2]) - max(a, b))
        for a, b in zip(one[:2], other[:2], strict=True)
    ]
    return sides[0] * sides[1] / min(one[2], other[2]) ** 2


def scenes(split: str, count: int, seed: int):
    """Scenes made of the digits of one split alone.

    Args:
      split: "train", "validation" or "test".
      count: of scenes.
      seed: int; the same one gives the same scenes.
    Returns:
      uint8 [count, 128, 128, 1], {"boxes": float32 [count, MOST, 4], "classes": int32
      [count, MOST]}.
    """
    x, y = split_digits()[split]
    draw = np.random.default_rng(seed)
    made = [scene(x[..., 0], y, draw) for _ in range(count)]
    images, boxes, classes = (np.stack(part) for part in zip(*made, strict=True))
    return images, {"boxes": boxes, "classes": classes}
