"""Second-order methods over all data: an iteration is a training step of the last phase."""

from trainer.second_order.dense import BFGS
from trainer.second_order.gauss_newton import GaussNewton
from trainer.second_order.lbfgs import LBFGS
from trainer.second_order.method import SecondOrder

__all__ = ["BFGS", "LBFGS", "GaussNewton", "SecondOrder"]
