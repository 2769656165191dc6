r"""Where the digits of a scene are, and which: a small YOLOv3 on scenes of real handwritten digits.

    python -m experiments.run --config=experiments/configs/detection.py --workdir=runs/detection

and with the loss computed inside the model, as was done with Keras before: the same training.

    python -m experiments.run --config=experiments/configs/detection.py \
        --workdir=runs/detection_in_graph --config.variant=in_graph

Training takes 4 to 6 minutes on two CPU cores that others use too. On 300 scenes of test digits,
mAP@0.5 to expect with seeds 0, 1 and 2: 0.983, 0.984 and 0.978. After ten steps of each the
weights of both variants are equal.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.experiment = "experiments.gallery.detection"
    config.variant = "terms"  # or in_graph
    config.seed = 0  # of weights, batches and scenes

    config.steps = 1500
    config.batch_size = 16
    config.log_every = 100
    config.validate_every = 500
    config.checkpoint_every = 500

    config.scenes = ConfigDict({"train": 2000, "validation": 200, "test": 300})
    config.compared_steps = 10  # after which both variants' weights are compared

    config.model = ConfigDict()
    config.model.channels = (8, 16, 32, 64)

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 4e-3  # decays to 0 along a cosine
    return config
