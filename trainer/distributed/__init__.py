"""The devices and hosts of a run: strategies, what hosts agree on, and sums over replicas.

Knows tensors and variables, nothing of terms.
"""

from trainer.distributed.devices import prepare_gpus
from trainer.distributed.hosts import LOST, Hosts, PeerLost, peer_lost
from trainer.distributed.strategies import describe_devices, is_default, resolve_strategy

__all__ = [
    "LOST",
    "Hosts",
    "PeerLost",
    "describe_devices",
    "is_default",
    "peer_lost",
    "prepare_gpus",
    "resolve_strategy",
]
