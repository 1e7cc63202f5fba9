"""The functions of theano_lstm give its values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.layers import Dense, LSTMCell, SimpleRNNCell
from seqnet.theano_lstm import (
    GatedInput,
    MultiDropout,
    StackedCells,
    clip_gradient,
    create_optimization_updates,
    masked_loss,
)

STORED = dict(np.load(Path(__file__).parent / "reference" / "theano_lstm.npz"))
X = STORED["x"]


@pytest.fixture(autouse=True)
def in_float64():
    before = seqnet.config.floatx()
    seqnet.config.set_floatx("float64")
    yield
    seqnet.config.set_floatx(before)


def part(prefix):
    found = [(name, value) for name, value in STORED.items() if name.startswith(prefix + "/")]
    return [value for _, value in sorted(found)]


def set_weights(layer, name, features):
    """Set the weights of theano_lstm: matrices (out, features + hidden) and vectors by gate."""
    given = part(name)
    matrices, biases = given[::2], given[1::2]
    kernel = np.concatenate(matrices).T
    weights = [kernel[:features], kernel[features:], np.concatenate(biases)]
    layer.set_weights([w for w in weights if len(w)])


def stack_of(name):
    celltype = {"rnn": SimpleRNNCell, "lstm": LSTMCell}[name]
    stack = StackedCells(4, celltype=celltype, layers=[5, 3], activation=pt.tanh)
    stack.layers.append(Dense(2, activation="sigmoid"))
    stack.layers[2].ensure_built((None, 3))
    for k, features in enumerate((4, 5, 3)):
        set_weights(stack.layers[k], f"{name}/{k}", features)
    return stack


@pytest.mark.parametrize("name", ["rnn", "lstm"])
@pytest.mark.parametrize("key", ["outputs", "dropped"])
def test_a_stack_has_the_states_of_theano_lstm(name, key):
    stack = stack_of(name)
    x, states = pt.dmatrix("x"), [pt.dmatrix("a"), pt.dmatrix("b")]
    masks = part(f"{name}/mask") if key == "dropped" else []
    masks = [pt.as_tensor_variable(mask) for mask in masks]
    outputs = stack.forward(x, [*states, None], masks)
    found = backend.compile([x, *states], outputs, name="stack")(X, *part(f"{name}/state"))
    for value, expected in zip(found, part(f"{name}/{key}"), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    row, rows = pt.dvector("x"), [pt.dvector("a"), pt.dvector("b")]
    outputs = stack.forward(row, rows, masks)
    given = [X[0], *[state[0] for state in part(f"{name}/state")]]
    found = backend.compile([row, *rows], outputs, name="stack")(*given)
    for value, expected in zip(found, part(f"{name}/{key}"), strict=True):
        np.testing.assert_allclose(value, expected[0], rtol=1e-12)


def test_gates_depend_on_the_input_and_the_state():
    gated = GatedInput(4, 3)
    kernel, bias = part("gated/0")
    gated.gate.set_weights([kernel.T, bias])
    x, h = pt.dmatrix("x"), pt.dmatrix("h")
    f = backend.compile([x, h], [gated.activate(x, h)], name="gate")
    np.testing.assert_allclose(f(X, STORED["gated/h"])[0], STORED["gated/gate"], rtol=1e-12)
    stack = StackedCells(4)
    stack.layers += [gated, Dense(4, kernel_initializer="identity")]
    outputs = stack.forward(x, [h])
    gate, passed = backend.compile([x, h], outputs, name="gate")(X, STORED["gated/h"])
    np.testing.assert_allclose(gate, STORED["gated/gate"], rtol=1e-12)
    np.testing.assert_allclose(passed, STORED["gated/passed"], rtol=1e-12)
    assert len(stack.params) == 4


@pytest.mark.parametrize("method", ["sgd", "adagrad", "adadelta"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_updates_are_those_of_theano_lstm(method, dtype):
    """Two updates with the defaults, then two with other numbers and the same function."""
    params = [pytensor.shared(STORED[f"updates/{n}"].astype(dtype)) for n in ("w", "b")]
    cost = 0.5 * sum(pt.sum(p**2) for p in params)
    updates, gsums, xsums, lr, max_norm = create_optimization_updates(
        cost, params, method=method, lr=0.1
    )
    step = backend.compile([], [cost], updates, name="step")
    for k in range(4):
        if k == 2:
            lr.set_value(0.5)
            max_norm.set_value(2.0)
        step()
        for p, name in zip(params, ("w", "b"), strict=True):
            assert p.get_value().dtype == dtype
            expected = STORED[f"updates/{method}/{k}/{name}"]
            np.testing.assert_allclose(
                p.get_value(), expected, rtol=1e-11 if dtype == "float64" else 2e-5
            )
    kept = {"sgd": 0, "adagrad": 1, "adadelta": 2}[method]
    assert [s[0] is not None for s in (gsums, xsums)] == [kept > 0, kept > 1]
    assert len(gsums) == len(xsums) == 2


def test_updates_are_added_to_others_and_need_no_clipping():
    p, other = pytensor.shared(np.array([30.0, 40.0])), pytensor.shared(0.0)
    given = {other: other + 1}
    updates, *_, max_norm = create_optimization_updates(
        None, [p], given, False, 1.0, method="sgd", gradients=[p]
    )
    assert updates is given
    assert max_norm is False
    backend.compile([], [], updates, name="step")()
    assert p.get_value().tolist() == [0, 0]
    assert other.get_value() == 1
    with pytest.raises(ValueError, match="method is one of 'sgd', 'adagrad', 'adadelta'"):
        create_optimization_updates(pt.sum(p), [p], method="adam")
    with pytest.raises(ValueError, match="a cost, or gradients"):
        create_optimization_updates(None, [p])


def test_masks_are_drawn_outside_of_a_loop_with_a_rate_that_changes():
    seqnet.set_random_seed(0)
    rate = pytensor.shared(0.5)
    x = pt.dtensor3("x")  # (time, batch, features)
    stack = StackedCells(4, layers=[3], celltype=LSTMCell, activation="tanh")
    drawn = {}
    masks = MultiDropout([(x.shape[1], 4)], rate, drawn)
    states = pytensor.scan(
        lambda x_t, h, mask: stack.forward(x_t, [h], [mask])[0],
        sequences=[x],
        outputs_info=stack.initial_hidden_states(x.shape[1]),
        non_sequences=masks,
        return_updates=False,
    )
    cost = pt.sum(states[-1] ** 2)
    updates, *_ = create_optimization_updates(cost, stack.params, drawn, method="sgd")
    f = backend.compile([x], [cost, masks[0]], updates, name="train")
    sequence = np.random.default_rng(0).normal(size=(6, 50, 4))
    (first, mask), (second, another) = f(sequence), f(sequence)
    assert set(np.unique(mask)) == {0, 1}
    assert (mask != another).any()
    assert first != second
    rate.set_value(0.0)
    assert f(sequence)[1].all()


def test_gradients_of_a_stack_are_clipped_element_by_element():
    x = pt.dmatrix("x")
    gradient = pytensor.grad(pt.sum(100 * clip_gradient(x, 3.0)), x)
    assert backend.compile([x], [gradient], name="g")(X)[0].max() == 3
    stack = StackedCells(4, layers=[3], activation=None, clip_gradients=1e-3)
    cost = 1e6 * pt.sum(stack.forward(x)[0])
    gradient = pytensor.grad(cost, x)
    assert abs(backend.compile([x], [gradient], name="g")(X)[0]).max() == 1e-3


def test_the_masked_loss_is_that_of_losses():
    assert masked_loss is seqnet.losses.masked_loss


def test_errors_name_what_is_wrong():
    stack = StackedCells(4, layers=[3], celltype=LSTMCell)
    x = pt.dmatrix("x")
    with pytest.raises(TypeError, match="dropout is a list of masks"):
        stack.forward(x, None, 0.5)
    with pytest.raises(ValueError, match="1 layers, but dropout has 2 masks"):
        stack.forward(x, None, [None, None])
    with pytest.raises(ValueError, match=r"no state for layer 0 \(LSTMCell\)"):
        stack.forward(x, [])
    with pytest.raises(TypeError, match="class of cells"):
        StackedCells(4, celltype="lstm", layers=[3])
