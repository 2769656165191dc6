"""The gallery's detector, reduced: both variants are one training; boxes and mAP by hand."""

import keras
import numpy as np
import pytest

import losses
from experiments.configs import detection as config_file
from experiments.gallery import detection


def made(**changes):
    config = config_file.get_config()
    config.update({"steps": 2, "log_every": 1, "validate_every": 2, "checkpoint_every": 2})
    config.update({"scenes": {"train": 8, "validation": 2, "test": 4}, "batch_size": 4})
    config.update({"model": {"channels": (4, 4, 6, 6)}, "compared_steps": 3, **changes})
    return detection.experiment(config.lock(), strategy="one_device", workdir=None)


@pytest.fixture(scope="module")
def trained():
    experiment = made()
    rows = experiment.trainer.fit(experiment.train_data, verbose=False, **experiment.fit).rows
    return experiment, rows


def test_the_five_parts_are_terms_that_add_up(trained):
    _, rows = trained
    parts = [rows[0][f"raw/yolo/{p}"] for p in ("xy", "wh", "objectness", "no_object", "class")]
    assert rows[0]["total"] == pytest.approx(sum(parts), rel=1e-5) and min(parts) > 0


@pytest.mark.very_slow
def test_the_check_tells_the_precision_and_that_the_variants_agree(trained):
    experiment, _ = trained
    checks = experiment.check(experiment.trainer)
    assert checks["variants apart"].reached and checks["variants apart"].at_most == 1e-5
    assert checks["mAP@0.5"].value < 0.5 and checks["mAP@0.5"].at_least == 0.8  # after two steps


def test_both_variants_are_trained_before_they_are_compared(monkeypatch):
    """Each from the same weights, by terms of its own, to other weights than the first."""
    made_trainers = []
    make = detection.make_trainer

    def noted(config, /, **arguments):
        made_trainers.append(make(config, **arguments))
        return made_trainers[-1]

    monkeypatch.setattr(detection, "make_trainer", noted)
    config = config_file.get_config()
    config.update({"steps": 2, "batch_size": 4, "compared_steps": 2})
    config.update({"model": {"channels": (4, 4, 6, 6)}})
    apart = detection.weights_apart(config.lock(), *detection.scenes("train", 8, seed=0))
    terms, in_graph = made_trainers
    assert "yolo/xy" in terms.describe() and "yolo_loss" in in_graph.describe()
    first = detection.build_detector(config).get_weights()
    for trainer in made_trainers:
        assert int(trainer.step) == 2
        moved = detection.detector_of(trainer).get_weights()
        assert max(np.abs(a - b).max() for a, b in zip(first, moved, strict=True)) > 1e-3
    assert 0 <= apart < 1e-5


def test_a_detector_that_says_the_labels_finds_every_digit():
    """The raw outputs are made by hand of the true boxes; the mAP is then 1."""
    images, labels = detection.scenes("validation", 6, seed=1)
    assigned = losses.assign_boxes(
        labels["boxes"],
        labels["classes"],
        anchors=detection.ANCHORS,
        grids=detection.GRIDS,
        num_classes=10,
    )
    raw = []
    for label, anchors, (rows, columns) in zip(
        assigned, detection.ANCHORS, detection.GRIDS, strict=True
    ):
        label = np.asarray(label)
        cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)[None, :, :, None]
        within = np.clip(label[..., :2] * [columns, rows] - cells, 1e-4, 1 - 1e-4)
        sizes = np.log(np.where(label[..., 2:4] > 0, label[..., 2:4], anchors) / anchors)
        sure = np.where(label[..., 4:] > 0, 9.0, -9.0)
        raw.append(np.concatenate([np.log(within / (1 - within)), sizes, sure], -1))

    class Told(keras.Model):
        def predict(self, x, **arguments):
            return raw

    found = detection.detections(Told(), images)
    true = detection.true_boxes(labels)
    assert detection.mean_average_precision(found, true, 10) == pytest.approx(1.0)
    wrong = [(boxes, scores, (ids + 1) % 10) for boxes, scores, ids in found]
    assert detection.mean_average_precision(wrong, true, 10) < 0.5


def test_the_loss_in_the_graph_needs_no_label_and_its_detector_gives_boxes():
    experiment = made(variant="in_graph", steps=1)
    rows = experiment.trainer.fit(experiment.train_data, verbose=False, **experiment.fit).rows
    assert list(rows[0])[:1] and rows[0]["raw/yolo_loss"] > 0
    detector = detection.detector_of(experiment.trainer)
    outputs = detector.predict(experiment.test_data[0]["image"], verbose=0)
    assert [each.shape for each in outputs] == [(4, 8, 8, 2, 15), (4, 16, 16, 2, 15)]


def test_the_picture_shows_four_scenes(trained):
    experiment, _ = trained
    assert len(experiment.picture(experiment.trainer).axes) == 4


def test_another_variant_is_refused():
    with pytest.raises(losses.TermwiseError, match="'none': accepted are"):
        made(variant="none")
