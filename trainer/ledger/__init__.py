"""The record of a run: rows, and who writes them: metrics.jsonl, TensorBoard, the console.

Numbers on the host; no tensor is made here.
"""
