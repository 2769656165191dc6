"""`python -m trainer.launch.on_ray`: the workers of a run on the nodes of a Ray cluster.

An actor on each node starts the command in a process of its own: nothing of Ray's own trainers,
which want Keras 2, is used. Needs the package `ray`, and no TensorFlow.
"""

from trainer.launch.on_ray.driver import main

__all__ = ["main"]
