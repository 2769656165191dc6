"""A variational autoencoder, with and without what keeps its latents in use."""

from experiments.gallery.table import Entry

ENTRY = Entry(
    "Reconstruction and KL divergence as terms of a variational autoencoder: a cyclical weight, "
    "free bits, and the exact divergence watched at weight 0. The bound is computed a second "
    "time, by SciPy's densities.",
    variants={
        "cyclical": (),
        "plain": ("--config.cycles=0", "--config.free_bits=0.0"),
    },
)
