"""Scenes of digits: where the boxes say, of one split alone, and always the same."""

import numpy as np
import pytest

from experiments.gallery import scenes


@pytest.fixture(scope="module")
def some():
    return scenes.scenes("train", 40, seed=3)


def test_the_ink_is_within_the_boxes_and_none_is_empty(some):
    images, labels = some
    assert images.shape == (40, 128, 128, 1) and images.dtype == np.uint8
    for image, boxes in zip(images, labels["boxes"], strict=True):
        outside = image[..., 0].astype(float)
        for x, y, width, height in boxes[boxes[:, 2] > 0] * scenes.SIDE:
            left, top = round(x - width / 2), round(y - height / 2)
            assert min(left, top) >= 0 and max(left + width, top + height) <= scenes.SIDE
            part = outside[top : top + round(height), left : left + round(width)]
            part[:] = 0.0
            there = image[top : top + round(height), left : left + round(width)]
            assert there.max() > 150
        assert outside.max() < 60  # noise of 8 grey levels alone


def test_there_are_two_to_five_digits_of_every_kind_and_size(some):
    _, labels = some
    there = labels["boxes"][..., 2] > 0
    assert set(there.sum(1)) <= {1, 2, 3, 4, 5} and len(set(there.sum(1))) >= 3
    assert set(labels["classes"][there]) == set(range(10))
    sides = labels["boxes"][..., 2][there] * scenes.SIDE
    assert 24 <= sides.min() < 30 and 50 < sides.max() <= 56
    assert (labels["boxes"][~there] == 0).all()


def test_digits_hardly_overlap(some):
    from experiments.gallery.average_precision import overlaps

    for boxes in some[1]["boxes"]:
        real = boxes[boxes[:, 2] > 0]
        assert (overlaps(real, real) - np.eye(len(real)) < 0.06).all()  # 0.1 of the smaller


def test_a_seed_gives_the_same_scenes_and_another_one_others():
    one, same, other = (scenes.scenes("test", 2, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_scaled_image_keeps_its_mean_and_its_corners():
    image = np.add.outer(np.arange(8.0), np.arange(8.0))
    larger = scenes.scaled(image, 32)
    assert larger.shape == (32, 32) and larger[0, 0] == 0 and larger[-1, -1] == 14
    assert larger.mean() == pytest.approx(image.mean())
    np.testing.assert_allclose(np.diff(larger[16, 4:28]), 0.25)  # linear between the pixels
    np.testing.assert_array_equal(scenes.scaled(image, 8), image)
