"""One step on one replica: forward pass, sums of the terms, gradients of the total.

Pure functions of tensors; knows no loop.
"""
