"""What waits before the step asks; pipelines without work are read without TensorFlow's tuner."""

import numpy as np
import tensorflow as tf

from trainer.data.dataset import DatasetSource
from trainer.data.prefetch import MOST_READY, has_work, prefetched

ARRAY = np.arange(12, dtype=np.float32).reshape(6, 2)


def pipeline():
    return tf.data.Dataset.from_tensor_slices(ARRAY).shuffle(6, seed=1).batch(2)


def test_only_functions_and_numbers_left_to_tensorflow_are_work():
    assert not has_work(pipeline().repeat())
    assert has_work(pipeline().map(lambda x: x).take(2))
    assert has_work(pipeline().prefetch(tf.data.AUTOTUNE))
    assert not has_work(pipeline().prefetch(2))


def test_a_pipeline_without_work_has_no_tuner_and_the_same_elements():
    read = prefetched(pipeline(), tuned=False)
    assert read.options().autotune.enabled is False
    np.testing.assert_array_equal(np.sort(np.concatenate(list(read)), 0), ARRAY)


def test_a_source_tunes_what_has_work_alone(monkeypatch):
    monkeypatch.setattr("trainer.data.dataset.has_work", has_work)  # not that of the other tests

    def tuner_of(dataset):
        source = DatasetSource(dataset, "data")
        source.start(0)
        return source.iterator._dataset.options().autotune.enabled

    assert tuner_of(pipeline()) is False
    assert tuner_of(pipeline().map(lambda x: x + 1)) is not False


def test_large_batches_wait_in_small_numbers():
    def waiting(shape):
        data = tf.data.Dataset.from_tensors(tf.zeros(shape))
        return int(prefetched(data, tuned=False)._input_dataset._buffer_size)

    assert waiting([64, 4]) == MOST_READY
    assert waiting([64, 128, 128, 3]) == 2  # 12.6 MB each
    assert waiting([2**20]) == 4  # 4 MiB each, of 16 MiB
