"""What every balancer's constructor and configuration hold: its place, its terms, its own."""

import inspect
import json

import keras
import pytest
import tensorflow as tf

from losses import balancing

pytestmark = pytest.mark.one_in(3)

KINDS = [
    kind
    for kind in (getattr(balancing, name) for name in balancing.__all__)
    if not inspect.isabstract(kind) and kind is not balancing.Balancer
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def test_the_methods_are_all_of_the_packages():
    bases = {
        *("Balancer", "ValuesBalancer", "GramianBalancer", "JacobianBalancer"),
        *("JacobianWeightsBalancer", "TracesBalancer", "TrainedBalancer"),
    }
    assert {kind.__name__ for kind in KINDS} == set(balancing.__all__) - bases


@every_kind
def test_the_signature_shows_the_place_and_the_terms_by_keyword(kind):
    parameters = inspect.signature(kind).parameters
    assert "__init__" in vars(kind)
    for name in ("at", "terms"):
        assert parameters[name].default is None
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


@every_kind
@pytest.mark.parametrize(
    ("arguments", "at", "terms"),
    [
        ({}, None, None),
        ({"at": "trunk", "terms": "a"}, "trunk", ("a",)),
        ({"at": ["trunk/*", "neck/*"], "terms": ["a", "b*"]}, ["trunk/*", "neck/*"], ("a", "b*")),
    ],
)
def test_the_place_and_the_terms_are_made_again(kind, arguments, at, terms):
    balancer = kind(**arguments)
    assert (balancer.at, balancer.terms) == (at, terms)
    config = balancer.get_config()
    assert config["at"] == at and config["terms"] == terms
    for again in (kind.from_config(config), kind.from_config(json.loads(json.dumps(config)))):
        assert (again.at, again.terms) == (at, terms)
        assert again.get_config() == config
        assert repr(again) == repr(balancer)


@every_kind
def test_layers_and_variables_stay_what_they_are(kind):
    layer, variable = keras.layers.Dense(1, name="trunk"), keras.Variable(1.0)
    for at in (layer, variable, [layer, variable]):
        again = kind.from_config(kind(at=at).get_config())
        assert again.at is at
        assert "at=" in repr(again)


@every_kind
def test_the_keys_of_the_configuration_are_the_arguments(kind):
    assert set(kind().get_config()) == set(inspect.signature(kind).parameters)


@every_kind
def test_an_argument_that_a_method_does_not_have_is_an_error_that_names_those_it_has(kind):
    with pytest.raises(TypeError, match=f"{kind.__name__} has no prefers=.*Accepted: .*at, terms"):
        kind(prefers=[1.0, 2.0])


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "preference" not in inspect.signature(kind).parameters]
)
def test_a_preference_is_refused_by_every_method_without_one(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} has no preference=.*=\[1.0, 2.0\]"):
        kind(preference=[1.0, 2.0])


def test_the_base_class_says_what_a_method_reads_and_gives():
    by_base = {
        base: {kind.__name__ for kind in KINDS if issubclass(kind, getattr(balancing, base))}
        for base in balancing.__all__
        if base.endswith("Balancer") and base != "Balancer"
    }
    assert by_base["JacobianBalancer"] == {"GradDrop"}
    assert by_base["JacobianWeightsBalancer"] == {"LearningRateAnnealing"}
    assert by_base["TracesBalancer"] == {"NTK"}
    assert by_base["TrainedBalancer"] == {"Uncertainty", "IMTLL"}
    assert {kind.__name__ for kind in KINDS if kind.trained} == by_base["TrainedBalancer"]
    reads = {
        "ValuesBalancer": "values",
        "GramianBalancer": "gramian",
        "JacobianBalancer": "jacobian",
        "JacobianWeightsBalancer": "jacobian",
        "TracesBalancer": "traces",
    }
    for kind in KINDS:
        bases = [base for base in reads if kind.__name__ in by_base[base]]
        assert [reads[base] for base in bases] == [kind.needs]


@pytest.mark.parametrize("base", ["ValuesBalancer", "GramianBalancer", "JacobianBalancer"])
def test_a_base_class_is_no_method(base):
    with pytest.raises(TypeError, match=f"abstract class {base}"):
        getattr(balancing, base)()


class Halves(balancing.ValuesBalancer):
    """A user's balancer that takes what is its own, and knows of neither `at` nor `terms`."""

    def __init__(self, share=0.5):
        super().__init__()
        self.share = share

    def weights(self, values, state=None, *, step=0):
        return self.share * tf.ones_like(values)

    def get_config(self):
        return {"share": self.share, **super().get_config()}


def test_a_subclass_that_takes_its_own_arguments_alone_works_as_before():
    balancer = Halves(0.25)
    assert (balancer.at, balancer.terms, balancer.every) == (None, None, 1)
    assert repr(balancer) == "Halves(share=0.25)"
    again = Halves.from_config(balancer.get_config())
    assert again.weights(tf.ones([2])).numpy().tolist() == [0.25, 0.25]
    with pytest.raises(TypeError, match=r"Halves has no at=.*Accepted: share"):
        Halves(at="trunk")


class From(balancing.PCGrad):
    """A user's balancer whose own parameter is called `at`: the step from which it balances."""

    def __init__(self, at, **arguments):
        super().__init__(**arguments)
        self.first = at

    def get_config(self):
        return {**super().get_config(), "at": self.first}


def test_a_subclass_may_have_a_parameter_of_its_own_named_at():
    assert From(100).first == 100 and From(at=100).at is None
    again = From.from_config(From(at=100, terms=["a"], every=2, seed=3).get_config())
    assert (again.first, again.at) == (100, None)
    assert (again.terms, again.every, again.seed) == (("a",), 2, 3)


def test_a_subclass_without_a_constructor_takes_all_arguments():
    class Plain(balancing.UPGrad):
        pass

    balancer = Plain(at="trunk", terms="a", preference=[1.0])
    assert Plain.from_config(balancer.get_config()).get_config() == balancer.get_config()
    assert repr(balancer) == "Plain(preference=(1.0,), at='trunk', terms=('a',))"
