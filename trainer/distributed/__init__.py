"""The devices and hosts of a run: strategies, what hosts agree on, and sums over replicas.

Knows tensors and variables, nothing of terms.
"""
