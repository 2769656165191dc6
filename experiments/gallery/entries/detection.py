"""A detector whose loss is made of terms; that the loss in the graph is the same, it checks."""

from experiments.gallery.table import Entry

ENTRY = Entry(
    "YOLOv3's parts as terms on 128x128 scenes of real digits, beside the loss computed inside the "
    "model (`lambda y_true, y_pred: y_pred`): the same training.",
    variants={"terms": ()},
)
