"""100 labels and a mean teacher beside all labels."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured

ACCURACY = "test accuracy"


def aims(measured: Measured) -> dict[str, Check]:
    """How far 100 labels stay behind all of them, and what they are without the teacher."""
    behind = measured.gap(ACCURACY, "all labels", "mean teacher")
    above = measured.gap(ACCURACY, "mean teacher", "labels alone")
    return {
        "accuracy behind all labels": Check(behind.mean, at_most=0.02),
        "accuracy above the labels alone, in standard errors": Check(above.in_errors, at_least=2),
    }


ENTRY = Entry(
    "Labelled and unlabelled sources: a mean teacher (`losses.MeanTeacher`) tells the student what "
    "the images without a label are; 100 labels of 1,078.",
    variants={
        "mean teacher": (),
        "labels alone": ("--config.variant=labels_alone",),
        "all labels": ("--config.variant=all_labels",),
    },
    aims=aims,
)
