"""Which processes train together, and which of them this one is; the environment says it."""

from __future__ import annotations

import os

from losses.errors import TermwiseError
from trainer.distributed.engines import ENGINES, Cluster, indexed_job, pods, slurm, tf_config
from trainer.distributed.environment import number


def resolve_cluster() -> Cluster:
    """The cluster that the environment describes.

    TF_CONFIG comes first (set by hand, by `trainer.launch` or by its driver on Ray), then SLURM
    (inside an srun step), then Kubernetes (an Indexed Job, or pods found by the label selector
    TERMWISE_PODS). TERMWISE_ENGINE decides where there are several. Connects to no worker.

    Raises:
      ValueError: none is there, or what is set is wrong, incomplete or contradictory.
      ImportError: TERMWISE_PODS is set, and the package `kubernetes` is not installed.
      TimeoutError: the pods did not run in time.

    Example:
      >>> import json, os
      >>> os.environ["TF_CONFIG"] = json.dumps({
      ...     "cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
      ...     "task": {"type": "worker", "index": 1},
      ... })
      >>> cluster = resolve_cluster()
      >>> cluster.addresses, cluster.index, cluster.chief, cluster.engine.name
      (('10.0.0.1:2222', '10.0.0.2:2222'), 1, False, 'TF_CONFIG')
      >>> del os.environ["TF_CONFIG"]
    """
    chosen = os.environ.get("TERMWISE_ENGINE", "")
    if chosen and chosen not in ENGINES:
        raise TermwiseError(
            f"TERMWISE_ENGINE={chosen!r}: accepted are {', '.join(map(repr, ENGINES))}, or nothing "
            "for the one that is there."
        )
    there = [name for name, names in _SIGNS.items() if any(n in os.environ for n in names)]
    if chosen in ("SLURM", "Kubernetes"):
        there = [name for name in there if name == chosen]
        if not there:
            signs = " nor ".join(_SIGNS[chosen])
            raise TermwiseError(
                f"TERMWISE_ENGINE={chosen!r}, and neither {signs} is set. Start the workers with "
                f"{chosen}, or unset TERMWISE_ENGINE."
            )
    if "TF_CONFIG" in there:
        cluster = tf_config.read(os.environ["TF_CONFIG"], ENGINES[chosen or "TF_CONFIG"])
        if not chosen:
            _check_agreed(cluster)
        return cluster
    return _read(chosen, there)


# engine -> the variables of which one is set where it is there
_SIGNS = {
    "TF_CONFIG": ("TF_CONFIG",),
    "SLURM": ("SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID"),
    "Kubernetes": ("TERMWISE_PODS", "JOB_COMPLETION_INDEX"),
}


def _read(chosen: str, there: list[str]) -> Cluster:
    """The cluster where TF_CONFIG says nothing."""
    if chosen and chosen not in there:
        raise TermwiseError(
            f"TERMWISE_ENGINE={chosen!r}, and TF_CONFIG is not set. Set it, or unset "
            "TERMWISE_ENGINE."
        )
    if len(there) > 1:
        raise TermwiseError(
            "This process is a task of SLURM and a pod of Kubernetes, and both describe a cluster. "
            "Say which of them started the workers: TERMWISE_ENGINE=SLURM or =Kubernetes."
        )
    if "SLURM" in there:
        return slurm.read()
    if "TERMWISE_PODS" in os.environ:
        return pods.read(os.environ["TERMWISE_PODS"])
    if "Kubernetes" in there:
        return indexed_job.read()
    raise TermwiseError(
        "strategy='multi_worker' needs to know its workers, and neither TF_CONFIG, nor SLURM's "
        "variables, nor those of an Indexed Job (JOB_COMPLETION_INDEX), nor TERMWISE_PODS are set. "
        "Start local workers with `python -m trainer.launch --workers=2 -- ...`; docs/clusters.md "
        "shows the other ways."
    )


def _check_agreed(cluster: Cluster) -> None:
    """Raises where TF_CONFIG, set by hand, contradicts the engine that started the process."""
    tasks = number("SLURM_STEP_NUM_TASKS", 1)  # 1: a shell within a job, from which others start
    if tasks not in (1, cluster.workers):
        raise TermwiseError(
            f"TF_CONFIG names {cluster.workers} workers, and the SLURM step has {tasks} tasks. "
            "Unset TF_CONFIG to take the step's; or set TERMWISE_ENGINE=TF_CONFIG, if it is meant."
        )
    index = number("JOB_COMPLETION_INDEX", cluster.index)
    if index != cluster.index:
        raise TermwiseError(
            f"TF_CONFIG says that this is process {cluster.index}, and JOB_COMPLETION_INDEX that "
            f"it is {index}. Unset TF_CONFIG, or set TERMWISE_ENGINE=TF_CONFIG, if it is meant."
        )
