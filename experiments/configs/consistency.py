r"""100 labels for 1,078 digits, and a term that wants two views of an image to agree.

    python -m experiments.run --config=experiments/configs/consistency.py --workdir=runs/consistency

and the labels alone:

    python -m experiments.run --config=experiments/configs/consistency.py \
        --workdir=runs/labels_alone --config.loss_weights.consistency=0

Takes 13 to 18 seconds on two CPU cores, the start of TensorFlow included. Test accuracy to expect
with seeds 0, 1 and 2: 97.2 %, 98.1 % and 96.4 %; with the labels alone 91.7 %, 93.6 % and 89.7 %.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.consistency"
    config.seed = 0  # of weights, batches, views, and of which examples have a label

    config.steps = 1200
    config.batch_size = 128
    config.log_every = 100
    config.validate_every = 400
    config.checkpoint_every = 400

    config.labelled = 100  # of 1,078
    config.noise = 1.0  # of a view, in grey levels of 16

    config.model = ConfigDict()
    config.model.channels = (16, 32)
    config.model.hidden = 64
    config.model.dropout = 0.1

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 3e-3  # decays to 0 along a cosine

    config.loss_weights = ConfigDict()
    config.loss_weights.consistency = 1.0  # 0: the labels alone
    config.ramp_steps = 600  # the weight rises from 0 to its value over so many steps
    return config
