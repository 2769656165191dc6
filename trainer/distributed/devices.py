"""The GPUs of a process: their memory and threads, and how sums travel between hosts."""

from __future__ import annotations

import os

import tensorflow as tf

# two threads launch the kernels of a GPU and do nothing else: input pipelines cannot delay them
GPU_THREADS = {"TF_GPU_THREAD_MODE": "gpu_private", "TF_GPU_THREAD_COUNT": "2"}
BYTES_PER_PACK = 32 * 2**20  # of gradients: a pack is sent while later ones are computed


def prepare_gpus() -> list[tf.config.PhysicalDevice]:
    """Settings that TensorFlow reads once, when it starts its GPUs; call it before that.

    Memory is taken as it is needed, so that processes can share a GPU and `nvidia-smi` tells what
    a run uses. Variables of the environment that are set already stay as they are:
    `TF_GPU_THREAD_MODE`, `TF_GPU_THREAD_COUNT`, and `TF_FORCE_GPU_ALLOW_GROWTH`, which TensorFlow
    puts above everything else.

    Returns:
      The GPUs whose memory grows; none where there is no GPU, where TensorFlow has started its
      devices already, or where a GPU was given logical devices with memory limits.

    Example:
      >>> prepare_gpus() == tf.config.get_visible_devices("GPU")
      True
    """
    for name, value in GPU_THREADS.items():
        os.environ.setdefault(name, value)
    gpus = tf.config.get_visible_devices("GPU")
    if any(tf.config.get_logical_device_configuration(gpu) for gpu in gpus):
        return []  # TensorFlow refuses growth where there is a limit
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # the GPUs have been started
        return []
    return gpus


def communication_options() -> tf.distribute.experimental.CommunicationOptions:
    """How hosts add up tensors: with NCCL in packs where there are GPUs, else in one ring.

    MirroredStrategy needs no options: on physical GPUs it takes NCCL collectives by itself.
    `tf.distribute.NcclAllReduce` is the older way: it knows no bfloat16, and XLA ignores it.
    """
    options = tf.distribute.experimental.CommunicationOptions
    kind = tf.distribute.experimental.CommunicationImplementation
    if tf.config.get_visible_devices("GPU"):
        return options(implementation=kind.NCCL, bytes_per_pack=BYTES_PER_PACK)
    return options(implementation=kind.RING)


def only_gpu(strategy) -> str | None:
    """The name of the GPU that a run of one replica uses; None on a CPU or with several replicas.

    Args:
      strategy: a `tf.distribute.Strategy`; TensorFlow's default one takes the first GPU.
    """
    if strategy.num_replicas_in_sync > 1:
        return None
    if strategy is tf.distribute.get_strategy():
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    else:
        devices = list(strategy.extended.worker_devices)
    kinds = [tf.DeviceSpec.from_string(device).device_type for device in devices[:1]]
    return devices[0] if kinds == ["GPU"] else None
