"""The same digits from a function, from files, and from files on two replicas."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured

FILES = ("--config.data.files=runs/digits_files/*.tfrecord", "--config.data.write=8")


def aims(measured: Measured) -> dict[str, Check]:
    """Each way of reading reaches the accuracy of the same network on arrays."""
    return {
        f"{variant}: accuracy": Check(measured.mean(variant, "accuracy"), at_least=0.95)
        for variant in ("function", "files", "replicas")
    }


ENTRY = Entry(
    "TFRecord files and a TFDS-shaped function by flags, read several files at a time, each host "
    "its share; on one replica and two.",
    variants={
        "function": (),
        "files": FILES,
        "replicas": (*FILES, "--strategy=mirrored", "--virtual_devices=2"),
    },
    seeds=(0,),  # that each way reads is what is shown
    aims=aims,
)
