"""Which devices a run uses: a strategy by name or object, and what is refused."""

from __future__ import annotations

import difflib
import functools

import tensorflow as tf

NAMES = ("auto", "one_device", "mirrored")
_REFUSED = {
    "multi_worker": "training on several hosts is not built yet",
    "parameter_server": "Keras 3 optimizers do not work under ParameterServerStrategy",
    "central_storage": "CentralStorageStrategy is experimental and untested with Keras 3",
    "tpu": "TPUStrategy cannot be tested here",
}


def resolve_strategy(given) -> tf.distribute.Strategy:
    """A `tf.distribute.Strategy` from a name or an object.

    Args:
      given: "auto" (all visible GPUs, else one device), "one_device", "mirrored" (all GPUs,
        else all logical CPU devices), or a strategy object.
    Returns:
      The strategy; TensorFlow's default one where there is one device. A name gives the same
      object each time, since a process can hold one MirroredStrategy only.
    Raises:
      ValueError: an unknown or refused name.
      RuntimeError: called inside a strategy's scope.
    """
    if tf.distribute.has_strategy():
        raise RuntimeError(
            "A Trainer was made or used inside strategy.scope(). It enters the scope itself "
            "where it must: leave the scope, and pass strategy=."
        )
    if isinstance(given, tf.distribute.Strategy):
        kind = type(given).__name__
        for name in ("ParameterServer", "CentralStorage", "TPU", "MultiWorker"):
            if kind.startswith(name):
                key = {"ParameterServer": "parameter_server", "CentralStorage": "central_storage"}
                _refuse(kind, key.get(name, "tpu" if name == "TPU" else "multi_worker"))
        return given
    if given in _REFUSED:
        _refuse(given, given)
    if given not in NAMES:
        close = difflib.get_close_matches(str(given), NAMES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"strategy={given!r}: accepted are {', '.join(map(repr, NAMES))} or a "
            f"tf.distribute.Strategy.{hint}"
        )
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
    raise ValueError(
        f"strategy={received!r} is refused: {_REFUSED[key]}. Accepted: "
        f"{', '.join(map(repr, NAMES))} or a MirroredStrategy or OneDeviceStrategy object."
    )


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(devices))


def describe_devices(strategy) -> str:
    """`cpu, 1 replica`."""
    kind = "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    count = strategy.num_replicas_in_sync
    return f"{kind}, {count} replica{'s' if count > 1 else ''}"
