"""The machinery of `python -m experiments.run`: flags, configuration, saved runs, errors."""
