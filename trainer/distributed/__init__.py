"""The devices and hosts of a run: strategies, what hosts agree on, and sums over replicas.

Knows tensors and variables, nothing of terms.
"""

from trainer.distributed.agreement import check_alike, scope_of_all
from trainer.distributed.devices import prepare_gpus
from trainer.distributed.hosts import LOST, Hosts, PeerLost, peer_lost
from trainer.distributed.reduce import (
    destinations,
    on_devices,
    sum_all,
    sum_by_path,
    sum_in_replica,
)
from trainer.distributed.strategies import describe_devices, is_default, resolve_strategy

__all__ = [
    "LOST",
    "Hosts",
    "PeerLost",
    "check_alike",
    "describe_devices",
    "destinations",
    "is_default",
    "on_devices",
    "peer_lost",
    "prepare_gpus",
    "resolve_strategy",
    "scope_of_all",
    "sum_all",
    "sum_by_path",
    "sum_in_replica",
]
