"""Data and the dtype of an input: floats for integers, and float64 in a float32 model."""

import numpy as np
import pytest

import seqnet
from seqnet.layers import GRU, Dense, Embedding

TOKENS = np.array([[1, 2, 3], [4, 0, 1]])


def embedded(**options):
    return seqnet.Model([Embedding(5, 3, mask_zero=True), GRU(2, **options), Dense(1)])


@pytest.mark.parametrize(
    "data", [TOKENS.astype(float), TOKENS.astype("float32"), [row.astype(float) for row in TOKENS]]
)
def test_whole_floats_are_class_numbers(data):
    model = embedded()
    np.testing.assert_array_equal(model.predict(data), model.predict(TOKENS))


def test_other_floats_are_an_error_where_they_count():
    model, data = embedded(return_sequences=True), TOKENS.astype(float)
    expected = model.predict(TOKENS, lengths=[2, 3])
    data[0, 2] = np.nan  # after the end of the sequence
    np.testing.assert_array_equal(model.predict(data, lengths=[2, 3]), expected)
    with pytest.raises(ValueError, match=r"X holds nan at \(0, 2\).*Embedding layer 'embedding'"):
        model.predict(data)
    for wrong in (0.5, np.inf, 2.0**31):
        data[0, 2] = wrong
        with pytest.raises(ValueError, match="whole numbers"):
            model.predict(data)


@pytest.mark.parametrize("stack", [False, True])
def test_an_integer_input_does_not_round(stack):
    x = seqnet.Input((2,), dtype="int32", name="x")
    model = seqnet.Sequential([x, Dense(1)]) if stack else seqnet.Model(x, Dense(1)(x))
    model.set_weights([np.ones((2, 1)), np.zeros(1)])
    for same in (model, seqnet.Model.from_config(model.get_config())):
        same.set_weights(model.get_weights())
        assert same.predict(np.array([[1.0, 2.0]])).tolist() == [[3.0]]
        with pytest.raises(ValueError, match=r"X holds 1.5 at \(0, 0\), but the input 'x' of the"):
            same.predict(np.array([[1.5, 2.0]]))


def test_a_bool_input_takes_bools():
    x = seqnet.Input((2,), dtype="bool")
    model = seqnet.Model(x, ~x)
    assert model.predict(np.array([[1, 0]])).tolist() == [[False, True]]
    with pytest.raises(ValueError, match=r"X must hold bools.*holds 2 at \(0, 1\)"):
        model.predict(np.array([[1, 2]]))


def test_a_float64_input_of_a_float32_model_is_an_error():
    x = seqnet.Input((2,), dtype="float64", name="times")
    with pytest.raises(ValueError, match=r"'times' has the dtype float64.*computes in float32"):
        seqnet.Model(x, Dense(1)(x - x[:, :1]))
    model = seqnet.Sequential([x, Dense(1)])
    with pytest.raises(ValueError, match=r"'times' has the dtype float64.*computes in float32"):
        model.predict(np.ones((1, 2)))
    model = seqnet.Model(x, Dense(1, dtype="float64", kernel_initializer="ones")(x - x[:, :1]))
    assert model.predict(np.array([[1e9, 1e9 + 1]])).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("wanted", "given"), [((1,), (4,)), ((5, 1), (4, 5)), ((None, 1), (4, 5)), ((3,), (4, 3, 1))]
)
def test_an_axis_of_one_at_the_end_may_be_missing_or_added(wanted, given):
    x = seqnet.Input(wanted)
    model = seqnet.Model(x, 2 * x)
    data = np.arange(np.prod(given), dtype="float32").reshape(given)
    found = model.predict(data)
    assert found.shape == (4, *[5 if n is None else n for n in wanted])
    np.testing.assert_array_equal(found.ravel(), 2 * data.ravel())


def test_one_sample_is_no_batch_of_steps():
    x = seqnet.Input((None, 1))
    model = seqnet.Model(x, 2 * x)
    with pytest.raises(ValueError, match=r"one axis less.*a single sample is X\[None\]"):
        model.predict(np.ones((5, 1)))
