"""Which processes train together, and which of them this one is: told by the environment."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.distributed.environment import number, startup_seconds

JOBS = ("chief", "worker")
PORT = 2222  # under Kubernetes, where each pod, or host, has its ports to itself


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run, and this process's place among them.

    Attributes:
      resolver: for `tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=)`.
      workers: int, how many processes, a chief among them.
      task_type: "worker" or "chief".
      task_id: int, counted within the task's type.
      chief: bool, whether this is the one process that writes.
      source: "TF_CONFIG", "SLURM" or "Kubernetes".
    """

    resolver: tf.distribute.cluster_resolver.ClusterResolver
    workers: int
    task_type: str
    task_id: int
    chief: bool
    source: str


def resolve_cluster() -> Cluster:
    """The cluster that the environment describes.

    TF_CONFIG comes first, then SLURM (inside an srun step), then Kubernetes (pods found by the
    label selector TERMWISE_PODS). Connects to no worker.

    Raises:
      ValueError: none is set, or what is set is wrong or incomplete.
      ImportError: TERMWISE_PODS is set, and the package `kubernetes` is not installed.
      TimeoutError: the pods did not run in time.

    Example:
      >>> import json, os
      >>> os.environ["TF_CONFIG"] = json.dumps({
      ...     "cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
      ...     "task": {"type": "worker", "index": 1},
      ... })
      >>> cluster = resolve_cluster()
      >>> cluster.workers, cluster.task_id, cluster.chief
      (2, 1, False)
      >>> del os.environ["TF_CONFIG"]
    """
    if "TF_CONFIG" in os.environ:
        return _from_tf_config(os.environ["TF_CONFIG"])
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return _from_slurm()
    if "SLURM_JOB_ID" in os.environ:
        raise TermwiseError(
            "strategy='multi_worker' in a SLURM job, but outside a step: SLURM_STEP_NUM_TASKS is "
            "not set. Start the workers with srun."
        )
    if "TERMWISE_PODS" in os.environ:
        return _from_kubernetes(os.environ["TERMWISE_PODS"])
    raise TermwiseError(
        "strategy='multi_worker' needs to know its workers, and neither TF_CONFIG, nor SLURM's "
        "variables, nor TERMWISE_PODS are set. Start local workers with `python -m trainer.launch "
        "--workers=2 -- ...`; docs/distributed.md shows the other ways."
    )


def _from_tf_config(text):
    try:
        config = json.loads(text)
    except ValueError as error:
        raise TermwiseError(f"TF_CONFIG is no JSON ({error}). {_EXPECTED}") from None
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        raise _wrong("names no cluster")
    for job, addresses in cluster.items():
        if job not in JOBS:
            reason = "parameter servers and evaluators are not supported, every process trains"
            raise _wrong(f"has the job {job!r}, accepted are 'worker' and 'chief': {reason}")
        if not isinstance(addresses, list) or not addresses:
            raise _wrong(f"gives no list of addresses for {job!r}")
    addresses = [address for job in cluster.values() for address in job]
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
            raise _wrong(f"has the address {address!r}, accepted is 'host:port'")
    if len(set(addresses)) < len(addresses):
        raise _wrong("gives two workers one address")
    if len(cluster.get("chief", [])) > 1:
        raise _wrong("has more than one chief")
    task = config.get("task")
    if not isinstance(task, dict) or "type" not in task or "index" not in task:
        raise _wrong("does not say which task this process is")
    kind, index = task["type"], task["index"]
    if kind not in cluster:
        raise _wrong(f"says this process is a {kind!r}, of which the cluster has none")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)  # as TensorFlow reads it
    if isinstance(index, bool) or not isinstance(index, int):
        raise _wrong(f"has the index {index!r}, accepted is a whole number")
    if not 0 <= index < len(cluster[kind]):
        raise _wrong(f"has the index {index}, the cluster has {len(cluster[kind])} of {kind!r}")
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    chief = kind == "chief" or ("chief" not in cluster and index == 0)
    return Cluster(resolver, len(addresses), kind, index, chief, "TF_CONFIG")


_EXPECTED = (
    'Set it to {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with the index of each process.'
)


def _wrong(what):
    return TermwiseError(f"TF_CONFIG {what}. {_EXPECTED}")


def _from_slurm():
    """The workers of an srun step, one per task.

    TensorFlow's resolver gives their addresses. It cannot count no GPUs, and orders hosts as text
    (n10 before n2) while SLURM numbers its tasks host by host; both are mended here.
    """
    job = number("SLURM_JOB_ID", 0)
    # Jobs that share a host need other ports; these are below those that systems hand out.
    port = number("TERMWISE_PORT", 10_000 + 20 * (job % 1_000))
    try:
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        rank = int(os.environ["SLURM_PROCID"])
        spec = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        ).cluster_spec()
    except (KeyError, ValueError, RuntimeError) as error:
        raise TermwiseError(
            f"SLURM's variables do not describe the workers: {error}. Start them with srun, or "
            "set TF_CONFIG."
        ) from error
    addresses = sorted(spec.job_tasks("worker"), key=_natural)
    if not 0 <= rank < len(addresses):
        raise TermwiseError(
            f"SLURM_PROCID={rank}, and the step has {len(addresses)} tasks. Start them with srun."
        )
    node, local = os.environ.get("SLURMD_NODENAME"), number("SLURM_LOCALID", 0)
    own = f"{node}:{port + local}"
    if node is not None and own != addresses[rank]:
        raise TermwiseError(
            f"SLURM runs task {rank} at {own}, where {addresses[rank]} was expected: tasks are "
            "not numbered host by host. Use srun --distribution=block, or set TF_CONFIG."
        )
    return _of_addresses(addresses, rank, "SLURM")


def _from_kubernetes(selector):
    """The pods of a label selector, which share their host's network, one on each host.

    TensorFlow's resolver gives their hosts' addresses in the order of the pods' names; it does
    not know which of them this process is, so the pod says its host's.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise ImportError(
            "TERMWISE_PODS is set, which needs the package `kubernetes`. Install it, or set "
            "TF_CONFIG as docs/kubernetes.yaml does."
        ) from error
    workers = number("TERMWISE_WORKERS", 0)
    host = os.environ.get("TERMWISE_HOST_IP")
    if workers < 1 or not host:
        raise TermwiseError(
            f"TERMWISE_PODS={selector!r} needs TERMWISE_WORKERS, the number of pods, and "
            "TERMWISE_HOST_IP, the field status.hostIP of the own pod. See docs/distributed.md."
        )
    port = number("TERMWISE_PORT", PORT)
    config.load_incluster_config()
    resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [selector]}, tf_server_port=port, override_client=client.CoreV1Api()
    )
    addresses = _when_running(resolver, selector, workers)
    own = f"{host}:{port}"
    if len(set(addresses)) < workers or own not in addresses:
        raise TermwiseError(
            f"The pods {selector!r} are at {', '.join(addresses)}, this one is at {own}. Each "
            "must be on a host of its own, with hostNetwork: true."
        )
    return _of_addresses(addresses, addresses.index(own), "Kubernetes")


def _when_running(resolver, selector, workers):
    """The pods' addresses, when as many as there are workers run."""
    limit = startup_seconds()
    end = time.monotonic() + limit
    while True:
        try:
            addresses = resolver.cluster_spec().job_tasks("worker")
            seen = f"{len(addresses)} run"
            if len(addresses) == workers:
                return addresses
        except RuntimeError as error:  # a pod that does not run
            seen = str(error)
        if time.monotonic() > end:
            raise TimeoutError(
                f"{workers} pods {selector!r} did not run within {limit:g} s: {seen}. Look at "
                "`kubectl get pods`, or raise TERMWISE_STARTUP_S."
            )
        time.sleep(min(2.0, limit / 10))


def _of_addresses(addresses, index, source):
    gpus = len(tf.config.get_visible_devices("GPU"))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    return Cluster(resolver, len(addresses), "worker", index, index == 0, source)


def _natural(address):
    """A sort key by which n2 comes before n10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", address)]
