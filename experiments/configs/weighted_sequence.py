r"""An LSTM with 100 outputs, each output and each example with a weight of its own in the loss.

    python -m experiments.run --config=experiments/configs/weighted_sequence.py \
        --workdir=runs/weighted_sequence

The same objective, with the weights as an argument of the loss and as sample weights, is
`--config.variant=loss`; plain squared error is `--config.variant=unweighted`.

Trains in 20 to 35 seconds on two CPU cores that other programs shared. Weighted error on test data
to expect, mean of seeds 0, 1 and 2 with its standard error: 0.0320 ± 0.0006; of unweighted training
0.0404 ± 0.0020. The exported model predicts what the trained one does.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.gallery.weighted_sequence"
    config.seed = 0  # of the data, the weights and the batches
    config.variant = "labels"  # or loss, unweighted
    config.units = 16  # of the LSTM; those that made the labels are 32

    config.steps = 800
    config.batch_size = 100
    config.log_every = 100
    config.validate_every = 400
    config.checkpoint_every = 400

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 0.01  # decays to 0 along a cosine
    return config
