"""What is made on every host must be the same there: variables while they are made, settings."""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.distributed.hosts import Hosts

_SAME = "Start all hosts with the same program and arguments."
# addresses, automatic numbers, seeds that were drawn
_OWN = re.compile(r" at 0x[0-9a-f]+|_\d+\b|\"seed\": \d+")


@contextlib.contextmanager
def scope_of_all(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The strategy's scope, in which every host must make the same variables.

    TensorFlow broadcasts each variable's first value from the chief as it is made. A host that
    makes another one breaks off with an error of that collective, one that makes more waits for
    ever: so each is announced before.

    Raises:
      ValueError: on all hosts, where they make other variables.
    """
    hosts = Hosts(strategy)
    with strategy.scope():
        if hosts.count == 1:
            yield
            return
        made: list[str] = []

        def creator(next_creator, **settings):
            value = settings.get("initial_value")
            value = value() if callable(value) else value
            value = tf.convert_to_tensor(value, settings.get("dtype"))
            made.append(f"{settings.get('name')} {value.dtype.name} {tuple(value.shape)}")
            _announce(hosts, made, f"{value.dtype.name} {value.shape}")
            return next_creator(**{**settings, "initial_value": value})

        with tf.variable_creator_scope(creator):
            yield
        _announce(hosts, [*made, "no further one"], "")


def check_alike(hosts: Hosts, values: Mapping[str, object]) -> None:
    """Raises ValueError, on all hosts, where a setting differs between them.

    Args:
      hosts: of the run.
      values: name -> anything that JSON or `str` has a form for. Automatic numbers do not count.
    """
    if hosts.count == 1:
        return
    texts = {name: json.dumps(value, default=str) for name, value in values.items()}
    texts = {name: _OWN.sub("", text) for name, text in texts.items()}
    table = hosts.exchange(*(float(zlib.crc32(text.encode())) for text in texts.values()))
    for name, column in zip(texts, table.T, strict=True):
        if len(set(column)) > 1:
            raise TermwiseError(
                f"{name} differs between the hosts; on host {hosts.index} it is "
                f"{texts[name][:300]}. {_SAME}"
            )


def _announce(hosts: Hosts, made: list[str], kind: str) -> None:
    """Tells the other hosts what this one makes next, "" for nothing more."""
    digests = hosts.exchange(float(zlib.crc32(kind.encode())))[:, 0]
    if len(set(digests)) > 1:
        raise TermwiseError(
            f"The model differs between the hosts: variable {len(made)} on host {hosts.index} is "
            f"{made[-1]}, and on another host it is not. {_SAME}"
        )
