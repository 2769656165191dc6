"""What a reader of runs is told when it asks for what is not there."""


class ReportError(ValueError):
    """A run, a step or an argument that cannot be shown; one line that says what to do.

    A class of its own: `losses.errors` would bring TensorFlow.
    """
