"""The stand-in for labels that the data does not have: it raises only when a loss reads it."""

from __future__ import annotations

from losses.errors import TermwiseError


class MissingLabel:
    """Passed as `y_true` where there is no label; any use of it says what is missing.

    Args:
      output: the output's name.
      reason: what the data has instead.
    """

    def __init__(self, output: str, reason: str):
        self._message = (
            f"The loss of output {output!r} reads its label, but {reason}. "
            "Yield (x, y) with that label, set the output's loss to None, or use a loss that "
            "ignores y_true."
        )

    def _raise(self, *arguments, **keywords):
        raise TermwiseError(self._message)

    __tf_tensor__ = __array__ = __getitem__ = __len__ = __iter__ = __float__ = _raise
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _raise
    __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _raise
    __lt__ = __le__ = __gt__ = __ge__ = __abs__ = _raise

    def __getattr__(self, name):
        raise AttributeError(self._message)  # so that hasattr() says no
