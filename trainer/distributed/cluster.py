"""Which processes train together, and which of them this one is; the environment says it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.distributed.environment import number, startup_seconds


class PodsMissingError(TermwiseError, TimeoutError):
    """The pods of a run did not start in time."""


class PackageMissingError(TermwiseError, ImportError):
    """A package is needed that is not installed."""


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


def _from_tf_config(text: str) -> Cluster:
    """The cluster that TF_CONFIG holds."""
    config = _read_object(text)
    jobs = _read_jobs(config)
    kind, index = _read_task(config, jobs)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    workers = sum(map(len, jobs.values()))
    chief = kind == "chief" or ("chief" not in jobs and index == 0)
    return Cluster(resolver, workers, kind, index, chief, "TF_CONFIG")


def _read_object(text: str) -> dict:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise TermwiseError(f"TF_CONFIG is no JSON ({error}). {_EXPECTED}") from None
    return config if isinstance(config, dict) else {}


def _read_jobs(config: dict) -> dict[str, list[str]]:
    """job -> the addresses of its processes."""
    jobs = config.get("cluster")
    if not isinstance(jobs, dict) or not jobs:
        raise _wrong("names no cluster")
    for job, addresses in jobs.items():
        if job not in JOBS:
            reason = "parameter servers and evaluators are not supported, every process trains"
            raise _wrong(f"has the job {job!r}, accepted are 'worker' and 'chief': {reason}")
        if not isinstance(addresses, list) or not addresses:
            raise _wrong(f"gives no list of addresses for {job!r}")
    _check_addresses([address for addresses in jobs.values() for address in addresses])
    if len(jobs.get("chief", [])) > 1:
        raise _wrong("has more than one chief")
    return jobs


def _check_addresses(addresses: list) -> None:
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
            raise _wrong(f"has the address {address!r}, accepted is 'host:port'")
    if len(set(addresses)) < len(addresses):
        raise _wrong("gives two workers one address")


def _read_task(config: dict, jobs: dict[str, list[str]]) -> tuple[str, int]:
    """The job of this process, and its place among the processes of that job."""
    task = config.get("task")
    if not isinstance(task, dict) or "type" not in task or "index" not in task:
        raise _wrong("does not say which task this process is")
    kind, index = task["type"], task["index"]
    if kind not in jobs:
        raise _wrong(f"says this process is a {kind!r}, of which the cluster has none")
    index = _whole(index)
    if not 0 <= index < len(jobs[kind]):
        raise _wrong(f"has the index {index}, the cluster has {len(jobs[kind])} of {kind!r}")
    return kind, index


def _whole(index) -> int:
    """A whole number, or the text of one, as TensorFlow reads it."""
    if isinstance(index, str) and index.isdecimal():
        return int(index)
    if isinstance(index, bool) or not isinstance(index, int):
        raise _wrong(f"has the index {index!r}, accepted is a whole number")
    return index


_EXPECTED = (
    'Set it to {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with the index of each process.'
)


def _wrong(what: str) -> TermwiseError:
    return TermwiseError(f"TF_CONFIG {what}. {_EXPECTED}")


def _from_slurm() -> Cluster:
    """The workers of an srun step, one per task.

    TensorFlow's resolver gives their addresses. It wants at least one GPU per task, and orders
    hosts as text (n10 before n2) while SLURM numbers its tasks host by host; both are mended here.
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
    address = f"{node}:{port + local}"
    if node is not None and address != addresses[rank]:
        raise TermwiseError(
            f"SLURM runs task {rank} at {address}, where {addresses[rank]} was expected: tasks are "
            "not numbered host by host. Use srun --distribution=block, or set TF_CONFIG."
        )
    return _of_addresses(addresses, rank, "SLURM")


def _from_kubernetes(selector: str) -> Cluster:
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
            "TERMWISE_HOST_IP, the field status.hostIP of the pod. See docs/distributed.md."
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
    return _of_addresses(addresses, addresses.index(address), "Kubernetes")


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


def _of_addresses(addresses: list[str], index: int, source: str) -> Cluster:
    """A cluster of workers alone, of which this one is that at a place in their list."""
    gpus = len(tf.config.get_visible_devices("GPU"))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    return Cluster(resolver, len(addresses), "worker", index, index == 0, source)


def _natural(address: str) -> list:
    """A sort key by which n2 comes before n10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", address)]
