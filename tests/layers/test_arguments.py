"""Constructor arguments of layers, optimizers and their parts: what is refused, and how."""

import re

import numpy as np
import pytest

from seqnet import initializers, optimizers, regularizers
from seqnet.layers import GRU, LSTM, Dense, Embedding, Lambda, Masking, SimpleRNN
from seqnet.optimizers import SGD

FLAGS = [
    *((SimpleRNN, (2,), name) for name in ("use_bias", "return_sequences", "return_state")),
    *((LSTM, (2,), name) for name in ("go_backwards", "unroll", "stateful", "trainable")),
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
def test_what_is_true_or_false_takes_nothing_else(cls, arguments, name, value):
    with pytest.raises(
        TypeError, match=f"{name} must be True or False, got {re.escape(repr(value))}"
    ):
        cls(*arguments, **{name: value})


@pytest.mark.parametrize(("cls", "arguments", "name"), FLAGS)
def test_numpy_has_its_own_true_and_false(cls, arguments, name):
    made = cls(*arguments, **{name: np.bool_(True)})
    assert made.get_config().get(name, True) is True if cls is not Lambda else made.hands_mask_on


@pytest.mark.parametrize("value", ["yes", 1, 0, None])
def test_fused_is_auto_true_or_false(value):
    with pytest.raises(ValueError, match="fused is 'auto', True or False"):
        LSTM(2, fused=value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: initializers.GlorotUniform(seed=1),
            TypeError,
            "'seed'; it takes none.*set_random",
        ),
        (lambda: initializers.RandomNormal(seed=1), TypeError, "it takes mean, stddev.*set_random"),
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
        (lambda: optimizers.AdaGrad(0.1, "0"), TypeError, "initial_accumulator_value must be a n"),
        (lambda: optimizers.AdaGrad(0.1, np.nan), ValueError, "initial_accumulator_value must be"),
    ],
)
def test_parts_check_their_numbers(make, error, message):
    with pytest.raises(error, match=message):
        make()
