"""Exports over an earlier one, which faults of the disk meet; run by kill_worker.py."""

import json
import os
import traceback

import keras
import numpy as np
import tensorflow as tf

from trainer import TermwiseError
from trainer.reading import export_model

X = np.ones((1, 2), "float32")


def make_model(value):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((2, 1), value, "float32")])
    return model


def export_cases(cases, value=2.0):
    """Exports a model of weights `value` to `model` in each case's folder.

    Args:
      cases: for each the folder and the environment of its fault. How it ended, and what was said,
        comes into `result.json` in the folder.
    """
    for folder, disk in cases:
        os.environ.update(disk)
        code, said = 0, ""
        try:
            export_model(make_model(value), f"{folder}/run/model")
        except TermwiseError as error:
            code, said = 2, str(error)
        except Exception:
            code, said = 1, traceback.format_exc()
        os.environ["DISK_FAULT"] = ""
        with open(f"{folder}/result.json", "w") as file:
            json.dump([code, said], file)
    os.write(1, b"returned\n")


def version_of(folder):
    """The weights' value of an export, whose two forms must agree."""
    saved = tf.saved_model.load(str(folder))  # its variables live as long as it does
    served = float(saved.serve(X)[0, 0]) / 2
    kept = float(keras.saving.load_model(folder / "model.keras").get_weights()[0][0, 0])
    assert served == kept
    return served
