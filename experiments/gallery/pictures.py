"""Pictures that several experiments draw."""

from __future__ import annotations


def draw_told(trainer, test):
    """The first 36 test images with the digit that is told; what is wrong in red.

    Args:
      trainer: trained.
      test: (x [examples, 8, 8, 1] of 0 to 16, y [examples]).
    """
    from matplotlib.figure import Figure

    x, y = test
    told = trainer.predict(x[:36]).argmax(axis=-1)
    figure = Figure(figsize=(5, 5))
    for place, axes in enumerate(figure.subplots(6, 6).flat):
        axes.imshow(x[place, ..., 0], cmap="gray_r", vmin=0, vmax=16)
        axes.set_axis_off()
        axes.set_title(told[place], color="black" if told[place] == y[place] else "red", fontsize=9)
    return figure
