"""TFRecord files and a TFDS-shaped function: read whole, shared out to hosts, trained."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from experiments.configs import larger_data as config_file
from experiments.digits import split_digits
from experiments.gallery.larger_data import (
    digits,
    experiment,
    find_files,
    named_function,
    of_files,
    of_function,
    parse,
    write_files,
)


def few(split):
    """Forty digits, in the form of TFDS."""
    return digits(split).take(40)


@pytest.fixture
def files(tmp_path):
    """A pattern of four files of ten digits each."""
    write_files(few("train"), tmp_path / "files", 4)
    return str(tmp_path / "files" / "*.tfrecord")


def config(**fields):
    made = config_file.get_config()
    made.batch_size, made.steps = 8, 6
    made.log_every = made.checkpoint_every = 3
    made.data.update(fields)
    return made.lock()


def context(hosts, own):
    return tf.distribute.InputContext(hosts, own, hosts)


def examples(dataset, batches):
    """The images that some batches hold, as bytes, in order."""
    return [image.tobytes() for x, _ in dataset.take(batches).as_numpy_iterator() for image in x]


def test_files_hold_what_the_function_gave(files):
    records = tf.data.TFRecordDataset(find_files(files)).batch(40).map(parse)
    ((x, y),) = records.as_numpy_iterator()
    assert (x.shape, x.dtype, y.dtype) == ((40, 8, 8, 1), "float32", "int64")
    images, labels = (part[:40] for part in split_digits()["train"])
    # file k of 4 holds the examples k, k + 4, ...
    order = np.concatenate([np.arange(k, 40, 4) for k in range(4)])
    np.testing.assert_array_equal(x, images[order])
    np.testing.assert_array_equal(y, labels[order])


@pytest.mark.parametrize("kind", ["files", "function"])
def test_hosts_read_shares_that_make_the_whole_and_in_the_same_order_each_time(kind, files):
    made = config(files=files)

    def part(hosts, own):
        if kind == "files":
            return of_files(made, context(hosts, own))
        return of_function(made, context(hosts, own), few)

    whole = examples(part(1, 0), 5)
    assert len(whole) == len(set(whole)) == 40
    shares = [examples(part(2, own), 5) for own in (0, 1)]  # 4 of the 8 of a batch each
    assert [len(share) for share in shares] == [20, 20]
    assert sorted(shares[0] + shares[1]) == sorted(whole)
    assert examples(part(2, 1), 5) == shares[1]
    assert whole != sorted(whole) and examples(part(1, 0), 10)[40:] != whole  # drawn anew


@pytest.mark.parametrize("hosts", [1, 2])
def test_files_train_on_one_replica_and_two(hosts, files, two_replicas, workdir):
    strategy = two_replicas if hosts == 2 else "one_device"
    one = experiment(config(files=files), strategy=strategy, workdir=str(workdir))
    rows = one.trainer.fit(one.train_data, **one.fit, verbose=False).rows
    assert [row["step"] for row in rows] == [3, 6]
    (check,) = one.check(one.trainer).values()
    x, y = split_digits()["test"]
    right = np.mean(one.trainer.predict(x).argmax(-1) == y)
    assert check.value == pytest.approx(right) and check.at_least == 0.95
    assert len(one.picture(one.trainer).axes) == 10


def test_files_that_are_not_there_are_written_once_where_that_is_asked_for(tmp_path):
    made = config(files=f"{tmp_path}/new/*.tfrecord", write=3)
    experiment(made, strategy="one_device", workdir=None)
    written = sorted(Path(tmp_path, "new").iterdir())
    assert [file.name for file in written] == [f"digits-00{k}-of-003.tfrecord" for k in range(3)]
    before = [file.stat().st_mtime_ns for file in written]
    experiment(made, strategy="one_device", workdir=None)
    assert [file.stat().st_mtime_ns for file in written] == before


def test_what_cannot_be_read_is_told(files):
    with pytest.raises(
        ValueError, match=r"--config.data.files=/no/\*: 0 files, and each of 1 hosts"
    ):
        find_files("/no/*")
    with pytest.raises(ValueError, match="4 files, and each of 5 hosts"):
        find_files(files, hosts=5)
    for name in ("json:nothing", "no_such_module:digits", ":"):
        with pytest.raises(ValueError, match=f"--config.data.function={name}: .*Give module:func"):
            named_function(name)
