r"""The quickstart on two replicas: the same global batches, the same ledger as on one.

    python -m experiments.run --config=experiments/configs/digits_mirrored.py \
        --workdir=runs/digits_mirrored --strategy=mirrored --virtual_devices=2

Takes 13 to 18 seconds on two CPU cores, the start of TensorFlow included. Test accuracy to
expect: 98.3 %, as on one device with the same seed; so is every printed digit of the ledger.
"""

from experiments.configs import digits


def get_config():
    return digits.get_config()
