"""Invalid constructor arguments of layers, optimizers and their parts."""

import re

import numpy as np
import pytest

import seqnet
from seqnet import initializers, optimizers, regularizers
from seqnet.layers import (
    GRU,
    LSTM,
    Activation,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    Lambda,
    Masking,
    SimpleRNN,
    TimeDistributed,
)
from seqnet.optimizers import SGD

FLAGS = [
    *((SimpleRNN, (2,), name) for name in ("use_bias", "return_sequences", "return_state")),
    *((LSTM, (2,), name) for name in ("go_backwards", "unroll", "trainable")),
    (LSTM, (2,), "unit_forget_bias"),
    (GRU, (2,), "learn_initial_state"),
    (GRU, (2,), "reset_after"),
    (Dense, (2,), "use_bias"),
    (Embedding, (3, 2), "mask_zero"),
    (Lambda, (abs,), "supports_masking"),
    (SGD, (), "nesterov"),
]


@pytest.mark.parametrize(("cls", "arguments", "name"), FLAGS)
@pytest.mark.parametrize("value", ["no", 5, 1, 0, None, [], np.array([True])])
def test_boolean_arguments_accept_only_booleans(cls, arguments, name, value):
    with pytest.raises(
        TypeError, match=f"{name} must be True or False, got {re.escape(repr(value))}"
    ):
        cls(*arguments, **{name: value})


@pytest.mark.parametrize(("cls", "arguments", "name"), FLAGS)
def test_numpy_bools_are_bools(cls, arguments, name):
    made = cls(*arguments, **{name: np.bool_(True)})
    assert made.get_config().get(name, True) is True if cls is not Lambda else made.passes_mask_on


@pytest.mark.parametrize("value", ["yes", 1, 0, None])
def test_fused_is_auto_true_or_false(value):
    with pytest.raises(ValueError, match="fused is 'auto', True or False"):
        LSTM(2, fused=value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: initializers.Zeros(seed=1), TypeError, "'seed'; it takes none"),
        (lambda: initializers.RandomNormal(std=1), TypeError, "it takes mean, stddev, seed"),
        (lambda: optimizers.get(3), TypeError, "^An optimizer is given by name"),
        (lambda: initializers.get({"name": 3}), ValueError, "^An initializer is written down"),
        (lambda: initializers.Constant("1"), TypeError, "value of Constant must be a number"),
        (lambda: initializers.RandomUniform(1.0, -1.0), ValueError, "minval is at most maxval"),
        (lambda: initializers.RandomNormal(0.0, -1.0), ValueError, "stddev must be at least 0"),
        (lambda: initializers.Orthogonal(None), TypeError, "gain must be a number"),
        (lambda: regularizers.L2("a lot"), TypeError, "l2 must be a number"),
        (lambda: regularizers.L1(-0.1), ValueError, "l1 must be at least 0"),
        (lambda: regularizers.L1L2(l2=np.nan), ValueError, "l2 must be at least 0 and finite"),
        (lambda: Masking(None), TypeError, "mask_value must be a number"),
        (lambda: optimizers.Adagrad(0.1, "0"), TypeError, "initial_accumulator_value must be a n"),
        (lambda: optimizers.Adagrad(0.1, np.nan), ValueError, "initial_accumulator_value must be"),
    ],
)
def test_parts_check_their_numbers(make, error, message):
    with pytest.raises(error, match=message):
        make()


X = np.ones((2, 3, 4), "float32")


def twice():
    inner = Dense(4)
    return [TimeDistributed(inner), TimeDistributed(inner)]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: [Dense(2, lambda x: x.sum(axis=-1))],
            ValueError,
            "returns an output of 2 axes for an",
        ),
        (lambda: [Activation(lambda x: x.sum())], ValueError, "an activation keeps the shape"),
        (lambda: [Activation(lambda x: None)], TypeError, "activation <lambda> returns None"),
        (lambda: [Lambda(lambda x: 1.0)], ValueError, "mixes the rows"),
        (
            lambda: [Lambda(lambda x: x, output_shape=(3, 5))],
            ValueError,
            r"not of the output_shape \(3",
        ),
        (lambda: [Dropout(0.5, noise_shape=(None, 7, None))], ValueError, "axis 1 is None, 1 or 3"),
        (
            lambda: [Dense(2, kernel_initializer=lambda s: np.full(s, np.inf))],
            ValueError,
            "not finite",
        ),
        (lambda: [Dense(2, bias_initializer=lambda s: None)], ValueError, "gave the shape"),
        (twice, ValueError, "Layer '.*dense' is already in this model"),
    ],
)
def test_unsuitable_inputs_are_refused_when_a_model_is_built(make, error, message):
    with pytest.raises(error, match=message):
        seqnet.Model(make()).predict(X)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Dropout(0.5)(X, training="no"), "training must be True or False"),
        (lambda: Dense(2)(X, context=True), "context is a seqnet.layers.CallContext, got True"),
        (
            lambda: Dense(2)(None),
            "'dense'.*PyTensor variable or an array of numbers, not on 'None'",
        ),
        (lambda: Dense(2)("text"), "not on 'text' of type str"),
        (lambda: Dense(2).add_weight("w", 3, "zeros"), "The shape of w must be a tuple"),
        (lambda: seqnet.Model([Dense(2)]).build(3), "input_shape must be a tuple"),
    ],
)
def test_calls_with_other_types_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_merge_mode_is_one_of_its_names():
    with pytest.raises(ValueError, match=r"merge_mode is one of .*got \['sum'\]"):
        Bidirectional(LSTM(2), merge_mode=["sum"])
