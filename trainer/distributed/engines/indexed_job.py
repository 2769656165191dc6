"""The cluster of an Indexed Job of Kubernetes, or of a JobSet; the API server is not asked."""

from __future__ import annotations

import os
import re

from losses.errors import TermwiseError
from trainer.distributed.engines.description import ENGINES, Cluster
from trainer.distributed.environment import number

PORT = 2222  # each pod has its ports to itself


def read() -> Cluster:
    """The pods of the job, by the names that Kubernetes gives them.

    JOB_COMPLETION_INDEX and HOSTNAME are set in each pod: the pod of index 1 of the job `digits`
    is called `digits-1`, of the JobSet `digits` with the job `workers` `digits-workers-0-1`. A
    headless Service (TERMWISE_SERVICE) makes addresses of these names; how many pods there are
    (TERMWISE_WORKERS, the job's `completions`) is told to no pod.

    Raises:
      ValueError: a variable is missing, or they do not fit each other.
    """
    index = number("JOB_COMPLETION_INDEX", -1)
    name, service = os.environ.get("HOSTNAME", ""), os.environ.get("TERMWISE_SERVICE", "")
    workers = number("TERMWISE_WORKERS", 0)
    if workers < 1 or not service:
        raise TermwiseError(
            f"JOB_COMPLETION_INDEX={index} says that this is a pod of an Indexed Job, which needs "
            "TERMWISE_WORKERS, the job's completions, and TERMWISE_SERVICE, the name of its "
            "headless Service. Set both as docs/kubernetes.yaml does."
        )
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", service):
        raise TermwiseError(f"TERMWISE_SERVICE={service!r}: accepted is the name of a Service.")
    if not 0 <= index < workers:
        raise TermwiseError(
            f"JOB_COMPLETION_INDEX={index}, and TERMWISE_WORKERS={workers}: the indices are 0 to "
            f"{workers - 1}. Set TERMWISE_WORKERS to the job's completions, and completionMode: "
            "Indexed."
        )
    job = name.removesuffix(f"-{index}")
    if job in ("", name):
        raise TermwiseError(
            f"HOSTNAME={name!r} does not end with -{index}, the pod's JOB_COMPLETION_INDEX: the "
            "names of the other pods cannot be told from it. Leave out hostNetwork and hostname "
            "in the pod's specification, or set TF_CONFIG."
        )
    port = number("TERMWISE_PORT", PORT)
    addresses = tuple(f"{job}-{i}.{service}:{port}" for i in range(workers))
    return Cluster(addresses, index, ENGINES["Kubernetes"])
