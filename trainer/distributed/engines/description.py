"""The processes of a run as one frozen description, whatever engine started them."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Engine:
    """What is known of an engine, for the messages of a run.

    Attributes:
      name: as TERMWISE_ENGINE and the console call it.
      notice: who sends SIGTERM before the processes are taken away; on it all save.
      report: where the last line of a process is read.
      restart: how a run goes on after a host is lost.
    """

    name: str
    notice: str
    report: str
    restart: str


_KNOWN = (
    Engine(
        "TF_CONFIG",
        notice="by whoever stops a host",
        report="on each host's stderr",
        restart="Start all hosts again: the same command continues.",
    ),
    Engine(
        "local",
        notice="by the launcher, when it is stopped",
        report="in the launcher's output, behind [worker N]",
        restart="The launcher starts all again.",
    ),
    Engine(
        "Ray",
        notice="by the driver, when it is stopped",
        report="in the driver's output, behind [worker N]",
        restart="The driver starts the workers again that are left.",
    ),
    Engine(
        "SLURM",
        notice="by SLURM, as --signal=TERM@SECONDS asks",
        report="in the job's output file",
        restart="Queue the job again, as the script of docs/clusters.md does.",
    ),
    Engine(
        "Kubernetes",
        notice="by the kubelet, terminationGracePeriodSeconds before the end",
        report="in kubectl logs",
        restart="The Job starts the pods again.",
    ),
)
ENGINES = {engine.name: engine for engine in _KNOWN}
MOST_SHOWN = 4  # addresses in a line of the console


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run, and this process's place among them.

    Attributes:
      addresses: "host:port" of every process, the chief's first; the same on each.
      index: int, this process's place in `addresses`.
      engine: who started the processes.
      chief_apart: whether the first process has the job "chief", the others "worker".
    """

    addresses: tuple[str, ...]
    index: int
    engine: Engine
    chief_apart: bool = False

    @property
    def workers(self) -> int:
        """How many processes there are, a chief among them."""
        return len(self.addresses)

    @property
    def chief(self) -> bool:
        """Whether this is the one process that writes."""
        return self.index == 0

    @property
    def task(self) -> tuple[str, int]:
        """TensorFlow's name of this process: its job, and its place within the job."""
        if not self.chief_apart:
            return "worker", self.index
        return ("chief", 0) if self.chief else ("worker", self.index - 1)

    def describe(self) -> str:
        """One line for the console: who is there, what ends a process, and what happens then."""
        shown = list(self.addresses)
        if len(shown) > MOST_SHOWN:
            shown = [*shown[: MOST_SHOWN - 1], "...", shown[-1]]
        return (
            f"hosts {', '.join(shown)} | SIGTERM saves; sent {self.engine.notice} | last lines "
            f"{self.engine.report} | after a loss: {self.engine.restart}"
        )

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """For `tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=)`; starts no device."""
        jobs = {"worker": list(self.addresses)}
        if self.chief_apart:
            jobs = {"chief": [self.addresses[0]], "worker": list(self.addresses[1:])}
        return _Resolver(self, tf.train.ClusterSpec({k: v for k, v in jobs.items() if v}))


class _Resolver(tf.distribute.cluster_resolver.SimpleClusterResolver):
    """A description in TensorFlow's form, which can be had back of it."""

    def __init__(self, cluster: Cluster, spec: tf.train.ClusterSpec):
        kind, index = cluster.task
        gpus = tf.config.get_visible_devices("GPU")
        logical = (tf.config.get_logical_device_configuration(gpu) or [gpu] for gpu in gpus)
        accelerators = {"GPU": sum(map(len, logical))}
        super().__init__(
            spec, task_type=kind, task_id=index, num_accelerators=accelerators, rpc_layer="grpc"
        )
        self.described = cluster


def restart_of(strategy: tf.distribute.Strategy) -> str:
    """A sentence: how a run of a strategy goes on after a host is lost."""
    cluster = cluster_of(strategy)
    return (ENGINES["TF_CONFIG"] if cluster is None else cluster.engine).restart


def cluster_of(strategy: tf.distribute.Strategy) -> Cluster | None:
    """The description that a strategy was made of; None for one made elsewhere, or on one host."""
    return getattr(strategy.cluster_resolver, "described", None)
