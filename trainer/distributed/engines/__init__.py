"""What starts a run's processes: TF_CONFIG, the launcher, Ray, SLURM, Kubernetes; one description.

Each module reads one engine's variables of the environment and makes a `Cluster` of them.
"""

from trainer.distributed.engines.description import (
    ENGINES,
    Cluster,
    Engine,
    cluster_of,
    restart_of,
)

__all__ = ["ENGINES", "Cluster", "Engine", "cluster_of", "restart_of"]
