"""What outlives a process: the workdir, its lock, checkpoints, and what a run restores.

A file is whole or not there.
"""
