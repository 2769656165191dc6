"""Several named sources of data: what a user passes, and the one source that they make."""

from trainer.data.named.joint import JointSource
from trainer.data.named.sources import Sources

__all__ = ["JointSource", "Sources"]
