"""What a loss asks of other replicas and hosts: their examples, their number, sums over them.

The loop's own sums over hosts go through here too, so that they have one form.
"""

from losses.distributed.gather import gather_examples, own_examples, owned, sees_whole_batch
from losses.distributed.hosts import (
    host_count,
    host_index,
    local_replicas,
    sum_of_any_shape,
    sum_over_hosts,
)

__all__ = [
    "gather_examples",
    "host_count",
    "host_index",
    "local_replicas",
    "own_examples",
    "owned",
    "sees_whole_batch",
    "sum_of_any_shape",
    "sum_over_hosts",
]
