"""Burgers."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.gallery.burgers"
    config.precision = "float64"
    config.seed = 0  # of the points and the weights

    config.method = "bfgs"  # or lbfgs, gauss_newton; adam: alone
    config.adam_steps = 500  # 0: the second-order method alone
    config.steps = 6000
    config.batch_size = 4000  # all points
    config.log_every = 100
    config.validate_every = 100_000
    config.checkpoint_every = 500

    config.width = 20
    config.depth = 3
    config.learning_rate = 5e-3
    config.error_at_most = 1e-5
    return config
