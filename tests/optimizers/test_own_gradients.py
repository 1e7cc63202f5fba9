"""`Optimizer.apply_gradients`: updates by gradients that were computed elsewhere."""

import copy
import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend, constraints, optimizers


def weight(value, name="w", dtype="float32"):
    return pytensor.shared(np.array(value, dtype=dtype), name=name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.1, momentum=0.9, clipvalue=1.0),
        lambda: optimizers.Adam(0.1, use_ema=True, weight_decay=0.1, global_clipnorm=1.5),
        lambda: optimizers.Adagrad(optimizers.schedules.InverseTimeDecay(0.5, 2, 0.5)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_given_gradients_do_what_those_of_a_loss_do(make, dtype):
    first, second = make(), make()
    a, b = weight([1.0, 2.0], "a", dtype), weight([[3.0]], "b", dtype)
    c, d = weight([1.0, 2.0], "a", dtype), weight([[3.0]], "b", dtype)
    loss = pt.sum(c * [3.0, -4.0]) + pt.sum(d * 0.5)
    step = backend.compile([], [], second.updates(loss, [c, d]), name="step")
    for _ in range(3):
        assert first.apply_gradients(zip([[3, -4], np.array([[0.5]])], [a, b], strict=True)) is None
        step()
    np.testing.assert_allclose(a.get_value(), c.get_value(), rtol=1e-6)
    np.testing.assert_allclose(b.get_value(), d.get_value(), rtol=1e-6)
    assert first.iterations.get_value() == 3
    assert a.dtype == dtype
    first.finalize_variable_values([a, b])
    second.finalize_variable_values([c, d])
    np.testing.assert_allclose(a.get_value(), c.get_value(), rtol=1e-6)


def test_variables_give_updates():
    w, x = weight([1.0, 2.0]), pt.vector("x", dtype="float64")
    optimizer = optimizers.SGD(0.5)
    updates = optimizer.apply_gradients([(2 * x, w)])
    assert set(updates) == {w, optimizer.iterations}
    assert w.get_value().tolist() == [1.0, 2.0]
    backend.compile([x], [], updates, name="step")(np.array([1.0, -1.0]))
    assert w.get_value().tolist() == [0.0, 3.0]
    assert w.dtype == "float32"


def test_a_new_number_counts_and_compiles_nothing(monkeypatch):
    w, optimizer = weight([1.0]), optimizers.SGD(0.5)
    optimizer.apply_gradients([([1.0], w)])
    monkeypatch.setattr(backend, "compile", None)
    optimizer.learning_rate = 0.25
    optimizer.apply_gradients([([1.0], w)])
    assert w.get_value().tolist() == [0.25]


def test_other_weights_and_kinds_of_clipping_compile_again():
    w, v, optimizer = weight([1.0]), weight([1.0], "v"), optimizers.SGD(0.5)
    optimizer.apply_gradients([([1.0], w)])
    optimizer.apply_gradients([([1.0], v)])
    optimizer.clipvalue = 0.5
    optimizer.apply_gradients([([1.0], v)])
    assert (w.get_value(), v.get_value()) == (0.5, 0.25)


def test_weights_of_a_model_with_a_constraint():
    layer = seqnet.layers.Dense(2, kernel_constraint=constraints.MaxNorm(1.0))
    layer.build((None, 2))
    ones = np.ones((2, 2))
    optimizers.SGD(10.0).apply_gradients([(-ones, layer.kernel), (np.ones(2), layer.bias)])
    np.testing.assert_allclose(np.linalg.norm(layer.kernel.get_value(), axis=0), 1.0, rtol=1e-6)
    assert layer.bias.get_value().tolist() == [-10.0, -10.0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_an_optimizer_is_copied_after_a_step(copied):
    w, optimizer = weight([1.0]), optimizers.SGD(0.5, momentum=0.9)
    optimizer.apply_gradients([([1.0], w)])
    again = copied(optimizer)
    assert again.iterations.get_value() == 1
    again.iterations.set_value(5)
    assert optimizer.iterations.get_value() == 1


@pytest.mark.parametrize(
    ("pairs", "error", "words"),
    [
        (lambda w: [], ValueError, "got none"),
        (lambda w: [(None, w)], ValueError, "The weight 'w' has no gradient"),
        (
            lambda w: [([1.0, 2.0, 3.0], w)],
            ValueError,
            r"has the shape \(3,\), and the weight \(2,\)",
        ),
        (lambda w: [(1.0, w)], ValueError, r"has the shape \(\), and the weight \(2,\)"),
        (lambda w: [(pt.vector(shape=(3,)), w)], ValueError, r"has the shape \(3,\)"),
        (lambda w: [(w, [1.0, 2.0])], TypeError, "pairs \\(gradient, weight\\).*got list"),
        (lambda w: [([1.0, 2.0], w), ([1.0], weight([1.0]))], ValueError, "different names"),
    ],
)
def test_errors(pairs, error, words):
    with pytest.raises(error, match=words):
        optimizers.Adam().apply_gradients(pairs(weight([1.0, 2.0])))


def test_both_spellings():
    assert optimizers.AdaGrad is optimizers.Adagrad
    assert optimizers.AdaDelta is optimizers.Adadelta
    for name in ("AdaGrad", "Adagrad", "adagrad"):
        assert type(optimizers.get(name)) is optimizers.Adagrad
    for name in ("AdaDelta", "Adadelta", "adadelta"):
        config = {"name": name, "config": {"rho": 0.5}}
        assert optimizers.get(config).rho == 0.5
