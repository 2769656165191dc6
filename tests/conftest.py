"""What every test starts from: two CPU devices, one shared strategy, fixed seeds.

Loaded before any test module, because devices can be set only before TensorFlow initialises.
"""

import keras
import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def two_replicas():
    """The one strategy of the process: a second one would collide on collective keys."""
    return tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])


@pytest.fixture(autouse=True)
def seeds():
    keras.utils.set_random_seed(0)
    yield
    assert not tf.distribute.has_strategy(), "The test left a strategy's scope open."


@pytest.fixture
def workdir(tmp_path):
    """Where a run of this test may write; not made yet."""
    return tmp_path / "run"
