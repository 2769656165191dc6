r"""A linear classifier of digits that is to recall 90 % of the eights, by a constraint.

    python -m experiments.run --config=experiments/configs/constrained.py \
        --workdir=runs/constrained

and by a constraint that counts the training data, by a weight that was tuned by hand, or not at
all:

    python -m experiments.run --config=experiments/configs/constrained.py \
        --workdir=runs/constrained_train --config.variant=train
    python -m experiments.run --config=experiments/configs/constrained.py \
        --workdir=runs/constrained_weight --config.variant=weight
    python -m experiments.run --config=experiments/configs/constrained.py \
        --workdir=runs/constrained_plain --config.variant=plain

Trains in 5 seconds of processor time; start and check take some ten more. Recall to expect with
seeds 0, 1 and 2 (57 to 69 test eights, so that a recall of 0.9 has a sampling error of 0.04):

    variant   recall, test           recall, held           accuracy, test
    held      0.957, 0.965, 0.902    0.907, 0.907, 0.926    0.924, 0.946, 0.943
    train     0.870, 0.825, 0.820    0.796, 0.814, 0.778    0.933, 0.930, 0.937
    weight    0.957, 0.947, 0.918    0.907, 0.907, 0.926    0.922, 0.944, 0.943
    plain     0.870, 0.825, 0.738    0.796, 0.814, 0.722    0.933, 0.930, 0.928

The rate 0.2, the average and the weight decay are those of docs/constraints.md. The weight of the
third is the least of four that kept the bound on the held part of seeds 20 to 23. The bound and
the size of the held part were changed once after test results of seeds 0 and 1 had been seen; the
new ones were chosen on seeds 20 to 23.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.gallery.constrained"
    config.seed = 0  # of the split of the data, weights and batches
    config.variant = "held"  # where the constraint counts; or train, weight, plain

    config.steps = 3000
    config.batch_size = 64
    config.held_batch_size = 539  # all of that part: a rate of some 50 eights is noise enough
    config.log_every = 300
    config.validate_every = 1000
    config.checkpoint_every = 1000

    config.bound = 0.9
    config.rate = 0.2  # of the multiplier, per step and unit of recall
    config.average = 0.95  # over batches, of the rate that moves it

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 5e-3  # decays to 0 along a cosine

    config.loss_weights = ConfigDict()
    config.loss_weights.l2 = 0.01
    config.loss_weights.misses = (
        0.1  # the least of 0.1, 0.2, 0.4 and 0.8 that kept the bound on seeds 20 to 23
    )
    return config
