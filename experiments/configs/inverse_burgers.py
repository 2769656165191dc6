r"""Both coefficients of Burgers' equation from 500 values: Adam, then self-scaled Broyden.

    python -m experiments.run --config=experiments/configs/inverse_burgers.py \
        --workdir=runs/inverse_burgers

With seeds 0, 1 and 2 the coefficient of advection was found to 0.0020 %, 0.0011 % and 0.0045 %, the
viscosity to 0.64 %, 1.7 % and 0.27 %, in 31 to 38 seconds of CPU time each.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.gallery.inverse_burgers"
    config.precision = "float64"
    config.seed = 0  # of the points and the weights

    config.variant = "second_order"  # or annealing, relobralo, ntk, plain: Adam alone
    config.adam_steps = 500
    config.steps = 1500
    config.batch_size = 0  # that of each source is points
    config.log_every = 50
    config.validate_every = 100_000
    config.checkpoint_every = 1000

    config.points = ConfigDict()  # all of them in each step
    config.points.interior = 1500
    config.points.boundary = 100
    config.points.initial = 100
    config.points.measured = 500

    config.width = 20
    config.depth = 3
    config.learning_rate = 5e-3
    return config
