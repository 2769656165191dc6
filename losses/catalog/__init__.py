"""Losses in the form of Keras, one value per example from y_true and y_pred, by theme.

Each registers itself with Keras and, where it has one, by its name.
"""
