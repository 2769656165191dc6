"""Programs of `python -m experiments.run`: configurations, experiments and the command line."""
