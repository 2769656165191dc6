"""The cluster of pods that are found by a label, where their names are not known beforehand."""

from __future__ import annotations

import os
import time

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.distributed.engines.description import ENGINES, Cluster
from trainer.distributed.engines.indexed_job import PORT
from trainer.distributed.environment import number, startup_seconds


class PodsMissingError(TermwiseError, TimeoutError):
    """The pods of a run did not start in time."""


class PackageMissingError(TermwiseError, ImportError):
    """A package is needed that is not installed."""


def read(selector: str) -> Cluster:
    """The pods of a label selector, which share their host's network, one on each host.

    TensorFlow's resolver gives the addresses of their hosts in the order of the pods' names. It
    does not know which of them this process is: the pod is told the address of its host.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise PackageMissingError(
            "TERMWISE_PODS is set, which needs the package `kubernetes`. Install it, or set "
            "TF_CONFIG as docs/kubernetes.yaml does."
        ) from error
    workers = number("TERMWISE_WORKERS", 0)
    host = os.environ.get("TERMWISE_HOST_IP")
    if workers < 1 or not host:
        raise TermwiseError(
            f"TERMWISE_PODS={selector!r} needs TERMWISE_WORKERS, the number of pods, and "
            "TERMWISE_HOST_IP, the field status.hostIP of the pod. See docs/clusters.md."
        )
    port = number("TERMWISE_PORT", PORT)
    config.load_incluster_config()
    resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [selector]}, tf_server_port=port, override_client=client.CoreV1Api()
    )
    addresses = _when_running(resolver, selector, workers)
    address = f"{host}:{port}"
    if len(set(addresses)) < workers or address not in addresses:
        raise TermwiseError(
            f"The pods {selector!r} are at {', '.join(addresses)}, this one is at {address}. Each "
            "must be on a host of its own, with hostNetwork: true."
        )
    return Cluster(tuple(addresses), addresses.index(address), ENGINES["Kubernetes"])


def _when_running(resolver, selector: str, workers: int) -> list[str]:
    """The pods' addresses, when as many as there are workers run."""
    limit = startup_seconds()
    end = time.monotonic() + limit
    while True:
        try:
            addresses = resolver.cluster_spec().job_tasks("worker")
            state = f"{len(addresses)} run"
            if len(addresses) == workers:
                return addresses
        except RuntimeError as error:  # a pod that does not run
            state = str(error)
        if time.monotonic() > end:
            raise PodsMissingError(
                f"{workers} pods {selector!r} did not run within {limit:g} s: {state}. Look at "
                "`kubectl get pods`, or raise TERMWISE_STARTUP_S."
            )
        time.sleep(min(2.0, limit / 10))
