r"""A parameter inside a loss of one's own, trained downhill, against its solution by least squares.

    python -m experiments.run --config=experiments/configs/trainable_loss.py \
        --workdir=runs/trainable_loss

and uphill, by `losses.Parameter(maximize=True)`:

    python -m experiments.run --config=experiments/configs/trainable_loss.py \
        --workdir=runs/trainable_loss_ascent --config.direction=ascent

Trains in 10 to 32 seconds on two CPU cores that other programs shared. With seeds 0, 1 and 2 the
parameter and all coefficients come within 0.00001 of their solution, in both directions.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.gallery.trainable_loss"
    config.seed = 0  # of the data and the weights
    config.direction = "descent"  # or ascent
    config.start = 2.0  # where the parameter starts

    config.steps = 2000
    config.batch_size = 256  # all examples: the solution is that of these
    config.log_every = 100
    config.validate_every = 2000
    config.checkpoint_every = 2000

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 0.05  # decays to 0 along a cosine
    return config
