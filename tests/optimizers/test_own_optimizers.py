"""Custom optimizers with plain Python numbers and arrays, in both float types."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet.layers import Dense, Embedding
from seqnet.optimizers import Optimizer


class Momentum(Optimizer):
    slots = ("m",)

    def change(self, gradient, h, m):
        m = 0.9 * m + 0.1 * gradient
        return -h.learning_rate * m, {"m": m}


class WithItsOwnAttributes(Optimizer):
    """Instance and class attributes with names similar to those of hyperparameters."""

    learning_rates = ()

    def __init__(self, learning_rate=0.1, momentums=(0.5, 0.9)):
        super().__init__(learning_rate)
        self.momentums = momentums
        self.learning_rates = [learning_rate]
        self.best = None
        self._learning_rate = 0.0

    def change(self, gradient, h):
        return -h.learning_rate * gradient, {}


class NumpyNumbers(Optimizer):
    slots = ("s",)

    def change(self, gradient, h, s):
        s = np.float64(0.5) * s + np.array(0.5) * gradient**2
        return -h.learning_rate * gradient / (np.sqrt(s) + 1e-8), {"s": s}


class Sparse(Optimizer):
    """Only the rows that were looked up change."""

    slots = ("m",)

    def supports_sparse_rows(self):
        return True

    def idle(self, h, steps, m):
        return {"m": 0.5**steps * m}

    def initial_slot(self, slot, weight):
        return 0.25

    def change(self, gradient, h, m):
        m = 0.5 * m + np.float64(0.5) * pt.sqr(gradient)
        return -0.1 * gradient / (1.0 + m), {"m": m}


class Constant(Optimizer):
    """A constant update for all weights."""

    def change(self, gradient, h):
        return -0.25, {}


OWN = [Momentum, NumpyNumbers, Sparse, Constant]


def trained(cls, dtype):
    seqnet.set_random_seed(0)
    model = seqnet.Model([Embedding(5000, 3, dtype=dtype), Dense(2, dtype=dtype)])
    model.compile(cls(0.1, global_clipnorm=1.0), "mse")
    x = np.array([[1, 2, 1], [3, 1, 0]])
    losses = [model.train_on_batch(x, np.ones((2, 3, 2))) for _ in range(4)]
    assert np.isfinite(losses).all()
    slots = [v for table in model.optimizer.state.values() for v in table.values()]
    assert {v.dtype for v in [*model.weights, *slots]} == {dtype}
    return losses


@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("cls", OWN)
def test_plain_python_numbers_train_in_both_float_types(cls, backend):
    before = seqnet.config.backend()
    seqnet.config.set_backend(backend)
    try:
        narrow, wide = trained(cls, "float32"), trained(cls, "float64")
    finally:
        seqnet.config.set_backend(before)
    assert narrow[-1] < narrow[0] or cls is Constant
    np.testing.assert_allclose(narrow, wide, rtol=1e-4)


def test_rows_are_updated_as_the_whole_table_would_be():
    class Whole(Sparse):
        def supports_sparse_rows(self):
            return False

    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
        np.testing.assert_allclose(trained(Sparse, dtype), trained(Whole, dtype), rtol=tolerance)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda g: -g, TypeError, r"Wrong.change must return \(change, new\)"),
        (lambda g: None, TypeError, r"Wrong.change must return \(change, new\).*got NoneType"),
        (lambda g: (-g, {"n": g}), ValueError, "values for the slots n; there are m"),
        (lambda g: (None, {}), TypeError, "a change for a gradient of 2 axes that is None"),
        (lambda g: (-g, {"m": g[None]}), ValueError, "a m for a gradient of 2 axes that has 3"),
    ],
)
def test_wrong_results_of_change_are_refused(returned, error, message):
    class Wrong(Optimizer):
        slots = ("m",)

        def change(self, gradient, h, m):
            return returned(gradient)

    model = seqnet.Model([Dense(1)])
    model.compile(Wrong(0.1), "mse")
    with pytest.raises(error, match=message):
        model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initializers_and_regularizers_may_be_functions(dtype):
    def start(shape, rng):
        return rng.normal(size=shape) / 10

    model = seqnet.Model(
        [
            seqnet.layers.LSTM(2, bias_initializer=lambda shape: np.full(shape, 0.5), dtype=dtype),
            Dense(
                2,
                kernel_initializer=start,
                bias_initializer=np.ones,
                kernel_regularizer=lambda w: 0.5 * pt.sum(w**2) * np.float64(2),
                bias_regularizer=lambda w: 0.25,
                dtype=dtype,
            ),
        ]
    )
    model.compile("sgd", "mse")
    x, y = np.ones((3, 2, 2)), np.zeros((3, 2))
    output, kernel = model.predict(x), model.get_weights()[3]
    assert {w.dtype.name for w in model.get_weights()} == {dtype}
    expected = (output**2).mean() + (kernel**2).sum() + 0.25
    np.testing.assert_allclose(model.train_on_batch(x, y), expected, rtol=1e-5)


def test_a_regularizer_must_return_a_scalar():
    for function, error, message in (
        (lambda w: None, TypeError, "of dense/kernel returns None"),
        (lambda w: w, ValueError, "of dense/kernel returns 2 axes"),
    ):
        model = seqnet.Model([Dense(1, kernel_regularizer=function)])
        model.compile("sgd", "mse")
        with pytest.raises(error, match=message):
            model.evaluate(np.ones((2, 2)), np.ones((2, 1)))


def test_a_custom_optimizer_may_have_any_attributes():
    optimizer = WithItsOwnAttributes(momentums=(0.1, 0.2))
    optimizer.best = 3
    optimizer.note = "a new attribute"
    assert optimizer.momentums == (0.1, 0.2)
    assert optimizer.learning_rates == [0.1]
    assert (optimizer.best, optimizer.note) == (3, "a new attribute")
