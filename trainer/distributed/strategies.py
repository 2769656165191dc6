"""Which devices a run uses: a strategy, by its name or as an object, and what is refused."""

from __future__ import annotations

import functools

import tensorflow as tf

from losses.distributed.hosts import host_count
from losses.errors import TermwiseError, TermwiseRuntimeError
from losses.naming import suggestion
from trainer.distributed.cluster import resolve_cluster
from trainer.distributed.devices import communication_options
from trainer.distributed.engines import Cluster, cluster_of
from trainer.distributed.environment import startup_seconds
from trainer.distributed.hosts import PeerLost
from trainer.distributed.rendezvous import meet

NAMES = ("auto", "one_device", "mirrored", "multi_worker")
_REFUSED = {
    "parameter_server": "Keras 3 optimizers do not work under ParameterServerStrategy",
    "central_storage": "CentralStorageStrategy is experimental and untested with Keras 3",
    "tpu": "TPUStrategy cannot be tested here",
}


def resolve_strategy(strategy: str | tf.distribute.Strategy) -> tf.distribute.Strategy:
    """A `tf.distribute.Strategy` from a name or an object.

    Args:
      strategy: "auto" (all visible GPUs, else one device), "one_device", "mirrored" (all GPUs,
        else all logical CPU devices), "multi_worker" (all devices of all hosts, which TF_CONFIG,
        SLURM or Kubernetes name; ask for it before TensorFlow runs anything), or a strategy
        object.
    Returns:
      The strategy; TensorFlow's default one where there is one device. A name gives the same
      object each time, since a process can hold one MirroredStrategy only.
    Raises:
      ValueError: an unknown or refused name.
      RuntimeError: called inside a strategy's scope; "multi_worker" after TensorFlow has begun.
    """
    if tf.distribute.has_strategy():
        raise TermwiseRuntimeError(
            "A Trainer was made or used inside strategy.scope(). It enters the scope itself "
            "where it must: leave the scope, and pass strategy=."
        )
    if isinstance(strategy, tf.distribute.Strategy):
        return _checked(strategy)
    if strategy in _REFUSED:
        _refuse(strategy, strategy)
    if strategy not in NAMES:
        raise TermwiseError(
            f"strategy={strategy!r}: accepted are {', '.join(map(repr, NAMES))} or a "
            f"tf.distribute.Strategy.{suggestion(strategy, NAMES)}"
        )
    if strategy == "multi_worker":
        return _multi_worker()
    devices = _devices(strategy)
    return _mirrored(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def is_default(strategy) -> bool:
    """Whether variables need no scope: TensorFlow's default strategy, one device."""
    return strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy()


def _checked(strategy: tf.distribute.Strategy) -> tf.distribute.Strategy:
    """The object itself; ValueError where it is of a kind that is refused."""
    kind = type(strategy).__name__
    for key in _REFUSED:
        if kind.lower().startswith(key.replace("_", "")):
            _refuse(kind, key)
    return strategy


def _devices(name: str) -> tuple[str, ...]:
    """The devices that a strategy of a name uses; none where that is TensorFlow's own choice."""
    if name == "one_device":
        return ()
    devices = tf.config.list_logical_devices("GPU")
    if name == "mirrored" and not devices:
        devices = tf.config.list_logical_devices("CPU")
    return tuple(device.name for device in devices)


def _refuse(received, key):
    raise TermwiseError(
        f"strategy={received!r} is refused: {_REFUSED[key]}. Accepted: "
        f"{', '.join(map(repr, NAMES))} or a MirroredStrategy, MultiWorkerMirroredStrategy or "
        "OneDeviceStrategy object."
    )


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(devices))


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    cluster = resolve_cluster()
    options = communication_options()
    _meet(cluster)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver(), options)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise TermwiseRuntimeError(
            'strategy="multi_worker" must be asked for before TensorFlow runs anything. Write '
            'strategy = trainer.resolve_strategy("multi_worker") at the top of the program, '
            "and pass that object."
        ) from error


def _meet(cluster: Cluster) -> None:
    """Waits until all workers of a cluster are there; `PeerLost` where some do not come."""
    seconds = startup_seconds()
    try:
        meet(list(cluster.addresses), cluster.index, seconds)
    except TimeoutError as error:
        raise PeerLost(
            f"not all of the {cluster.workers} hosts came within {seconds:g} s; missing: {error}. "
            "Start all of them at the same time, and check the addresses in TF_CONFIG. "
            "TERMWISE_STARTUP_S sets how long to wait."
        ) from None


def describe_devices(strategy) -> str:
    """`cpu, 1 replica`; `cpu, 2 replicas on 2 hosts (SLURM)`."""
    kind = "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    count, hosts = strategy.num_replicas_in_sync, host_count(strategy)
    cluster = cluster_of(strategy)
    started = f" ({cluster.engine.name})" if cluster is not None else ""
    where = f" on {hosts} hosts{started}" if hosts > 1 else ""
    return f"{kind}, {count} replica{'s' if count > 1 else ''}{where}"
