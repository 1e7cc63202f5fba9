"""Initializers beyond the tests of layers: truncated values and arrays."""

import numpy as np
import pytest

import seqnet
from seqnet import initializers
from seqnet.layers import Dense, Embedding
from seqnet.optimizers import Adam
from seqnet.optimizers.schedules import CosineDecay


def test_truncated_normal():
    rng = np.random.default_rng(1)
    values = initializers.TruncatedNormal(mean=3.0, stddev=0.5)((200, 100), rng, "float64")
    assert np.abs(values - 3.0).max() <= 1.0
    assert values.mean() == pytest.approx(3.0, abs=0.01)
    # The deviation of the normal distribution between -2 and 2 is 0.8796.
    assert values.std() == pytest.approx(0.5 * 0.87962566, rel=0.02)
    config = {"name": "truncated_normal", "config": {"mean": 0.0, "stddev": 2.0}}
    assert initializers.get(config).stddev == 2.0
    with pytest.raises(ValueError, match="stddev must be at least 0"):
        initializers.TruncatedNormal(stddev=-1.0)


def test_constant_of_an_array_survives_a_file(tmp_path):
    vectors = np.arange(6.0).reshape(3, 2)
    start = initializers.Constant(vectors)
    model = seqnet.Model([Embedding(3, 2, embeddings_initializer=start, trainable=False)])
    model.build((None, 4))
    np.testing.assert_array_equal(model.get_weights()[0], vectors)
    model.save(tmp_path / "model.h5")
    loaded = seqnet.load_model(tmp_path / "model.h5")
    again = seqnet.clone_model(loaded)
    again.build((None, 4))
    np.testing.assert_array_equal(again.get_weights()[0], vectors)


def test_errors_of_constant():
    layer = Dense(3, kernel_initializer=initializers.Constant([[1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"shape \(1, 2\), and the weight \(2, 3\)"):
        layer.build((None, 2))
    with pytest.raises(TypeError, match="holds numbers"):
        initializers.Constant(["a"])
    with pytest.raises(TypeError, match="The value of Constant must be a number"):
        initializers.Constant("a")


def test_the_name_of_optimizers_and_schedules_is_ignored():
    schedule = CosineDecay(0.1, 10, name="decay")
    assert Adam(schedule, name="adam").get_config()["learning_rate"]["config"] == {
        "initial_learning_rate": 0.1,
        "decay_steps": 10,
        "alpha": 0.0,
        "warmup_target": None,
        "warmup_steps": 0,
    }
    with pytest.raises(TypeError, match="takes no argument 'names'"):
        Adam(names="adam")


@pytest.mark.parametrize("name", ["RandomNormal", "RandomUniform", "HeNormal", "Orthogonal"])
def test_a_seed_gives_the_same_values_in_each_call(name):
    make = getattr(initializers, name)
    seeded = make(seed=3)
    np.testing.assert_array_equal(seeded((4, 2)), seeded((4, 2)))
    assert not np.array_equal(seeded((4, 2)), make(seed=4)((4, 2)))
    assert not np.array_equal(make()((4, 2)), make()((4, 2)))
    layers = [Dense(2, kernel_initializer=make.from_config(seeded.get_config())) for _ in range(2)]
    seqnet.Model([layers[0]]).build((None, 4))
    layers[1].build((None, 4))
    np.testing.assert_array_equal(layers[0].get_weights()[0], seeded((4, 2)))
    np.testing.assert_array_equal(layers[1].get_weights()[0], seeded((4, 2)))
    with pytest.raises(TypeError, match="seed must be an integer"):
        make(seed="a")
