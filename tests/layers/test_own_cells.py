"""Custom cells: kernels, gates and errors."""

import gc
import re
import weakref

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import ALL, KerasStyleCell, Leaky
from helpers import assert_same, example_layer, random_arrays, run_cell
from pytensor.scan.op import Scan

import seqnet
from seqnet import backend, native
from seqnet.backend.recurrence import KernelRecurrence, compiled_kernel
from seqnet.layers import GRU, LSTM, RNN, Dense, Embedding, Recurrent, SimpleRNN

X = np.random.default_rng(0).normal(size=(2, 4, 3))


def symbolic(dtype="float64"):
    return pt.tensor("x", dtype=dtype, shape=(None, 4, 3))


def outputs(layer, x=X):
    """Return the layer's output for an array, and the Ops of the compiled function."""
    variable = pt.tensor("x", dtype=layer.dtype, shape=(None, *x.shape[1:]))
    function = backend.compile([variable], [layer(variable)], name="test")
    ops = [type(node.op) for node in function.maker.fgraph.apply_nodes]
    return function(x.astype(layer.dtype))[0], ops


def with_weights_of(layer, other):
    layer.ensure_built((None, None, 3))
    layer.set_weights(other.get_weights())
    return layer


def leaking(kind, leak):
    """Return a leaky cell whose leak is an attribute, a closure or an array."""
    if kind == "attribute":
        layer = Leaky(2, dtype="float64", return_sequences=True)
        layer.leak = leak
        return layer
    number = np.full(2, leak) if kind == "array" else leak

    class LeakyByClosure(Leaky):
        def step(self, x, states, recur):
            (h,) = states
            return (number * h + 0.1 * pt.tanh(x[0] + recur(h)[0]),)

    return LeakyByClosure(2, dtype="float64", return_sequences=True)


@pytest.mark.parametrize("kind", ["attribute", "closure", "array"])
def test_each_cell_runs_a_kernel_of_its_own_step(kind):
    first = leaking(kind, 0.5)
    first.ensure_built((None, None, 3))
    for leak in (0.5, 0.9):
        layer = with_weights_of(leaking(kind, leak), first)
        found, ops = outputs(layer)
        plain = with_weights_of(leaking(kind, leak), first)
        plain.fused = False
        expected, plain_ops = outputs(plain)
        assert any(issubclass(op, Scan) for op in plain_ops)
        assert KernelRecurrence in ops or backend.native() is None
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_step_that_depends_on_units_has_a_kernel_per_size():
    class Scaled(Recurrent):
        gates = ("h",)

        def step(self, x, states, recur):
            return (pt.tanh(x[0] + recur(states[0])[0]) / self.units,)

    for units in (2, 5):
        layer = Scaled(units, dtype="float64")
        layer.ensure_built((None, None, 3))
        plain = Scaled(units, dtype="float64", fused=False)
        expected = outputs(with_weights_of(plain, layer))[0]
        np.testing.assert_allclose(outputs(layer)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("asked", [("a", "c"), ("c", "a"), ("b",), ("c", "b", "a"), ()])
@pytest.mark.parametrize("path", ["scan", "unroll", "fused"])
def test_recur_returns_the_requested_gates_in_order(asked, path):
    class Asking(Recurrent):
        gates = ("a", "b", "c")

        def step(self, x, states, recur):
            (h,) = states
            found = dict(zip(asked or self.gates, recur(h, *asked), strict=True))
            total = x[0] + 2 * x[1] + 3 * x[2]
            for weight, gate in enumerate(sorted(found), start=1):
                total = total + weight * found[gate]
            return (pt.tanh(total),)

    ALL["asking"] = (Asking, {})
    try:
        arrays = random_arrays("asking", 3, 4, 2)
        result = run_cell("asking", arrays, path)
    finally:
        del ALL["asking"]
    u = dict(zip("abc", np.split(arrays["recurrent_kernel"], 3, axis=1), strict=True))
    projected = arrays["x"] @ arrays["kernel"] + arrays["bias"]
    x_a, x_b, x_c = np.split(projected, 3, axis=2)
    h = arrays["h0"]
    for t in range(4):
        total = x_a[:, t] + 2 * x_b[:, t] + 3 * x_c[:, t]
        for weight, gate in enumerate(sorted(asked or "abc"), start=1):
            total = total + weight * (h @ u[gate])
        h = np.tanh(total)
        np.testing.assert_allclose(result["y"][:, t], h, rtol=1e-12)
    idle = [k for k, gate in enumerate("abc") if gate not in (asked or "abc")]
    for k in idle:
        assert not result["d_recurrent_kernel"][:, 2 * k : 2 * k + 2].any()


NATIVE = pytest.mark.skipif(backend.native() is None, reason="needs compiled kernels")


@NATIVE
@pytest.mark.parametrize("cell", ALL)
def test_every_cell_of_the_contract_tests_is_a_kernel(cell):
    cls, own = ALL[cell]
    assert example_layer(cls, 2, 3, own).runs_as(backend.execution_mode) == "fused"


NO_KERNEL = {
    "a product of two states": (
        lambda h, m: pt.dot(h, pt.dot(h.T, m)),
        "multiplies .* by .*, which is not a matrix that is the same at every step",
    ),
    "an operation along the batch": (
        lambda h, m: h - pt.mean(h, axis=0, keepdims=True),
        "axis=0",
    ),
    "other rows": (lambda h, m: h + m[::-1], "takes rows of the batch"),
    "every other column": (
        lambda h, m: pt.concatenate([m[:, ::2], m[:, ::2]], axis=1),
        "columns that are not adjacent",
    ),
    "an operation that is unknown": (lambda h, m: pt.sort(h, axis=1), "SortOp.* not elementwise"),
}


@NATIVE
@pytest.mark.parametrize("name", NO_KERNEL)
def test_what_cannot_be_a_kernel_says_so_by_name_and_runs_as_a_scan(name):
    function, reason = NO_KERNEL[name]

    class Other(Recurrent):
        gates = ("h", "m")
        state_names = ("h", "m")

        def step(self, x, states, recur):
            h, m = states
            a, b = recur(h)
            return 0.1 * function(h, m) + pt.tanh(x[0] + a), pt.tanh(x[1] + b)

    layer = Other(4, dtype="float64")
    layer.ensure_built((None, None, 3))
    assert re.fullmatch(rf"scan \(.*{reason}.*\)", layer.runs_as(backend.execution_mode))
    assert np.isfinite(outputs(layer)[0]).all()


def test_numbers_of_padding_do_not_reach_weights_of_a_step_that_reads_its_input():
    """The step multiplies its input itself, so that the gradient has a product with the padding."""
    layer = RNN(KerasStyleCell(3, dtype="float64"), return_sequences=True)
    x, mask = symbolic(), np.array([[True, True, False, False], [True, False, True, True]])
    y = layer(x, mask=pt.constant(mask))
    wanted = [
        y,
        *pytensor.grad(pt.sum(pt.switch(pt.constant(mask)[:, :, None], y, 0)), layer.weights),
    ]
    function = backend.compile([x], wanted, name="test")
    padded = np.where(mask[:, :, None], X, np.nan)
    for found, expected in zip(function(padded), function(X), strict=True):
        np.testing.assert_array_equal(found, expected)


WRONG_STEPS = {
    "one state too few": (lambda x, states, recur: (), r"a tuple of its 1 new states \(h\).*got 0"),
    "no tuple": (lambda x, states, recur: states[0], "must return a tuple.*got TensorVariable"),
    "nothing": (lambda x, states, recur: None, "must return a tuple.*got NoneType"),
    "text": (lambda x, states, recur: ("h",), "must return its new state 'h' as"),
    "another rank": (lambda x, states, recur: (states[0].sum(),), r"of shape \(batch, units\)"),
    "an unknown gate": (
        lambda x, states, recur: (recur(states[0], "q")[0],),
        "asks recur for the gate 'q', but its gates are 'h'",
    ),
    "a random number": (
        lambda x, states, recur: (
            states[0]
            + pt.random.normal(
                size=(2, 2), rng=pytensor.shared(np.random.default_rng()), return_next_rng=True
            )[1],
        ),
        "draws random numbers in its step",
    ),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_an_invalid_step_is_refused_by_name(name):
    wrong, message = WRONG_STEPS[name]

    class Wrong(Recurrent):
        gates = ("h",)

        def step(self, x, states, recur):
            return wrong(x, states, recur)

    with pytest.raises((TypeError, ValueError), match=message) as raised:
        Wrong(2, name="mine")(symbolic("float32"))
    assert "Layer 'mine' (Wrong)" in str(raised.value)


@pytest.mark.parametrize("options", [{}, {"fused": False}, {"unroll": True}], ids=str)
@pytest.mark.parametrize("cls", [SimpleRNN, pytest.param(GRU, marks=pytest.mark.slow)])
def test_a_gradient_of_a_gradient_is_the_numerical_one(cls, options):
    layer = cls(2, dtype="float64", return_sequences=True, **options)
    x = symbolic()
    first = pytensor.grad(pt.sum(layer(x) ** 2), layer.recurrent_kernel)
    size = pt.sum(first**2)
    f = backend.compile([x], [size, pytensor.grad(size, x)], name="second")
    _, slopes = f(X)
    step = np.zeros_like(X)
    step[1, 2, 1] = 1e-5
    numerical = (f(X + step)[0] - f(X - step)[0]) / 2e-5
    np.testing.assert_allclose(slopes[1, 2, 1], numerical, rtol=1e-5)


def test_the_cross_entropy_has_a_gradient_of_its_gradient():
    logits, targets = pt.dmatrix(), pt.ivector()
    loss = seqnet.losses.SparseCategoricalCrossentropy(from_logits=True)
    slope = pytensor.grad(pt.sum(loss(targets, logits) ** 2), logits)
    second = pytensor.grad(pt.sum(slope**2), logits)
    f = backend.compile([logits, targets], [pt.sum(slope**2), second], name="second")
    values, classes = X[0, :2].copy(), np.array([0, 2], "int32")
    step = np.zeros_like(values)
    step[1, 0] = 1e-6
    numerical = (f(values + step, classes)[0] - f(values - step, classes)[0]) / 2e-6
    np.testing.assert_allclose(f(values, classes)[1][1, 0], numerical, rtol=1e-6)


def test_outputs_have_a_static_last_axis():
    ids = pt.imatrix()
    rows = Embedding(10, 3)(ids)
    sequence = LSTM(5, return_sequences=True)(rows)
    assert rows.type.shape == (None, None, 3)
    assert sequence.type.shape == (None, None, 5)
    assert GRU(7)(sequence).type.shape == (None, 7)
    assert Dense(4)(sequence).type.shape == (None, None, 4)


def test_graphs_give_the_same_results_in_all_modes():
    """A layer on a variable, compiled in seqnet's mode and in one of PyTensor without kernels."""
    x, layer = symbolic(), LSTM(2, dtype="float64")
    cost = pt.sum(layer(x) ** 2)
    wanted = [cost, *pytensor.grad(cost, layer.weights)]
    ours = pytensor.function([x], wanted, mode=backend.mode())
    theirs = pytensor.function([x], wanted, mode=backend.vm_mode(with_kernels=False))
    for one, other in zip(ours(X), theirs(X), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)
    fused = any(isinstance(n.op, KernelRecurrence) for n in ours.maker.fgraph.apply_nodes)
    assert fused == (backend.native() is not None)


def test_fused_true_is_refused_before_compiling_if_impossible():
    class Summing(Recurrent):
        gates = ("h",)

        def step(self, x, states, recur):
            return (pt.tanh(x[0] + recur(pt.cumsum(states[0], axis=1))[0]),)

    layer = Summing(2, dtype="float64", fused=True, name="slow")
    with pytest.raises(
        ValueError, match=r"'slow' has fused=True, but .*Cumsum.* is not elementwise"
    ):
        backend.compile([x := symbolic()], [layer(x)], name="test")


def test_shape_inference_of_stacked_scans_takes_linear_time(monkeypatch):
    calls = []
    infer_shape = Scan.infer_shape
    monkeypatch.setattr(
        Scan, "infer_shape", lambda self, *given: calls.append(1) or infer_shape(self, *given)
    )

    def walks(layers):
        calls.clear()
        h = symbolic()
        for _ in range(layers):
            h = SimpleRNN(2, dtype="float64", fused=False, return_sequences=True)(h)
        backend.compile([x_of(h)], [h], name="test")
        return len(calls)

    def x_of(variable):
        (x,) = [v for v in pytensor.graph.traversal.explicit_graph_inputs([variable])]
        return x

    few, many = walks(3), walks(9)
    assert few
    assert many <= 4 * few


def test_custom_cells_train_alike_in_float32_and_float64():
    seqnet.set_random_seed(3)
    histories = []
    for dtype in ("float64", "float32"):
        seqnet.set_random_seed(3)
        layer = Leaky(4, dtype=dtype)
        model = seqnet.Model([layer, Dense(1, dtype=dtype)])
        model.compile("adam", "mse")
        x = np.random.default_rng(1).normal(size=(16, 5, 3))
        model.fit(x, x[:, :, :1].mean(axis=1), epochs=3, verbose=0, shuffle=False)
        histories.append(model.history.history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-4)


def test_paths_agree_where_states_are_swapped_or_returned_unchanged():
    class Swapping(Recurrent):
        gates = ("h",)
        state_names = ("h", "c")

        def step(self, x, states, recur):
            h, c = states
            return c, pt.tanh(x[0] + recur(h)[0])

    ALL["swapping"] = (Swapping, {})
    try:
        arrays = random_arrays("swapping", 3, 4, 2)
        scanned = run_cell("swapping", arrays, "scan")
        for path in ("unroll", "fused"):
            assert_same(run_cell("swapping", arrays, path), scanned, 1e-13)
    finally:
        del ALL["swapping"]


def test_a_kernel_keeps_no_graph():
    """PyTensor keeps the Ops of kernels for the life of the process."""
    layer = LSTM(3, layer_normalization=True)
    layer.build((None, None, 2))
    step = layer.trace(layer.no_masks()).step
    kernel = compiled_kernel(step)
    assert isinstance(kernel, native.ProgramKernel)
    variable = weakref.ref(step.inputs[0])
    del step
    gc.collect()
    assert variable() is None


@pytest.mark.parametrize("options", [{}, {"layer_normalization": True}], ids=["lstm", "products"])
def test_a_step_of_the_same_structure_has_the_same_kernel(options):
    """Other weights need no new kernel; another activation does."""

    def kernel_of(layer):
        layer.build((None, None, 2))
        return compiled_kernel(layer.trace(layer.no_masks()).step)

    first = kernel_of(LSTM(3, **options))
    assert kernel_of(LSTM(3, **options)) is first
    assert kernel_of(LSTM(3, activation="sigmoid", **options)) is not first


def test_a_step_with_another_constant_has_another_kernel():
    def kernel_of(leak):
        layer = leaking("attribute", leak)
        layer.build((None, None, 2))
        return compiled_kernel(layer.trace(layer.no_masks()).step)

    assert kernel_of(0.5) is kernel_of(0.5)
    assert kernel_of(0.5) is not kernel_of(0.25)
