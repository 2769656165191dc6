"""Which devices a run uses: a strategy by name or object, and what is refused."""

from __future__ import annotations

import difflib
import functools

import tensorflow as tf

from losses.distributed.hosts import host_count
from losses.errors import TermwiseError, TermwiseRuntimeError
from trainer.distributed.devices import communication_options
from trainer.distributed.environment import startup_seconds
from trainer.distributed.hosts import PeerLost
from trainer.distributed.rendezvous import meet

NAMES = ("auto", "one_device", "mirrored", "multi_worker")
_REFUSED = {
    "parameter_server": "Keras 3 optimizers do not work under ParameterServerStrategy",
    "central_storage": "CentralStorageStrategy is experimental and untested with Keras 3",
    "tpu": "TPUStrategy cannot be tested here",
}


def resolve_strategy(given) -> tf.distribute.Strategy:
    """A `tf.distribute.Strategy` from a name or an object.

    Args:
      given: "auto" (all visible GPUs, else one device), "one_device", "mirrored" (all GPUs,
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
    if isinstance(given, tf.distribute.Strategy):
        kind = type(given).__name__
        for key in _REFUSED:
            if kind.lower().startswith(key.replace("_", "")):
                _refuse(kind, key)
        return given
    if given in _REFUSED:
        _refuse(given, given)
    if given not in NAMES:
        close = difflib.get_close_matches(str(given), NAMES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise TermwiseError(
            f"strategy={given!r}: accepted are {', '.join(map(repr, NAMES))} or a "
            f"tf.distribute.Strategy.{hint}"
        )
    if given == "multi_worker":
        return _multi_worker()
    devices = tf.config.list_logical_devices("GPU")
    if given == "mirrored":
        devices = devices or tf.config.list_logical_devices("CPU")
    if given != "one_device" and len(devices) > 1:
        return _mirrored(tuple(device.name for device in devices))
    return tf.distribute.get_strategy()


def is_default(strategy) -> bool:
    """Whether variables need no scope: TensorFlow's default strategy, one device."""
    return strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy()


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
    from trainer.distributed.cluster import resolve_cluster

    cluster = resolve_cluster()
    options = communication_options()
    _meet(cluster)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver, options)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise TermwiseRuntimeError(
            'strategy="multi_worker" must be asked for before TensorFlow runs anything. Write '
            'strategy = trainer.resolve_strategy("multi_worker") at the top of the program, '
            "and pass that object."
        ) from error


def _meet(cluster) -> None:
    spec = cluster.resolver.cluster_spec()
    addresses = [a for job in ("chief", "worker") if job in spec.jobs for a in spec.job_tasks(job)]
    own = spec.task_address(cluster.task_type, cluster.task_id)
    seconds = startup_seconds()
    try:
        meet(addresses, addresses.index(own), seconds)
    except TimeoutError as error:
        raise PeerLost(
            f"not all of the {len(addresses)} hosts came within {seconds:g} s; missing: {error}. "
            "Start all of them at the same time, and check the addresses in TF_CONFIG. "
            "TERMWISE_STARTUP_S sets how long to wait."
        ) from None


def describe_devices(strategy) -> str:
    """`cpu, 1 replica`."""
    kind = "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    count, hosts = strategy.num_replicas_in_sync, host_count(strategy)
    where = f" on {hosts} hosts" if hosts > 1 else ""
    return f"{kind}, {count} replica{'s' if count > 1 else ''}{where}"
