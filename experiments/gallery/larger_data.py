"""Data too large for memory: TFRecord files, or a function that gives dicts as TFDS does.

    --config.data.files=PATTERN     TFRecord files; a pattern, or several between commas
    --config.data.function=NAME     module:function, called with "train" and with "test"

The function returns a `tf.data.Dataset` of {"image", "label"}, one example after another, as
`tensorflow_datasets.load(name, split=split)` does. Files are read several at a time, and each host
reads its own share of them; of a function's examples each host takes its share. All shuffles are
seeded, so that a run that is stopped goes on with the batches that it would have had.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.digits import split_digits
from experiments.experiment import Check, Experiment
from trainer import Trainer

FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], "int64"),
}


def digits(split: str) -> tf.data.Dataset:
    """scikit-learn's digits as TFDS would: image uint8 [8, 8, 1] of 0 to 16, label int64 []."""
    x, y = split_digits()[split]
    examples = {"image": x.astype("uint8"), "label": y.astype("int64")}
    return tf.data.Dataset.from_tensor_slices(examples)


def write_files(examples: tf.data.Dataset, folder, count: int) -> list[Path]:
    """Writes the examples of a function as TFRecord files, in turns.

    Args:
      examples: of {"image": uint8, "label": int}.
      folder: made when missing.
      count: how many files.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    files = [Path(folder, f"digits-{k:03d}-of-{count:03d}.tfrecord") for k in range(count)]
    for k, file in enumerate(files):
        with tf.io.TFRecordWriter(str(file)) as writer:
            for example in examples.shard(count, k).as_numpy_iterator():
                image = tf.train.BytesList(value=[example["image"].tobytes()])
                label = tf.train.Int64List(value=[int(example["label"])])
                features = {
                    "image": tf.train.Feature(bytes_list=image),
                    "label": tf.train.Feature(int64_list=label),
                }
                record = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(record.SerializeToString())
    return files


def find_files(patterns: str, hosts: int = 1) -> list[str]:
    """The files of some patterns, sorted, so that all hosts have them in one order.

    Raises:
      ValueError: there are fewer than hosts: one would have nothing to read.
    """
    files = sorted({file for pattern in patterns.split(",") for file in tf.io.gfile.glob(pattern)})
    if len(files) < max(1, hosts):
        raise ValueError(
            f"--config.data.files={patterns}: {len(files)} files, and each of {hosts} hosts reads "
            "its own. Give at least as many files as hosts."
        )
    return files


def parse(records):
    """A batch of records [examples] as x float32 [examples, 8, 8, 1], y int64 [examples]."""
    parsed = tf.io.parse_example(records, FEATURES)
    image = tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), [-1, 8, 8, 1])
    return tf.cast(image, tf.float32), parsed["label"]


def as_pair(example):
    """A batch of TFDS's dicts as (x, y)."""
    return tf.cast(example["image"], tf.float32), example["label"]


def of_files(config, context) -> tf.data.Dataset:
    """This host's part of each global batch, read from its share of the files."""
    hosts, own = context.num_input_pipelines, context.input_pipeline_id
    files = find_files(config.data.files, hosts)[own::hosts]
    data = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=config.seed)
    data = data.interleave(
        tf.data.TFRecordDataset,
        cycle_length=config.data.read_at_once,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,  # else a run that goes on would read in another order
    )
    data = data.shuffle(config.data.shuffled, seed=config.seed).repeat()
    data = data.batch(config.batch_size // hosts, drop_remainder=True)
    return data.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def of_function(config, context, function: Callable) -> tf.data.Dataset:
    """This host's part of each global batch, of its share of a function's examples."""
    hosts, own = context.num_input_pipelines, context.input_pipeline_id
    data = function("train").shard(hosts, own).shuffle(config.data.shuffled, seed=config.seed)
    data = data.repeat().batch(config.batch_size // hosts, drop_remainder=True)
    return data.map(as_pair, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def named_function(name: str) -> Callable:
    """The function that `module:function` names.

    Raises:
      ValueError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--config.data.function={name}: {error}. Give module:function, such as "
            "experiments.gallery.larger_data:digits."
        ) from error


def experiment(config, *, strategy, workdir) -> Experiment:
    """A small network on the data of `config.data`.

    Args:
      config: ConfigDict of `experiments/configs/larger_data.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    function = named_function(config.data.function)
    if config.data.files:
        if config.data.write and not tf.io.gfile.glob(config.data.files):
            write_files(function("train"), Path(config.data.files).parent, config.data.write)
        find_files(config.data.files)
    test = function("test").batch(config.batch_size).map(as_pair)
    trainer = Trainer(
        lambda: keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Rescaling(1 / 16),
                keras.layers.Flatten(),
                keras.layers.Dense(config.hidden, activation="relu"),
                keras.layers.Dense(10, dtype="float32"),
            ]
        ),
        optimizer=keras.optimizers.Adam(config.optimizer.learning_rate),
        loss=losses.SparseCrossentropy(from_logits=True),
        metrics=["accuracy"],
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )

    def own_part(context):
        if config.data.files:
            return of_files(config, context)
        return of_function(config, context, function)

    def check(trainer):
        accuracy = trainer.evaluate(test)["metrics/accuracy"]
        return {"accuracy": Check(accuracy, at_least=config.aim)}

    def picture(trainer):
        return draw(test, trainer.predict(test).argmax(-1))

    fit = {name: config[name] for name in ("steps", "log_every", "checkpoint_every")}
    return Experiment(trainer, own_part, test_data=test, fit=fit, check=check, picture=picture)


def draw(test, found):
    """The test examples that were taken for another digit, at most ten of them."""
    from matplotlib.figure import Figure

    x, y = (np.concatenate(part) for part in zip(*test.as_numpy_iterator(), strict=True))
    wrong = np.flatnonzero(found != y)[:10]
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    for axes, index in zip(figure.subplots(2, 5).ravel(), [*wrong, *[None] * 10], strict=False):
        axes.axis("off")
        if index is not None:
            axes.imshow(x[index, ..., 0], cmap="gray_r")
            axes.set_title(f"{y[index]} taken for {found[index]}", fontsize=8)
    return figure
