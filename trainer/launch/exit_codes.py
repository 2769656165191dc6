"""The exit codes by which a process tells how its run ended.

`python -m experiments.run` and `python -m trainer.launch` document them in their usage.
"""

DONE = 0  # the run is finished
WRONG = (
    2  # something in the command, the configuration or the data is wrong; a restart will not help
)
PREEMPTED = 42  # stopped by SIGTERM and saved: the same command continues the run
PEER_LOST = 75  # another host is gone: start all of them again
INTERRUPTED = 130  # stopped by SIGINT
TERMINATED = 143  # the launcher was stopped by SIGTERM, and not all workers saved
