"""mAP: overlaps, suppression and the precision-recall area, by hand."""

import numpy as np
import pytest

from experiments.gallery.average_precision import (
    average_precision,
    kept,
    mean_average_precision,
    overlaps,
)

BOX, AWAY = [0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]
HALF = [0.55, 0.5, 0.2, 0.2]  # moved by a quarter: 3 / 5 of BOX and it in common


def test_overlaps_by_hand():
    found = overlaps(np.array([BOX, AWAY]), np.array([BOX, HALF, AWAY]))
    np.testing.assert_allclose(found, [[1, 0.6, 0], [0, 0, 1]], atol=1e-12)


def test_of_boxes_that_overlap_the_one_with_the_highest_score_stays():
    boxes = np.array([BOX, HALF, AWAY])
    assert kept(boxes, np.array([0.3, 0.9, 0.5])).tolist() == [1, 2]
    assert kept(boxes, np.array([0.3, 0.9, 0.5]), threshold=0.7).tolist() == [1, 2, 0]
    assert kept(np.zeros((0, 4)), np.zeros(0)).tolist() == []


def test_the_area_of_three_detections_of_three_boxes_by_hand():
    """Right, wrong, right; one box is never found: precision 1 up to recall 1/3, 2/3 up to 2/3."""
    found = [(np.array([BOX, AWAY]), np.array([0.9, 0.8])), (np.array([BOX]), np.array([0.7]))]
    true = [np.array([BOX]), np.array([HALF, AWAY])]
    assert average_precision(found, true) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(found, true, threshold=0.7) == pytest.approx(1 / 3)


def test_a_box_is_found_once():
    """Twice the same box: the second detection is wrong, and lowers the precision after it."""
    found = [(np.array([BOX, BOX, AWAY]), np.array([0.9, 0.8, 0.7]))]
    assert average_precision(found, [np.array([BOX, AWAY])]) == pytest.approx((1 + 2 / 3) / 2)


def test_the_precision_at_a_recall_is_the_best_from_there_on():
    """Wrong, right, right: precisions 0, 1/2, 2/3; the area is 2/3, not their mean."""
    wrong = [0.9, 0.9, 0.1, 0.1]
    found = [(np.array([wrong, BOX, AWAY]), np.array([0.9, 0.8, 0.7]))]
    assert average_precision(found, [np.array([BOX, AWAY])]) == pytest.approx(2 / 3)


def test_nothing_found_is_0_and_a_class_without_a_box_does_not_count():
    nothing = (np.zeros((0, 4)), np.zeros(0))
    assert average_precision([nothing], [np.array([BOX])]) == 0.0
    assert np.isnan(average_precision([nothing], [np.zeros((0, 4))]))
    detected = [(np.array([BOX, BOX]), np.array([0.9, 0.8]), np.array([1, 2]))]
    true = [(np.array([BOX, AWAY]), np.array([1, 0]))]
    assert mean_average_precision(detected, true, classes=3) == pytest.approx(0.5)  # 0, 1; no 2


def by_definition(found, true, threshold=0.5):
    """The area as a sum over recalls k / m, each with the best precision at that recall or more."""
    ranked = sorted(
        ((s, i, tuple(b)) for i, (bs, ss) in enumerate(found) for b, s in zip(bs, ss, strict=True)),
        reverse=True,
    )
    taken, points, hits = set(), [], 0
    for count, (_, i, box) in enumerate(ranked, 1):
        shares = [overlap(box, other) for other in true[i]]
        best = int(np.argmax(shares)) if shares else None
        if best is not None and shares[best] >= threshold and (i, best) not in taken:
            taken.add((i, best))
            hits += 1
        points.append((hits, hits / count))
    total = sum(len(boxes) for boxes in true)
    best_at = [max([p for h, p in points if h >= k], default=0.0) for k in range(1, total + 1)]
    return sum(best_at) / total


def overlap(box, other):
    sides = []
    for axis in (0, 1):
        low = max(box[axis] - box[axis + 2] / 2, other[axis] - other[axis + 2] / 2)
        high = min(box[axis] + box[axis + 2] / 2, other[axis] + other[axis + 2] / 2)
        sides.append(max(high - low, 0.0))
    common = sides[0] * sides[1]
    return common / (box[2] * box[3] + other[2] * other[3] - common)


@pytest.mark.parametrize("seed", range(5))
def test_random_detections_are_those_of_the_definition(seed):
    draw = np.random.default_rng(seed)
    true = [draw.uniform(0.2, 0.8, (count, 4)) for count in (3, 0, 2, 4)]
    found = []
    for boxes in true:
        near = boxes + draw.normal(0, 0.07, boxes.shape)
        more = np.abs(np.concatenate([near, draw.uniform(0.2, 0.8, (2, 4))]))
        found.append((more, draw.uniform(size=len(more))))
    value = average_precision(found, true)
    assert value == pytest.approx(by_definition(found, true)) and 0.1 < value < 1
