"""Mean average precision of detected boxes, as the field measures it: mAP at an overlap of 0.5."""

from __future__ import annotations

import numpy as np


def overlaps(boxes, others):
    """IoU [boxes, others] of boxes [..., 4] given by centre and size."""
    low = np.maximum(*_pairs(boxes[:, :2] - boxes[:, 2:] / 2, others[:, :2] - others[:, 2:] / 2))
    high = np.minimum(*_pairs(boxes[:, :2] + boxes[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2))
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    area, other_area = np.prod(boxes[:, 2:], axis=-1), np.prod(others[:, 2:], axis=-1)
    return common / np.maximum(area[:, None] + other_area[None] - common, 1e-12)


def _pairs(rows, columns):
    return rows[:, None], columns[None]


def kept(boxes, scores, threshold: float = 0.45):
    """The boxes that no box of a higher score overlaps by more than a threshold: indices.

    Args:
      boxes: [boxes, 4], of one class of one image.
      scores: [boxes].
    """
    indices: list[int] = []
    overlap = overlaps(boxes, boxes)
    for index in np.argsort(-scores, kind="stable"):
        if all(overlap[index, other] <= threshold for other in indices):
            indices.append(index)
    return np.array(indices, int)


def average_precision(found, true, threshold: float = 0.5) -> float:
    """The area below the precision-recall curve of one class.

    Detections are taken by falling score. One is right if the true box of its image that it
    overlaps most is overlapped by the threshold or more, and was not found before. The precision
    at a recall is the best at that recall or a higher one.

    Args:
      found: list, for each image (boxes [n, 4], scores [n]).
      true: list, for each image boxes [m, 4].
    Returns:
      float in [0, 1]; NaN where there is no true box.
    Source: Everingham et al. 2010 (PASCAL VOC), with all points as from 2010 on.
    """
    total = sum(len(boxes) for boxes in true)
    if not total:
        return float("nan")
    ranked = [
        (score, image, box)
        for image, (boxes, scores) in enumerate(found)
        for box, score in zip(boxes, scores, strict=True)
    ]
    ranked.sort(key=lambda each: -each[0])
    taken = [np.zeros(len(boxes), bool) for boxes in true]
    right = np.zeros(len(ranked))
    for place, (_, image, box) in enumerate(ranked):
        if len(true[image]):
            overlap = overlaps(box[None], true[image])[0]
            best = int(overlap.argmax())
            if overlap[best] >= threshold and not taken[image][best]:
                taken[image][best], right[place] = True, 1
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(ranked) + 1)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best_from * right) / total)


def mean_average_precision(detections, true, classes: int, threshold: float = 0.5) -> float:
    """The mean of the average precisions of the classes that occur.

    Args:
      detections: list, for each image (boxes [n, 4], scores [n], class ids [n]).
      true: list, for each image (boxes [m, 4], class ids [m]).
      classes: how many there are.
    """
    values = []
    for number in range(classes):
        found = [(boxes[ids == number], scores[ids == number]) for boxes, scores, ids in detections]
        there = [boxes[ids == number] for boxes, ids in true]
        values.append(average_precision(found, there, threshold))
    return float(np.nanmean(values))
