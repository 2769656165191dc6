"""Where a compiled loop gets its batches: pipelines, arrays, several sources, accumulated steps."""

from trainer.loop.feeds.accumulation import AccumulatingFeed, make_feed
from trainer.loop.feeds.feed import ArrayFeed, Feed, IteratorFeed, LoopCarry

__all__ = ["AccumulatingFeed", "ArrayFeed", "Feed", "IteratorFeed", "LoopCarry", "make_feed"]
