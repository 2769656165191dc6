"""The outer loop, on the host: what happens between two calls of the compiled loop.

Cadences, callbacks, signals, validation, prediction.
"""
