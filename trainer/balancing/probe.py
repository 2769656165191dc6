"""A look at the terms' gradients one by one, in a pass that changes nothing."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses import Layout
from losses.errors import TermwiseError
from losses.example_random import example_keys, uniform
from trainer.balancing.jacobian import stacked, term_gradients
from trainer.model.variables import tensor_variable


def probe(replica, batch, alive, totals=None, *, residuals=False) -> dict[str, tf.Tensor]:
    """The gradients of the terms' raw values, or of their residuals, on one replica.

    A residual is the square root of one example's part of a term. Summed under random signs v,

        s = sum_j v_j r_j,   E |ds/dw|^2 = sum_j |dr_j/dw|^2,

    the trace of the term's neural tangent kernel (Hutchinson's estimator).

    Args:
      batch, alive, totals: as in `Replica.train`.
      residuals: of the balanced terms' residuals instead of all terms' values.
    Returns:
      path -> rows [terms, ...], to be summed over the replicas.
    Raises:
      ValueError: residuals of a term that gives no value per example.
    """
    model, trained = replica.trainer.model, replica.trained
    regularized = [v for v in model.variables if getattr(v, "regularizer", None)]
    with tf.GradientTape(persistent=True) as tape:
        values = [(v, tf.convert_to_tensor(v.value)) for v in regularized]
        with keras.StatelessScope(values, collect_losses=True, initialize_variables=False):
            step, terms = replica.forward(batch, alive)
        if residuals:
            names = replica.balancing.names
            parts = [_signed(terms[name], name, i, step) for i, name in enumerate(names)]
        else:
            layout = Layout.of(terms)
            with tape.stop_recording():
                if totals is None:
                    totals = replica.total(tf.concat(layout.pack(terms), 0))
                size, ones = layout.size, tf.ones([len(layout.names)])
                _, seeds = layout.raw_and_cotangents(totals[:size], totals[size : 2 * size], ones)
            parts = layout.parts(terms, seeds)
    paths = list(trained.owners)
    sources = [tensor_variable(trained.variables[path]) for path in paths]
    found = term_gradients(tape, parts, None, sources)
    return {
        path: stacked(list(rows), source)
        for path, source, rows in zip(paths, sources, zip(*found, strict=True), strict=True)
    }


def _signed(ratio, name, index, step):
    """The sum of one term's residuals under random signs, []."""
    if ratio.values is None:
        raise TermwiseError(
            f"Term {name!r} gives no value per example, so its residuals are unknown. Leave it "
            "out by the balancer's terms=, or return one value per example."
        )
    keys = example_keys(step.x, index, step.step)
    values = tf.reshape(tf.cast(ratio.values, tf.float32), [tf.shape(keys)[0], -1])
    signs = tf.where(uniform(keys, tf.shape(values)[1]) > 0.5, 1.0, -1.0)
    # a square root has no slope at 0
    roots = tf.sqrt(tf.maximum(values, 1e-30))
    return tf.reduce_sum(signs * tf.where(values > 1e-30, roots, 0.0))
