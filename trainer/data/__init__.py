"""Where batches come from: pipelines or arrays, their parts, and a replica's share of one.

Knows nothing of models, terms or steps.
"""
