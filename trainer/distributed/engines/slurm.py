"""The cluster of a SLURM step: one worker for each task that srun started."""

from __future__ import annotations

import os
import re

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.distributed.engines.description import ENGINES, Cluster
from trainer.distributed.environment import number


def read() -> Cluster:
    """The workers of an srun step, one per task.

    TensorFlow's resolver gives their addresses. It wants at least one GPU per task, and orders
    hosts as text (n10 before n2) while SLURM numbers its tasks host by host; both are mended here.

    Raises:
      ValueError: outside a step, or the variables do not fit each other.
    """
    if "SLURM_STEP_NUM_TASKS" not in os.environ:
        raise TermwiseError(
            "strategy='multi_worker' in a SLURM job, but outside a step: SLURM_STEP_NUM_TASKS is "
            "not set. Start the workers with srun."
        )
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
    return Cluster(tuple(addresses), rank, ENGINES["SLURM"])


def _natural(address: str) -> list:
    """A sort key by which n2 comes before n10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", address)]
