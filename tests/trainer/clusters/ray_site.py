"""A Ray cluster of several nodes on this machine, which come and go as stdin says.

    python ray_site.py 2

starts two nodes of one CPU each and prints `address HOST:PORT`. Each line of stdin is obeyed and
answered: `add` starts a node, `remove` kills the newest. The end of stdin ends all.
"""

import sys

from ray.cluster_utils import Cluster

LONGEST = 600  # seconds that a node may take to start
SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def main(nodes):
    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    others = [cluster.add_node(wait=False, **SMALL) for _ in range(nodes - 1)]
    cluster.wait_for_nodes(LONGEST)
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        if line.strip() == "add":
            others.append(cluster.add_node(wait=False, **SMALL))
            cluster.wait_for_nodes(LONGEST)
        else:
            cluster.remove_node(others.pop(), allow_graceful=False)
        print(f"done {line.strip()}", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
