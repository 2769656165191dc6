"""Groups: one forward pass, and an update of each group that is due."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer


class Gan(keras.Model):
    """A line of noise to a number, and a critic that tells it from the data."""

    def __init__(self):
        super().__init__(name="gan")
        self.generator = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, name="line")], name="generator"
        )
        self.critic = keras.Sequential(
            [
                keras.Input((1,)),
                keras.layers.Dense(16, activation="relu"),
                keras.layers.Dense(1),
            ],
            name="critic",
        )

    def call(self, x):
        fake = self.generator(x["noise"])
        return {"fake": fake, "on_fake": self.critic(fake), "on_real": self.critic(x["real"])}

    def build(self, input_shape=None):
        self.built = True


def gan_terms():
    softplus = tf.nn.softplus
    return [
        losses.term(
            lambda s: tf.reduce_mean(
                softplus(-s.y_pred["on_real"]) + softplus(s.y_pred["on_fake"]), -1
            ),
            name="critic_loss",
            trains="critic",
        ),
        losses.term(
            lambda s: tf.reduce_mean(softplus(-s.y_pred["on_fake"]), -1),
            name="generator_loss",
            trains="generator",
        ),
    ]


def make_gan(**arguments):
    arguments.setdefault(
        "optimizer",
        {
            "generator": keras.optimizers.Adam(0.01, beta_1=0.5),
            "critic": keras.optimizers.Adam(0.02, beta_1=0.5),
        },
    )
    return Trainer(
        Gan(),
        terms=gan_terms(),
        groups={"generator": "generator/*", "critic": "critic/*"},
        **arguments,
    )


def noise_and_data(n=2048):
    rng = np.random.default_rng(0)
    real = rng.normal(3.0, 0.5, (n, 1)).astype("float32")
    return {"noise": rng.normal(size=(n, 1)).astype("float32"), "real": real}


def test_each_term_trains_its_group_alone_as_by_hand():
    data = {k: v[:32] for k, v in noise_and_data().items()}
    trainer = make_gan(optimizer={n: keras.optimizers.SGD(0.1) for n in ("generator", "critic")})
    model = trainer.model
    model(data)
    with tf.GradientTape(persistent=True) as tape:
        y = model(data)
        critic = tf.reduce_mean(tf.nn.softplus(-y["on_real"]) + tf.nn.softplus(y["on_fake"]))
        generator = tf.reduce_mean(tf.nn.softplus(-y["on_fake"]))
    expected = {}
    for part, value in ((model.critic, critic), (model.generator, generator)):
        variables = [v.value for v in part.trainable_variables]
        for v, g in zip(part.trainable_variables, tape.gradient(value, variables), strict=True):
            expected[v.path] = v.numpy() - 0.1 * g.numpy()
    trainer.fit(data, steps=1, batch_size=32, verbose=False)
    for v in model.trainable_variables:
        np.testing.assert_allclose(v, expected[v.path], rtol=1e-5, atol=1e-6, err_msg=v.path)


def test_a_group_is_updated_at_its_interval():
    data = noise_and_data(64)
    trainer = make_gan(update_every={"generator": 5})
    counts = []
    for step in range(1, 12):
        trainer.fit(data, steps=step, batch_size=32, verbose=False)
        counts.append(int(trainer.optimizer["generator"].iterations))
    assert counts == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert int(trainer.optimizer["critic"].iterations) == 11


@pytest.mark.slow
def test_a_small_gan_learns_the_mean_of_its_data():
    trainer = make_gan(update_every={"generator": 2})
    row = trainer.fit(
        noise_and_data(), steps=1500, batch_size=256, log_every=500, verbose=False
    ).rows[-1]
    made = trainer.model.generator.predict(
        np.random.default_rng(1).normal(size=(4000, 1)), verbose=0
    )
    assert made.mean() == pytest.approx(3.0, abs=0.3)
    assert {"raw/critic_loss", "raw/generator_loss"} <= row.keys()
    assert {"learning_rate/generator", "learning_rate/critic"} <= row.keys()


def test_a_group_without_an_optimizer_is_frozen():
    data = noise_and_data(64)
    trainer = make_gan(optimizer={"critic": "sgd", "generator": None})
    trainer.build(data)
    before = trainer.model.generator.get_weights()
    moved = trainer.model.critic.get_weights()
    trainer.fit(data, steps=3, batch_size=32, verbose=False)
    for mine, theirs in zip(trainer.model.generator.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(trainer.model.critic.get_weights()[0], moved[0])


def test_the_table_says_what_a_term_trains():
    trainer = make_gan()
    trainer.build(noise_and_data(64))
    assert "critic_loss     term, trains critic     1" in trainer.describe()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(groups={"generator": "generator/*", "critic": "critc/*"}),
            "'critc/\\*'} holds no variable",
        ),
        (dict(groups={"generator": "*", "critic": "critic/*"}), "is in group 'generator' and in"),
        (
            dict(groups={"generator": "generator/*"}, optimizer={"generator": "sgd"}),
            "Variables in no group",
        ),
    ],
)
def test_groups_that_do_not_divide_the_variables_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        base = dict(optimizer={"generator": "sgd", "critic": "sgd"}, terms=gan_terms())
        trainer = Trainer(Gan(), **{**base, **arguments})
        trainer.build(noise_and_data(64))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(optimizer={"crtic": "sgd"}), "names group 'crtic'.*Did you mean 'critic'"),
        (dict(update_every={"crtic": 2}), "update_every= names group 'crtic'"),
        (dict(update_every={"critic": 0}), "whole number of at least 1"),
    ],
)
def test_an_unknown_group_is_an_error_before_anything_is_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_gan(**arguments)


def test_a_term_that_trains_an_unknown_group_is_an_error():
    terms = [losses.term(lambda s: tf.reduce_mean(s.y_pred["fake"]), name="t", trains="actor")]
    trainer = Trainer(
        Gan(),
        optimizer={"generator": "sgd", "critic": "sgd"},
        terms=terms,
        groups={"generator": "generator/*", "critic": "critic/*"},
    )
    with pytest.raises(ValueError, match="Term 't' trains 'actor'; the groups are"):
        trainer.build(noise_and_data(64))
