"""Loops that read their own outputs: `ClosedLoop` and `ScheduledSampling`."""

import copy

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.layers import (
    RNN,
    CallContext,
    ClosedLoop,
    Dense,
    Dropout,
    Embedding,
    GRUCell,
    Layer,
    ScheduledSampling,
    SimpleRNNCell,
    StackedRNNCells,
)

RNG = np.random.default_rng(0)


def cart(state, force):
    """A cart that a force moves; plain numbers, as a newcomer writes them."""
    position, velocity = state[:, :1], state[:, 1:]
    velocity = 0.9 * velocity + 0.1 * force - 0.2 * np.array([1.0]) * pt.sin(position)
    return pt.concatenate([position + 0.1 * velocity, velocity], axis=1)


def by_hand(layer, first, steps):
    """Return outputs and next inputs of a loop in Python over the same cell, as a graph."""
    states = [pt.zeros((first.shape[0], size)).astype(layer.dtype) for size in layer.state_sizes]
    outputs, following = [], []
    for _ in range(steps):
        output, states = layer.cell(first, states)
        first = layer.next_input(first, output).astype(layer.dtype)
        outputs.append(output)
        following.append(first)
    return pt.stack(outputs, axis=1), pt.stack(following, axis=1)


@pytest.mark.parametrize(
    ("path", "dtype"),
    [
        ({}, "float32"),
        ({"fused": False}, "float64"),
        ({"unroll": True}, "float64"),
        pytest.param({}, "float64", marks=pytest.mark.slow),
        pytest.param({"fused": False}, "float32", marks=pytest.mark.slow),
        pytest.param({"unroll": True}, "float32", marks=pytest.mark.slow),
    ],
)
def test_a_closed_loop_is_a_loop_by_hand_with_its_gradients(path, dtype):
    seqnet.config.set_floatx(dtype)
    cells = [SimpleRNNCell(3), Dense(1)]
    options = {"return_sequences": True, "return_inputs": True}
    layer = ClosedLoop(cells, 3, cart, **options, **path)
    x = pt.tensor("x", dtype=dtype, shape=(None, 2))
    layer.ensure_built((None, 2))
    y = layer(x)
    _, expected = by_hand(layer, x, 3)
    both = []
    for states in (y, expected):
        wanted = pytensor.grad(pt.sqr(states[:, -1]).sum() + states.mean(), [x, *layer.weights])
        both.append([states, *wanted])
    given = RNG.normal(size=(3, 2)).astype(dtype)
    found, expected = (backend.compile([x], outputs, name="test")(given) for outputs in both)
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance / 10)
    assert all(np.abs(gradient).max() > 0 for gradient in found[1:])


def test_by_default_the_output_is_the_next_input():
    layer = ClosedLoop([GRUCell(4), Dense(2)], 6, return_sequences=True)
    x, states = RNG.normal(size=(3, 2)), [np.zeros((3, 4))]
    found = layer(x)
    for t in range(6):
        x, states = layer.cell(x, states)
        np.testing.assert_allclose(found[:, t], x, rtol=1e-5, atol=1e-6)
    layer.return_sequences, layer.return_state = False, True
    last, state = layer(found[:, 2], initial_state=None, steps=1)
    assert (last.shape, state.shape) == ((3, 2), (3, 4))


@pytest.mark.parametrize("size", [1, 2])
def test_a_controller_without_states(size):
    options = {"return_inputs": True}
    layer = ClosedLoop([Dense(3, "tanh"), Dense(size)], 4, lambda x, u: x + 0.5 * u, **options)
    x = RNG.normal(size=(5, size))
    found = layer(x)
    first, second = layer.cell.cells
    for _ in range(4):
        x = x + 0.5 * second(first(x))
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-6)


def test_the_number_of_steps_may_be_symbolic():
    layer = ClosedLoop([GRUCell(2), Dense(1)], return_sequences=True)
    x, n = pt.matrix(dtype="float32", shape=(None, 1)), pt.iscalar()
    f = backend.compile([x, n], [layer(x, steps=n)], name="test")
    longest = f(np.ones((2, 1), "float32"), np.asarray(7, "int32"))[0]
    np.testing.assert_array_equal(
        f(np.ones((2, 1), "float32"), np.asarray(3, "int32"))[0], longest[:, :3]
    )
    first, like = seqnet.Input((1,), name="first"), seqnet.Input((None, 1), name="like")
    model = seqnet.Model([first, like], layer(first, steps=like.shape[1]))
    given = {"first": np.ones((2, 1)), "like": np.zeros((2, 5, 1))}
    np.testing.assert_allclose(model.predict(given), longest[:, :5], rtol=1e-6)


@seqnet.registry.register("layer")
class Lookup(Layer):
    """The embedding of the most likely class, with weights of its own."""

    def __init__(self, classes, size, **options):
        super().__init__(**options)
        self.classes, self.size = classes, size
        self.table = Embedding(classes, size)

    def call(self, inputs, output):
        return self.table(pt.argmax(output, axis=1))


@pytest.mark.parametrize("kind", [ClosedLoop, ScheduledSampling])
def test_the_weights_of_a_next_input_are_trained_and_saved(kind, tmp_path):
    seqnet.set_random_seed(0)
    closed = kind is ClosedLoop
    cells, feed = [SimpleRNNCell(3), Dense(6, "softmax")], Lookup(6, 2)
    options = {"steps": 4} if closed else {"rate": 0.7}
    model = seqnet.Model([kind(cells, next_input=feed, return_sequences=True, **options)])
    model.compile("adam", "sparse_categorical_crossentropy")
    x = RNG.normal(size=(4, 2) if closed else (4, 4, 2))
    model.build(x.shape)
    before = feed.get_weights()[0]
    assert model.layers[0].weights[-1] is feed.weights[0]
    model.fit(x, np.arange(16).reshape(4, 4) % 6, epochs=2, verbose=0)
    assert (before != feed.get_weights()[0]).any()
    model.save(tmp_path / "model.h5")
    np.testing.assert_array_equal(
        seqnet.load_model(tmp_path / "model.h5").predict(x), model.predict(x)
    )


def test_a_function_is_found_again_by_its_name(tmp_path):
    model = seqnet.Model([ClosedLoop([GRUCell(2), Dense(1)], 3, cart, input_shape=(2,))])
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5", custom_objects={"cart": cart})
    x = RNG.normal(size=(2, 2))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def training(layer, x, mask=None, resets=None):
    """Return the outputs in training, and the generator before they were computed."""
    given = pt.tensor(dtype=layer.dtype, shape=x.shape)
    context = CallContext(training=True)
    options = {k: pt.constant(v) for k, v in (("mask", mask), ("resets", resets)) if v is not None}
    y = layer(given, context=context, **options)
    generator = copy.deepcopy(layer.generator.get_value())
    f = backend.compile([given], [y], context.updates, name="test")
    return f(x.astype(layer.dtype))[0], generator


def sampler(rate):
    seqnet.config.set_floatx("float64")
    seqnet.set_random_seed(5)
    cells = [SimpleRNNCell(3), Dense(2)]
    return ScheduledSampling(cells, cart_like, rate, return_sequences=True)


def cart_like(inputs, output):
    return 0.5 * inputs + pt.tanh(output)


def test_rate_0_is_teacher_forcing_and_rate_1_runs_freely():
    x = RNG.normal(size=(3, 6, 2))
    teacher, free = sampler(0.0), sampler(1.0)
    found, _ = training(teacher, x)
    plain = RNN(StackedRNNCells([SimpleRNNCell(3), Dense(2)]), return_sequences=True)
    plain.ensure_built((None, None, 2))
    plain.set_weights(teacher.get_weights())
    np.testing.assert_allclose(found, plain(x), rtol=1e-12)
    found, _ = training(free, x)
    closed = ClosedLoop([SimpleRNNCell(3), Dense(2)], 6, cart_like, return_sequences=True)
    closed.ensure_built((None, 2))
    closed.set_weights(free.get_weights())
    np.testing.assert_allclose(found, closed(x[:, 0]), rtol=1e-12)
    teacher.set_weights(free.get_weights())
    np.testing.assert_allclose(free(x), teacher(x), rtol=1e-12)  # outside of training
    mask = np.array([[0, 0, 1, 1, 0, 1], [1] * 6, [1, 1, 0, 0, 0, 0]], dtype=bool)
    found, _ = training(free, x, mask)
    for row in range(3):
        alone = closed(x[row, mask[row]][:1])[0][: mask[row].sum()]
        np.testing.assert_allclose(found[row, mask[row]], alone, rtol=1e-12)
    resets = np.array([[0, 0, 0, 1, 0, 0]] * 3, dtype=bool)
    found, _ = training(free, x, resets=resets)
    parts = [closed(x[:, 0])[:, :3], closed(x[:, 3])[:, :3]]
    np.testing.assert_allclose(found, np.concatenate(parts, axis=1), rtol=1e-12)


def test_a_rate_between_mixes_inputs_by_chance():
    layer, x = sampler(0.4), RNG.normal(size=(3, 6, 2))
    found, generator = training(layer, x)
    own = generator.uniform(size=(6, 3)) < 0.4
    assert 0 < own[1:].mean() < 1
    states, fed = [np.zeros((3, 3))], x[:, 0]
    for t in range(6):
        inputs = np.where(own[t][:, None] & (t > 0), fed, x[:, t])
        output, states = layer.cell(inputs, states)
        fed = 0.5 * inputs + np.tanh(output)
        np.testing.assert_allclose(found[:, t], output, rtol=1e-10)


def test_the_rate_changes_without_compiling():
    layer = sampler(0.2)
    model = seqnet.Model([layer])
    model.compile("sgd", "mse")
    x = RNG.normal(size=(4, 5, 2))
    for rate in (0.4, 1.0):
        layer.rate = rate
        model.fit(x, x, verbose=0)
    assert len(model.steps.functions) == 1
    layer.rate = 0
    model.fit(x, x, verbose=0)
    assert len(model.steps.functions) == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ClosedLoop(GRUCell(2)), ValueError, "no number of steps"),
        (lambda: ClosedLoop(GRUCell(2), 0), ValueError, "steps must be at least 1"),
        (lambda: ClosedLoop(GRUCell(3), 2), ValueError, r"shape \(batch, 2\).*Without it"),
        (
            lambda: ClosedLoop(GRUCell(2), 2, lambda x, y: y[:, 0]),
            ValueError,
            r"next_input of Layer 'closed_loop' .* must return an input of the shape \(batch, 2\)",
        ),
        (lambda: ClosedLoop(GRUCell(2), 2, lambda x, y: None), TypeError, "must return a variable"),
        (lambda: ClosedLoop(GRUCell(2), 2, go_backwards=True), ValueError, "has no go_backwards"),
        (lambda: ClosedLoop(GRUCell(2), 2, stateful=True), ValueError, "has no stateful"),
        (lambda: ClosedLoop([GRUCell(2), Dropout(0.5)], 2), ValueError, "draws random numbers"),
        (lambda: ClosedLoop(5, 2), TypeError, "ClosedLoop takes cells"),
        (lambda: ScheduledSampling(GRUCell(2), rate=1.1), ValueError, "rate must be from 0 to 1"),
        (lambda: RNN([Dense(2), Dense(3)]), TypeError, "a cell that has a state"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()(np.zeros((3, 2)))


def test_a_closed_loop_cannot_be_run_step_by_step():
    model = seqnet.Model([ClosedLoop(GRUCell(2), 3)])
    model.build((None, 2))
    with pytest.raises(ValueError, match="makes all steps from one input"):
        model.step(np.zeros((1, 2)))


def test_scheduled_sampling_runs_step_by_step():
    model = seqnet.Model([sampler(1.0)])
    x, states = RNG.normal(size=(3, 4, 2)), None
    whole = model.predict(x)
    for t in range(4):
        output, states = model.step(x[:, t], states)
        np.testing.assert_allclose(output, whole[:, t], rtol=1e-10)
