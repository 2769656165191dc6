"""The inner loop, compiled: many steps in one call, over any number of log windows.

A loop is a function of a step and of a feed of batches.
"""
