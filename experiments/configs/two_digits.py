r"""Two digits laid over each other, two tasks, and a balancer between them.

    python -m experiments.run --config=experiments/configs/two_digits.py --workdir=runs/two_digits

and with another balancer:

    python -m experiments.run --config=experiments/configs/two_digits.py \
        --workdir=runs/two_digits_pcgrad --config.balancer=pcgrad
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.two_digits"
    config.seed = 0  # of weights and batches; the pairs are always the same
    config.balancer = "equal"  # or uncertainty, pcgrad, cagrad, mgda, fairgrad

    config.steps = 1000
    config.batch_size = 128
    config.log_every = 100
    config.validate_every = 500
    config.checkpoint_every = 500
    config.gradient_diagnostics_every = 100

    config.model = ConfigDict()
    config.model.channels = (16, 32)
    config.model.shared = 64

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 3e-3  # decays to 0 along a cosine
    return config
