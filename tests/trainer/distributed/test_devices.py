"""GPU settings and batches that wait on a device.

There is no GPU where these tests run. What is created and asked of TensorFlow is tested, with
device lists put in its place; a second CPU device stands in for the GPU of prefetched batches.
"""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer
from trainer.data.prefetch import prefetched
from trainer.distributed import devices, strategies

KIND = tf.distribute.experimental.CommunicationImplementation


@pytest.fixture
def gpus(monkeypatch):
    """A function that lets TensorFlow seem to see so many GPUs; it returns them."""

    def see(count):
        physical = [
            tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(count)
        ]
        logical = [tf.config.LogicalDevice(f"/device:GPU:{i}", "GPU") for i in range(count)]

        def of_kind(listed, real):
            return lambda kind=None: listed if kind == "GPU" else real(kind)

        for name, listed in [
            ("list_physical_devices", physical),
            ("get_visible_devices", physical),
            ("list_logical_devices", logical),
        ]:
            monkeypatch.setattr(tf.config, name, of_kind(listed, getattr(tf.config, name)))
        monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda device: None)
        return physical

    return see


@pytest.fixture
def grown(monkeypatch):
    """The (device, whether) that memory growth was asked for."""
    calls = []
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda *given: calls.append(given)
    )
    return calls


@pytest.fixture
def environment(monkeypatch):
    """The environment without what concerns GPU threads; restored afterwards."""
    for name in devices.GPU_THREADS:
        monkeypatch.setenv(name, "")  # remembered, to be put back
        monkeypatch.delenv(name)
    return monkeypatch


def test_memory_grows_on_every_gpu(gpus, grown, environment):
    seen = gpus(3)
    assert devices.prepare_gpus() == seen
    assert grown == [(gpu, True) for gpu in seen]


def test_gpus_get_two_threads_of_their_own(environment):
    devices.prepare_gpus()
    assert os.environ["TF_GPU_THREAD_MODE"] == "gpu_private"
    assert os.environ["TF_GPU_THREAD_COUNT"] == "2"


def test_what_the_user_set_of_the_threads_stays(environment):
    environment.setenv("TF_GPU_THREAD_MODE", "global")
    environment.setenv("TF_GPU_THREAD_COUNT", "7")
    devices.prepare_gpus()
    assert os.environ["TF_GPU_THREAD_MODE"] == "global"
    assert os.environ["TF_GPU_THREAD_COUNT"] == "7"


def test_without_a_gpu_nothing_is_set_on_a_device(grown, environment):
    assert devices.prepare_gpus() == []
    assert grown == []


def test_gpus_that_run_already_stay_as_they_are(gpus, environment, monkeypatch):
    def refuse(*_):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    gpus(1)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    assert devices.prepare_gpus() == []


def test_a_gpu_with_a_memory_limit_keeps_it(gpus, grown, environment, monkeypatch):
    gpus(2)
    limit = [tf.config.LogicalDeviceConfiguration(memory_limit=1024)]
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda device: limit)
    assert devices.prepare_gpus() == []
    assert grown == []


def test_an_experiment_prepares_its_gpus_before_it_uses_them(monkeypatch):
    from experiments.cli import startup

    calls = []
    monkeypatch.setattr(devices, "prepare_gpus", lambda: calls.append("prepared"))
    startup.start_tensorflow()
    assert calls == ["prepared"]
    have = len(tf.config.list_logical_devices("CPU"))
    startup.start_tensorflow(virtual_devices=have)  # which hides the GPUs
    assert calls == ["prepared"]


def test_hosts_add_up_in_a_ring_without_gpus_and_by_nccl_in_packs_with_them(gpus):
    on_cpus = devices.communication_options()
    assert (on_cpus.implementation, on_cpus.bytes_per_pack) == (KIND.RING, 0)
    gpus(1)
    on_gpus = devices.communication_options()
    assert (on_gpus.implementation, on_gpus.bytes_per_pack) == (KIND.NCCL, 32 * 1024 * 1024)


@pytest.mark.parametrize("seen", [0, 2])
def test_several_hosts_are_given_these_options(seen, gpus, monkeypatch):
    made = []
    gpus(seen)
    monkeypatch.setattr(strategies, "_meet", lambda cluster: None)
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", lambda *given: made.append(given)
    )
    monkeypatch.setenv(
        "TF_CONFIG",
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}',
    )
    strategies._multi_worker.__wrapped__()
    [(_, options)] = made
    assert options.implementation == (KIND.NCCL if seen else KIND.RING)


@pytest.mark.parametrize("name", ["auto", "mirrored"])
def test_several_gpus_are_mirrored_with_the_reduction_tensorflow_chooses(name, gpus, monkeypatch):
    made = []

    def strategy(*given, **named):
        made.append((given, named))
        return "a strategy"

    gpus(3)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", strategy)
    strategies._mirrored.cache_clear()
    try:
        assert strategies.resolve_strategy(name) == "a strategy"
    finally:
        strategies._mirrored.cache_clear()
    assert made == [((["/device:GPU:0", "/device:GPU:1", "/device:GPU:2"],), {})]


def test_the_older_nccl_reduction_knows_no_bfloat16():
    # the reason not to ask MirroredStrategy for it; CollectiveReduceV2 is what it takes by itself
    two = dict(num_devices=2, shared_name="pair")
    with tf.Graph().as_default():
        half = tf.zeros([2], tf.bfloat16)
        with pytest.raises((TypeError, ValueError), match="bfloat16"):
            tf.raw_ops.NcclAllReduce(input=half, reduction="sum", **two)
        keys = dict(group_size=2, group_key=1, instance_key=1, ordering_token=[])
        summed = tf.raw_ops.CollectiveReduceV2(input=half, merge_op="Add", final_op="Id", **keys)
    assert summed.dtype == tf.bfloat16


def test_the_only_gpu_of_a_run_is_found(gpus, two_replicas):
    default, own = tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy("/cpu:0")
    assert [devices.only_gpu(s) for s in (default, own, two_replicas)] == [None, None, None]
    gpus(2)
    assert devices.only_gpu(default) == "/device:GPU:0"
    assert devices.only_gpu(own) is None  # asked to run on the CPU
    assert devices.only_gpu(tf.distribute.OneDeviceStrategy("/gpu:1")).endswith("GPU:1")
    assert devices.only_gpu(two_replicas) is None


def numbered(batches=7):
    x = np.arange(4.0 * batches, dtype="float32").reshape(-1, 1)
    y = np.arange(4 * batches, dtype="int32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def test_prefetched_batches_are_the_same_and_wait_on_the_device():
    moved = list(prefetched(numbered(), "/cpu:1"))
    assert {tensor.device[-5:] for batch in moved for tensor in batch} == {"CPU:1"}
    for ours, theirs in zip(moved, numbered(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_batches_of_several_replicas_wait_on_the_host():
    spec = prefetched(numbered(), None)
    assert {tensor.device[-5:] for batch in spec for tensor in batch} == {"CPU:0"}


@pytest.mark.parametrize(
    "dataset",
    [
        tf.data.Dataset.from_tensor_slices(["a", "b"]).batch(2),
        tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3]])).batch(2),
    ],
    ids=["strings", "ragged"],
)
def test_what_a_gpu_cannot_hold_waits_on_the_host(dataset):
    [batch] = prefetched(dataset, "/cpu:1")
    assert getattr(batch, "values", batch).device[-5:] == "CPU:0"


def trained_with(gpu, monkeypatch):
    """Weights, evaluation and the devices of the iterators, where `gpu` counts as the only GPU."""
    from trainer.distributed import hosts

    monkeypatch.setattr(hosts, "only_gpu", lambda strategy: gpu)
    keras.utils.set_random_seed(4)
    x = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).shuffle(30, seed=1).batch(8)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="adam", loss="mse", strategy="one_device")
    source = trainer._open(numbered(), None)  # a second pass of `data` would shuffle it anew
    source.start(0)
    device = next(source.iterator)[0].device
    trainer.fit(data, steps=11, log_every=4, verbose=False)
    return model.get_weights(), trainer.evaluate(data), device


def test_training_from_batches_on_a_device_gives_the_same_weights(monkeypatch):
    host, device = trained_with(None, monkeypatch), trained_with("/cpu:1", monkeypatch)
    assert (host[2][-5:], device[2][-5:]) == ("CPU:0", "CPU:1")
    for ours, theirs in zip(device[0], host[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert device[1] == host[1]
