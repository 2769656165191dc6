"""Where the digits of a scene are, and which: a small YOLOv3 on scenes of real handwritten digits.

A convolutional network looks at 128x128 pixels and says at two scales, for each cell and anchor,
whether a digit has its centre there, where its edges are, and which it is. The five parts of the
loss are terms of their own. Variant `in_graph` computes the same loss inside the model, which is
given the labels as inputs and has the loss as its output; it is trained by the loss
`lambda y_true, y_pred: y_pred`, as was done with Keras before. Both are the same training: the
check trains some steps of each, and compares the weights.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.average_precision import kept, mean_average_precision
from experiments.gallery.scenes import SIDE, scenes
from experiments.gallery.variants import checked_variant
from trainer import Trainer

VARIANTS = ("terms", "in_graph")
ANCHORS = [[[0.42, 0.42], [0.34, 0.34]], [[0.27, 0.27], [0.2, 0.2]]]  # of both scales, parts of 128
GRIDS = [(8, 8), (16, 16)]
DIGITS = 10
SHOWN = 0.05  # the least score of a box that is looked at


def build_detector(config) -> keras.Model:
    """image [128, 128, 1] of 0 to 255 -> [8, 8, 2, 15] and [16, 16, 2, 15], raw as YOLOv3's."""
    keras.utils.set_random_seed(config.seed)  # both variants begin alike

    def convolved(inputs, channels, size=3, strides=1):
        layer = keras.layers.Conv2D(channels, size, strides, padding="same", use_bias=False)
        normalized = keras.layers.BatchNormalization(momentum=0.9)(layer(inputs))
        return keras.layers.LeakyReLU(0.1)(normalized)

    def head(inputs, grid):
        # float32 under any --precision: losses are computed of it
        raw = keras.layers.Conv2D(len(ANCHORS[0]) * (5 + DIGITS), 1, dtype="float32")(inputs)
        return keras.layers.Reshape((*grid, len(ANCHORS[0]), 5 + DIGITS), dtype="float32")(raw)

    image = keras.Input((SIDE, SIDE, 1), name="image", dtype="uint8")
    first, second, third, last = config.model.channels
    hidden = convolved(keras.layers.Rescaling(1 / 255)(image), first, strides=2)
    hidden = convolved(hidden, second, strides=2)
    fine = convolved(convolved(hidden, third, strides=2), third)
    coarse = convolved(convolved(fine, last, strides=2), last)
    above = keras.layers.UpSampling2D()(convolved(coarse, third // 2, 1))
    fine = convolved(keras.layers.Concatenate()([fine, above]), third)
    outputs = [head(features, grid) for features, grid in zip((coarse, fine), GRIDS, strict=True)]
    return keras.Model(image, outputs, name="detector")


def yolo_parts(boxes, classes, raw) -> dict[str, tf.Tensor]:
    """The five parts of the loss by name, float32 [scenes] each.

    Args:
      boxes, classes: of `scenes`.
      raw: the detector's outputs.
    """
    labels = losses.assign_boxes(boxes, classes, anchors=ANCHORS, grids=GRIDS, num_classes=DIGITS)
    return losses.YOLOv3(ANCHORS, DIGITS).parts(labels, raw)


class YoloLoss(keras.layers.Layer):
    """The loss of each scene as a layer: the old way, for a model that knows its labels."""

    def call(self, raw, boxes, classes):
        return tf.add_n(list(yolo_parts(boxes, classes, raw).values()))


def build_in_graph(config) -> keras.Model:
    """image, boxes, classes -> yolo_loss [scenes]."""
    detector = build_detector(config)
    boxes, classes = keras.Input((None, 4), name="boxes"), keras.Input((None,), name="classes")
    loss = YoloLoss(name="yolo_loss", dtype="float32")(
        detector(detector.input), boxes, keras.ops.cast(classes, "int32")
    )
    inputs = {"image": detector.input, "boxes": boxes, "classes": classes}
    return keras.Model(inputs, {"yolo_loss": loss})


def detector_of(trainer) -> keras.Model:
    """The part of the trained model that needs no label."""
    model = trainer.model
    return model if model.name == "detector" else model.get_layer("detector")


def yolo(step):
    """The term: its parts are terms `yolo/xy`, `yolo/wh`, `yolo/objectness` and so on."""
    return yolo_parts(step.y["boxes"], step.y["classes"], step.y_pred)


def make_trainer(config, /, **arguments) -> Trainer:
    """The Trainer of a variant."""
    rate = keras.optimizers.schedules.CosineDecay(config.optimizer.learning_rate, config.steps)
    arguments = {"optimizer": keras.optimizers.Adam(rate), "seed": config.seed, **arguments}
    if config.variant == "in_graph":
        loss = {"yolo_loss": lambda y_true, y_pred: y_pred}
        return Trainer(lambda: build_in_graph(config), loss=loss, **arguments)
    return Trainer(lambda: build_detector(config), terms=[losses.term(yolo)], **arguments)


def data_of(variant: str, images, labels):
    """Scenes as a variant takes them: (images, labels), or all as inputs and no label."""
    return ({"image": images, **labels},) if variant == "in_graph" else (images, labels)


def detections(detector, images) -> list:
    """For each scene (boxes [n, 4], scores [n], digits [n]), the best of those that overlap."""
    raw = detector.predict(images, batch_size=32, verbose=0)
    found = []
    all_boxes, all_scores = (np.asarray(t) for t in losses.detected_boxes(raw, ANCHORS))
    for boxes, scores in zip(all_boxes, all_scores, strict=True):
        parts = []
        for digit in range(DIGITS):
            some = np.flatnonzero(scores[:, digit] > SHOWN)
            best = some[kept(boxes[some], scores[some, digit])]
            parts.append((boxes[best], scores[best, digit], np.full(len(best), digit)))
        found.append(tuple(np.concatenate(each) for each in zip(*parts, strict=True)))
    return found


def true_boxes(labels) -> list:
    """For each scene (boxes [m, 4], digits [m]), without padding."""
    there = labels["boxes"][..., 2] > 0
    return [
        (boxes[some], classes[some])
        for boxes, classes, some in zip(labels["boxes"], labels["classes"], there, strict=True)
    ]


def weights_apart(config, images, labels) -> float:
    """The largest difference of the detector's weights between both variants, after some steps."""
    weights = []
    for variant in VARIANTS:
        changed = config.copy_and_resolve_references()
        changed.variant = variant
        trainer = make_trainer(changed, strategy="one_device")
        data = data_of(variant, images, labels)
        trainer.fit(data, steps=config.compared_steps, batch_size=config.batch_size, verbose=False)
        weights.append(detector_of(trainer).get_weights())
    return max(float(np.abs(a - b).max()) for a, b in zip(*weights, strict=True))


def check(trainer, config, train, test) -> dict[str, Check]:
    """The mean average precision on scenes of digits of their own; and that the variants agree."""
    found = detections(detector_of(trainer), test[0])
    precision = mean_average_precision(found, true_boxes(test[1]), DIGITS)
    apart = weights_apart(config, *train)
    return {
        "mAP@0.5": Check(precision, at_least=0.8),
        "variants apart": Check(apart, at_most=1e-5),
    }


def picture(trainer, test):
    """Four scenes with the boxes that are found."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    images = test[0][:4]
    figure = Figure(figsize=(6, 6))
    found = detections(detector_of(trainer), images)
    for axes, image, boxes in zip(figure.subplots(2, 2).flat, images, found, strict=True):
        axes.imshow(image[..., 0], cmap="gray_r")
        axes.set_axis_off()
        for (x, y, width, height), score, digit in zip(*boxes, strict=True):
            if score > 0.5:
                left, top = (x - width / 2) * SIDE, (y - height / 2) * SIDE
                frame = Rectangle((left, top), width * SIDE, height * SIDE, fill=False, color="C3")
                axes.add_patch(frame)
                axes.text(left, top, f"{digit} {score:.2f}", color="C3", va="bottom", fontsize=8)
    figure.tight_layout()
    return figure


def experiment(config, *, strategy, workdir) -> Experiment:
    """As `config` says.

    Args:
      config: ConfigDict of `experiments/configs/detection.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    Raises:
      ValueError: a variant that is none of `VARIANTS`.
    """
    checked_variant(config, VARIANTS)
    counts = config.scenes
    train, validation, test = (
        scenes(split, counts[split], seed=config.seed + 1000 * number)
        for number, split in enumerate(("train", "validation", "test"))
    )
    trainer = make_trainer(config, strategy=strategy, workdir=workdir, config=config.to_dict())
    return Experiment(
        trainer,
        data_of(config.variant, *train),
        data_of(config.variant, *validation),
        data_of(config.variant, *test),
        fit=fit_settings(config),
        check=lambda trainer: check(trainer, config, train, test),
        picture=lambda trainer: picture(trainer, test),
    )
