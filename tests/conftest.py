"""What every test starts from: two CPU devices, one shared strategy, fixed seeds.

Loaded before any test module, because devices can be set only before TensorFlow initialises.
"""

import gc

import hypothesis
import pytest

# no property depends on how fast the machine is: no deadline, no complaint of slow examples
hypothesis.settings.register_profile(
    "no clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no clock")


def pytest_configure(config):
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # shares out the tests and runs none
    from experiments.cli.startup import start_tensorflow

    start_tensorflow(virtual_devices=2)  # quietly: its lines would follow pytest's summary
    read_untuned()
    gc.freeze()  # what TensorFlow and Keras hold is not looked through again
    gc.set_threshold(50_000, 20, 50)  # else a fifth of the time goes into looking at live graphs


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leaves to the very slow tests what `one_in` says: of n cases that are alike all but one."""
    seen: dict = {}
    for item in items:
        mark = item.get_closest_marker("one_in")
        if mark is None or not hasattr(item, "callspec"):
            continue
        argument = mark.kwargs.get("of")
        case = item.callspec.id if argument is None else id(item.callspec.params[argument])
        places = seen.setdefault((item.path, item.originalname), {})
        if places.setdefault(case, len(places)) % mark.args[0]:
            item.add_marker(pytest.mark.very_slow)


def read_untuned():
    """Lets tests read their data without tf.data's tuner, and Keras's own loops that they compare.

    The end of an iterator waits for the tuner's thread, which may sleep for a minute.
    """
    import tensorflow as tf

    import trainer.data.dataset

    trainer.data.dataset.has_work = lambda dataset: False
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
    from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter

    options = tf.data.Options()
    options.autotune.enabled = False

    def untuned(read):
        def dataset(self):
            found = read(self)
            return found.with_options(options) if isinstance(found, tf.data.Dataset) else found

        return dataset

    for adapter in (ArrayDataAdapter, TFDatasetAdapter):
        adapter.get_tf_dataset = untuned(adapter.get_tf_dataset)


@pytest.fixture(scope="session")
def two_replicas():
    """The one strategy of the process: a second one would collide on collective keys."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])


@pytest.fixture(autouse=True)
def seeds():
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    yield
    assert not tf.distribute.has_strategy(), "The test left a strategy's scope open."


@pytest.fixture
def workdir(tmp_path):
    """Where a run of this test may write; not made yet."""
    return tmp_path / "run"
