"""A GAN that learns a mixture whose density is known."""

from experiments.gallery.table import Entry

ENTRY = Entry(
    "A Wasserstein GAN as two groups of variables: a gradient penalty, a generator that moves at "
    "every fifth step, and an average of its weights. It learns eight Gaussians on a ring.",
)
