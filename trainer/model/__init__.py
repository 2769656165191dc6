"""The Keras model as the Trainer takes it: built, walked, exported, and its variables.

Knows nothing of terms, steps or files of a run.
"""
