"""Weights that TorchJD 0.18.0 returned for given Jacobians, recorded in float64.

Made with torch 2.13.0 (CPU), `torch.set_default_dtype(torch.float64)` and, for each aggregator, a
forward hook on its weighting while it was called on the Jacobian below:

    MGDA(epsilon=1e-14, max_iters=100000)               CAGrad(c, norm_eps=0.0)
    UPGrad(pref_vector, projector=QuadprogProjector(norm_eps=0.0, reg_eps=1e-10)), DualProj(same)
    NashMTL(n_tasks=m, max_norm=..., optim_niter=500)   FairGrad(alpha)
    IMTLG()                                             AlignedMTL(pref_vector, scale_mode=...)

with p = [1/m, 2/m, ..., 1] as `pref_vector` where "p" is written. The epsilons are set small, as
the defaults (1e-4) are a regularization that we do not have. Left out is what had not converged
there: NashMTL of "three" (the start, 1 each, was returned) and of "scaled" (where FairGrad(1), the
same equation, agrees with ours), MGDA of "four" (2e-4 off), CAGrad(0.5) of "scaled" (the tolerance
of its solver), and the projections of "scaled", where even 1e-10 of the trace outweighs the short
row. `test_exact_optima.py` has the exact optima.
"""

import numpy as np
import pytest
import tensorflow as tf

from losses.balancing.aligned_mtl import AlignedMTL
from losses.balancing.cagrad import CAGrad
from losses.balancing.fairgrad import FairGrad
from losses.balancing.gradvac import GradVac
from losses.balancing.imtl_g import IMTLG
from losses.balancing.mgda import MGDA
from losses.balancing.nash_mtl import NashMTL
from losses.balancing.pcgrad import PCGrad
from losses.balancing.upgrad import DualProjection, UPGrad

pytestmark = pytest.mark.one_in(2)

JACOBIANS = {
    "conflict": [[1.0, 0.0, 2.0], [-2.0, 1.0, 0.5]],
    "three": [[1.0, -2.0, 0.5, 1.0], [-1.0, 1.0, 1.0, 0.0], [0.0, 2.0, -1.5, 1.0]],
    "dependent": [[1.0, 0.0], [-1.0, 2.0], [1.0, 1.0]],
    "four": [
        [3.0, 1.0, 0.0, -1.0, 2.0],
        [-1.0, 2.0, 1.0, 0.0, 0.0],
        [0.5, -1.0, 2.0, 1.0, -1.0],
        [-2.0, 0.0, 1.0, 3.0, 1.0],
    ],
    "scaled": [[300.0, 100.0, 0.0, -100.0], [-0.01, 0.02, 0.01, 0.0], [0.5, -1.0, 2.0, 1.0]],
}

MAKERS = {
    "MGDA": lambda p: MGDA(),
    "CAGrad(0.5)": lambda p: CAGrad(0.5),
    "CAGrad(1.5)": lambda p: CAGrad(1.5),
    "UPGrad": lambda p: UPGrad(),
    "UPGrad(p)": lambda p: UPGrad(preference=p),
    "DualProj": lambda p: DualProjection(),
    "DualProj(p)": lambda p: DualProjection(preference=p),
    "NashMTL": lambda p: NashMTL(),
    "NashMTL(0)": lambda p: NashMTL(max_norm=0),
    "FairGrad(0.5)": lambda p: FairGrad(0.5),
    "FairGrad(1)": lambda p: FairGrad(1.0),
    "FairGrad(2)": lambda p: FairGrad(2.0),
    "IMTLG": lambda p: IMTLG(),
    "AlignedMTL(min)": lambda p: AlignedMTL("min"),
    "AlignedMTL(median)": lambda p: AlignedMTL("median"),
    "AlignedMTL(rmse)": lambda p: AlignedMTL("rmse"),
    "AlignedMTL(p)": lambda p: AlignedMTL("min", preference=p),
}

RECORDS = {
    "conflict": {
        "MGDA": [0.5102041, 0.4897959],
        "CAGrad(0.5)": [0.7650644, 0.7344719],
        "CAGrad(1.5)": [1.275652, 1.224606],
        "UPGrad": [0.6, 0.5952381],
        "UPGrad(p)": [0.7, 1.095238],
        "DualProj": [0.5, 0.5],
        "DualProj(p)": [0.5, 1.0],
        "NashMTL": [0.3524931, 0.343998],
        "NashMTL(0)": [0.4985005, 0.4864867],
        "FairGrad(0.5)": [0.6290578, 0.6182099],
        "FairGrad(1)": [0.4985005, 0.4864867],
        "FairGrad(2)": [0.3948732, 0.3829961],
        "IMTLG": [0.5060985, 0.4939015],
        "AlignedMTL(min)": [0.5052528, 0.4940498],
        "AlignedMTL(median)": [0.5052528, 0.4940498],
        "AlignedMTL(rmse)": [0.5637074, 0.5512082],
        "AlignedMTL(p)": [0.5500648, 0.9432875],
    },
    "three": {
        "MGDA": [0.3666027, 0.4126679, 0.2207294],
        "CAGrad(0.5)": [0.5059317, 0.5473154, 0.3333333],
        "CAGrad(1.5)": [0.9586174, 1.079118, 0.5771158],
        "UPGrad": [0.7733333, 0.751938, 0.5550388],
        "UPGrad(p)": [1.48, 1.418605, 1.288372],
        "DualProj": [0.3333333, 0.3333333, 0.3333333],
        "DualProj(p)": [0.8666667, 0.6666667, 1.0],
        "FairGrad(0.5)": [1.000981, 1.0294, 0.71589],
        "FairGrad(1)": [0.9591963, 1.019465, 0.6410068],
        "FairGrad(2)": [0.919414, 1.001498, 0.5865832],
        "IMTLG": [0.3753966, 0.3849127, 0.2396906],
        "AlignedMTL(min)": [0.3427408, 0.3630813, 0.2434891],
        "AlignedMTL(median)": [0.6444337, 0.6826786, 0.4578169],
        "AlignedMTL(rmse)": [0.733948, 0.7775052, 0.5214094],
        "AlignedMTL(p)": [0.5436167, 0.6695752, 0.5861788],
    },
    "dependent": {
        "MGDA": [0.7499906, 0.2499981, 1.124721e-05],
        "CAGrad(0.5)": [0.8603796, 0.3333333, 0.3333333],
        "CAGrad(1.5)": [2.10078, 0.7002809, 0.3333333],
        "UPGrad": [0.6666667, 0.4, 0.3333333],
        "UPGrad(p)": [1.0, 0.7333333, 1.0],
        "DualProj": [0.3333333, 0.3333333, 0.3333333],
        "DualProj(p)": [0.3333333, 0.6666667, 1.0],
        "NashMTL": [0.6063884, 0.2973487, 0.2406629],
        "NashMTL(0)": [1.050296, 0.5150231, 0.4168404],
        "FairGrad(0.5)": [1.005716, 0.6134074, 0.5963554],
        "FairGrad(1)": [1.050296, 0.5150231, 0.4168404],
        "FairGrad(2)": [1.175744, 0.4790173, 0.2255128],
        "IMTLG": [0.222378, 0.2960366, 0.4815853],
        "AlignedMTL(min)": [0.2078637, 0.1843727, 0.4039818],
        "AlignedMTL(median)": [0.2078637, 0.1843727, 0.4039818],
        "AlignedMTL(rmse)": [0.2585308, 0.2293138, 0.5024531],
        "AlignedMTL(p)": [0.4462611, 0.4486012, 0.8936922],
    },
    "four": {
        "CAGrad(0.5)": [0.3950715, 0.4227159, 0.431004, 0.25],
        "CAGrad(1.5)": [0.6379236, 0.8166823, 0.8084273, 0.2873165],
        "UPGrad": [0.4309377, 0.2780899, 0.3157436, 0.358396],
        "UPGrad(p)": [0.8887481, 0.5842697, 0.8401339, 1.108396],
        "DualProj": [0.25, 0.25, 0.25, 0.25],
        "DualProj(p)": [0.625, 0.5, 0.75, 1.0],
        "NashMTL": [0.1947941, 0.1949986, 0.1984073, 0.1353554],
        "NashMTL(0)": [0.3895881, 0.3899973, 0.3968146, 0.2707107],
        "FairGrad(0.5)": [0.5447586, 0.52651, 0.5340225, 0.4200154],
        "FairGrad(1)": [0.3895881, 0.3899973, 0.3968146, 0.2707107],
        "FairGrad(2)": [0.2760799, 0.2929015, 0.2973171, 0.1716874],
        "IMTLG": [0.3116361, 0.2191679, 0.2632115, 0.2059845],
        "AlignedMTL(min)": [0.1947092, 0.2091818, 0.2100688, 0.1349726],
        "AlignedMTL(median)": [0.2490387, 0.2675496, 0.2686841, 0.1726338],
        "AlignedMTL(rmse)": [0.3100419, 0.3330872, 0.3344995, 0.2149213],
        "AlignedMTL(p)": [0.3244975, 0.3733503, 0.5638075, 0.5215141],
    },
    "scaled": {
        "MGDA": [9.527807e-06, 0.9990214, 0.000969046],
        "CAGrad(1.5)": [0.3333333, 6783.454, 8.690087],
        "FairGrad(0.5)": [0.02109189, 41.29029, 0.6191475],
        "FairGrad(1)": [0.003336543, 45.66542, 0.4328596],
        "FairGrad(2)": [0.001710577, 144.65, 0.3867004],
        "IMTLG": [7.186194e-05, 0.990774, 0.009154144],
        "AlignedMTL(min)": [2.895604e-05, 0.3336254, 0.003524783],
        "AlignedMTL(median)": [0.002984633, 34.38831, 0.3633156],
        "AlignedMTL(rmse)": [0.2290287, 2638.82, 27.87938],
        "AlignedMTL(p)": [3.5041e-05, 0.6675368, 0.01028226],
    },
}


@pytest.mark.parametrize(
    "name,matrix", [(name, matrix) for matrix in RECORDS for name in RECORDS[matrix]]
)
def test_the_weights_are_those_of_torchjd(name, matrix):
    jacobian = np.array(JACOBIANS[matrix])
    terms = len(jacobian)
    balancer = MAKERS[name](np.arange(1, terms + 1) / terms)
    expected = np.array(RECORDS[matrix][name])
    weights = balancer.weights(tf.constant(jacobian @ jacobian.T)).numpy()
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-4 * max(1, expected.max()))
    direction = balancer.direction(tf.constant(jacobian)).numpy()
    size = np.abs(expected @ jacobian).max()
    np.testing.assert_allclose(direction, expected @ jacobian, rtol=0, atol=2e-4 * size)


# Two terms leave no order to draw. The Jacobians of three successive steps.
STEPS = [
    JACOBIANS["conflict"],
    [[1.0, 1.0, 0.0], [1.0, -0.5, 1.0]],
    [[0.0, 1.0, 1.0], [1.0, -3.0, 0.2]],
]


def test_pcgrad_of_two_terms_is_that_of_torchjd():
    expected = [
        [-1.180952380952381, 1.1904761904761905, 2.9952380952380953],
        [2.0, 0.5, 1.0],
        [1.2788844621513944, -1.4366533864541835, 2.655776892430279],
    ]
    for jacobian, direction in zip(STEPS, expected, strict=True):
        ours = PCGrad().direction(tf.constant(jacobian, tf.float64))
        np.testing.assert_allclose(ours, direction, rtol=1e-10)


def test_gradvac_of_two_terms_follows_torchjd_over_three_steps():
    # GradVac(beta=0.5, eps=1e-8): the targets of the third step come from the first two.
    expected = [
        [-1.1809523798310129, 1.1904761892731128, 2.995238092066982],
        [2.0, 0.5, 1.0],
        [1.3030055659441864, -1.3879287627621992, 2.781689048259197],
    ]
    balancer = GradVac(beta=0.5)
    state = balancer.initial_state(2)
    for step, (jacobian, direction) in enumerate(zip(STEPS, expected, strict=True)):
        jacobian = tf.constant(jacobian, tf.float64)
        ours = balancer.direction(jacobian, state, step=step)
        np.testing.assert_allclose(ours, direction, rtol=1e-6)
        gramian = tf.matmul(jacobian, jacobian, transpose_b=True)
        state = balancer.next_state(gramian, state, step=step)
    last = -0.2778972261319982
    np.testing.assert_allclose(state["targets"], [[0, last], [last, 0]], atol=1e-7)
