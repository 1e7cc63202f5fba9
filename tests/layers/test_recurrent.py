import re

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import ALL, CELLS, ZhouUnit, output_state, over_cells
from helpers import assert_same, compiled_layer, random_arrays, run_cell, short
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array
from pytensor.graph.replace import clone_replace
from pytensor.scan.op import Scan
from reference import cases, load_arrays, numpy_layers

import seqnet
from seqnet import backend
from seqnet.layers import GRU, LSTM, Masking, SimpleRNN

STORED = {peer: load_arrays(peer) for peer in ("keras", "pytorch")}
# Cases of other sizes ("lstm_1x3x3") are slow. The tests below compare every size with the NumPy
# reference, which tests/reference compares with Keras and PyTorch.
HELD = [
    pytest.param(peer, name, marks=[pytest.mark.slow] if re.search(r"\dx\d", name) else [])
    for name, case in cases.RECURRENT.items()
    for peer in case.peers
]
PATHS = pytest.mark.parametrize("path", ["scan", "unroll", "fused"])
EVERY_CELL = over_cells(ALL)
NUMPY_CELLS = {
    "simple_rnn": numpy_layers.SimpleRNNCell(),
    "lstm": numpy_layers.LSTMCell(),
    "gru": numpy_layers.GRUCell(),
    "gru_reset_before": numpy_layers.GRUCell(reset_after=False),
}
# No masked step; a masked first step and gaps; one unmasked step; all steps masked.
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=bool)


def run_case(name, arrays, path):
    case = cases.RECURRENT[name]
    cell = case.cell if case.reset_after else "gru_reset_before"
    options = {}
    if case.activation != "tanh":
        options["activation"] = case.activation
    if case.go_backwards:
        options["go_backwards"] = True
    return run_cell(cell, arrays, path, **options)


# ------------------------------------------------------------- results of Keras and PyTorch


@PATHS
@pytest.mark.parametrize(("peer", "name"), HELD)
def test_values_states_and_gradients_are_the_peers(peer, name, path):
    arrays = STORED[peer][name]
    result = run_case(name, arrays, path)
    if cases.RECURRENT[name].mask == "padded":  # PyTorch puts zeros on the padding
        result["y"] = result["y"] * arrays["mask"][:, :, None]
    given = {"x", "kernel", "recurrent_kernel", "bias", "h0", "c0", "cotangent", "mask"}
    expected = {key: arrays[key] for key in arrays.keys() - given}
    assert {"y", "h_last", "d_x", "d_kernel", "d_recurrent_kernel", "d_bias"} <= expected.keys()
    assert_same(result, expected)


@PATHS
@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("time", [1, 5])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("cell", NUMPY_CELLS)
def test_every_size_of_one_or_more_with_masks_equals_the_numpy_reference(
    cell, batch, time, units, path
):
    masks = [MASK] if batch == 4 else [MASK[k : k + 1] for k in range(4)]
    for mask in masks:
        arrays = random_arrays(cell, batch, time, units, mask=mask[:, :time])
        weights = {name: arrays[name] for name in ("kernel", "recurrent_kernel", "bias")}
        names = NUMPY_CELLS[cell].state_names
        y, states, tape = numpy_layers.recurrent(
            NUMPY_CELLS[cell],
            arrays["x"],
            weights,
            states=[arrays[f"{name}0"] for name in names],
            mask=arrays["mask"],
        )
        expected = {"y": y} | numpy_layers.recurrent_backward(tape, d_y=arrays["cotangent"])
        expected |= {f"{name}_last": s for name, s in zip(names, states, strict=True)}
        assert_same(run_cell(cell, arrays, path), expected)


@settings(max_examples=15, deadline=None)
@given(
    mask=any_array(bool, st.tuples(st.integers(1, 5), st.integers(1, 6))),
    cell=st.sampled_from(list(NUMPY_CELLS)),
    seed=st.integers(0, 99),
)
def test_any_mask_on_any_sequence_equals_the_numpy_reference(mask, cell, seed):
    arrays = random_arrays(cell, *mask.shape, units=2, mask=mask, seed=seed)
    weights = {name: arrays[name] for name in ("kernel", "recurrent_kernel", "bias")}
    states = [arrays[f"{name}0"] for name in NUMPY_CELLS[cell].state_names]
    y, _, tape = numpy_layers.recurrent(
        NUMPY_CELLS[cell], arrays["x"], weights, states=states, mask=mask
    )
    expected = {"y": y} | numpy_layers.recurrent_backward(tape, d_y=arrays["cotangent"])
    for path in ("scan", "fused") if cell != "gru_reset_before" else ("scan",):
        if path == "scan" or backend.native() is not None:
            assert_same(run_cell(cell, arrays, path), expected)


# ------------------------------------------------- properties of all cells, built-in and custom


@pytest.mark.parametrize("path", ["unroll", "fused"])
@EVERY_CELL
def test_every_path_is_the_scan_to_rounding(cell, path):
    arrays = random_arrays(cell, 4, 5, 2, mask=MASK)
    scanned = run_cell(cell, arrays, "scan")
    assert_same(run_cell(cell, arrays, path), scanned, tolerance=1e-13)


@PATHS
@EVERY_CELL
def test_float32_is_float64_to_its_rounding(cell, path):
    arrays = random_arrays(cell, 4, 5, 2, mask=MASK)
    exact = run_cell(cell, arrays)
    rounded = run_cell(cell, arrays, path, dtype="float32")
    assert all(value.dtype == np.float32 for value in rounded.values())
    assert_same(rounded, exact, tolerance=2e-5)


@PATHS
@EVERY_CELL
def test_the_last_output_is_the_last_state(cell, path):
    result = run_cell(cell, random_arrays(cell, 4, 5, 2, mask=MASK), path)
    np.testing.assert_array_equal(result["y"][:, -1], result[f"{output_state(cell)}_last"])


@PATHS
@EVERY_CELL
def test_a_masked_step_is_as_if_it_were_not_there(cell, path):
    arrays = random_arrays(cell, 4, 5, 2, mask=MASK)
    result = run_cell(cell, arrays, path)
    for row, kept in enumerate(MASK):
        moved = {key: value.copy() for key, value in arrays.items()}
        count = kept.sum()
        moved["x"][row, :count] = arrays["x"][row, kept]
        moved["mask"] = MASK.copy()
        moved["mask"][row] = np.arange(5) < count
        again = run_cell(cell, moved, path)
        for name in result:
            if name.endswith("_last"):
                np.testing.assert_allclose(again[name][row], result[name][row], rtol=1e-12)
        before_and_after = np.concatenate(
            [arrays[f"{output_state(cell)}0"][row : row + 1], again["y"][row]]
        )
        np.testing.assert_allclose(
            result["y"][row], before_and_after[np.cumsum(kept)], rtol=1e-12, atol=1e-14
        )


@PATHS
@EVERY_CELL
def test_values_in_the_padding_change_nothing(cell, path):
    arrays = random_arrays(cell, 4, 5, 2, mask=MASK)
    other = dict(arrays, x=np.where(MASK[:, :, None], arrays["x"], 1e3))
    result, again = run_cell(cell, arrays, path), run_cell(cell, other, path)
    assert_same(again, result, tolerance=1e-13)
    assert not result["d_x"][~MASK].any()


@PATHS
@EVERY_CELL
def test_a_sequence_in_two_parts_with_the_state_carried_is_the_whole(cell, path):
    arrays = random_arrays(cell, 4, 10, 2, mask=np.concatenate([MASK, MASK[::-1]], axis=1))
    parts = [
        {key: v[:, s] if key in ("x", "mask", "cotangent") else v for key, v in arrays.items()}
        for s in (slice(0, 5), slice(5, None))
    ]
    first = run_cell(cell, parts[0], path)
    carried = {f"{n}0": first[f"{n}_last"] for n in ALL[cell][0].state_names}
    second = run_cell(cell, parts[1] | carried, path)
    whole = run_cell(cell, arrays)
    np.testing.assert_allclose(
        np.concatenate([first["y"], second["y"]], axis=1), whole["y"], rtol=1e-12, atol=1e-14
    )


@PATHS
@EVERY_CELL
def test_examples_do_not_see_each_other(cell, path):
    arrays = random_arrays(cell, 4, 5, 2, mask=MASK)
    order = [2, 0, 3, 1]
    states = [f"{name}0" for name in ALL[cell][0].state_names]
    by_example = ("x", "mask", "cotangent", *states)
    moved = {key: v[order] if key in by_example else v for key, v in arrays.items()}
    result, again = run_cell(cell, arrays, path), run_cell(cell, moved, path)
    np.testing.assert_allclose(again["y"], result["y"][order], rtol=1e-12)
    np.testing.assert_allclose(again["d_x"], result["d_x"][order], rtol=1e-12, atol=1e-14)


@EVERY_CELL
def test_gradients_are_the_numerical_ones(cell):
    cls, own = ALL[cell]
    arrays = random_arrays(cell, 2, 3, 2, features=2, mask=None)
    mask = np.array([[True, False, True], [False, True, True]])
    layer = cls(2, dtype="float64", return_sequences=True, **own)
    layer.ensure_built((None, None, 2))

    def value(x, *weights):
        y = layer(pt.specify_shape(x, (None, None, 2)), mask=pt.constant(mask))
        given = {
            w: pt.specify_shape(v, w.type.shape)
            for w, v in zip(layer.weights, weights, strict=True)
        }
        return clone_replace(y, given)

    points = [arrays[name] for name in ("x", *map(short, layer.weights))]
    pytensor.gradient.verify_grad(
        value, points, rng=np.random.default_rng(0), mode=backend.mode(), eps=1e-6
    )


@over_cells(CELLS)
def test_a_layer_round_trips_through_its_configuration(cell):
    cls, own = CELLS[cell]
    layer = cls(3, go_backwards=True, name="mine", **{"activation": "relu", **own})
    again = cls.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.activation is layer.activation
    assert (again.units, again.go_backwards, again.name) == (3, True, "mine")


def test_a_custom_cell_computes_its_equations():
    arrays = random_arrays("zhou_unit", 3, 4, 2)
    h, outputs = arrays["h0"], []
    k_f, k_h = np.split(arrays["kernel"], 2, axis=1)
    u_f, u_h = np.split(arrays["recurrent_kernel"], 2, axis=1)
    b_f, b_h = np.split(arrays["bias"], 2)
    for t in range(4):
        x = arrays["x"][:, t]
        f = numpy_layers.sigmoid(x @ k_f + h @ u_f + b_f)
        h = (1 - f) * h + f * np.tanh(x @ k_h + (f * h) @ u_h + b_h)
        outputs.append(h)
    for path in ("scan", "unroll"):
        result = run_cell("zhou_unit", arrays, path)
        np.testing.assert_allclose(result["y"], np.stack(outputs, axis=1), rtol=1e-12)


def test_a_custom_cell_trains_and_generates():
    model = seqnet.Model([ZhouUnit(4), seqnet.layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(32, 6, 1))
    model.compile(seqnet.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, x.mean(axis=1), epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    stepper = seqnet.generation.Stepper(model)
    for t in range(6):
        output = stepper(x[:, t])
    np.testing.assert_allclose(output, model.predict(x), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ results known analytically


@PATHS
def test_a_linear_rnn_with_an_identity_matrix_adds_up_its_inputs(path):
    x = np.array([[[1.0, 10.0], [2.0, 20.0], [-4.0, 0.5]]])
    arrays = {
        "x": x,
        "kernel": np.eye(2),
        "recurrent_kernel": np.eye(2),
        "bias": np.zeros(2),
        "h0": np.array([[100.0, 0.0]]),
        "cotangent": np.ones((1, 3, 2)),
    }
    result = run_cell("simple_rnn", arrays, path, activation="linear")
    np.testing.assert_allclose(result["y"], np.cumsum(x, axis=1) + arrays["h0"][:, None])
    # Input t is part of the sums from step t on: 3, 2 and 1 sums.
    np.testing.assert_allclose(result["d_x"][0, :, 0], [3.0, 2.0, 1.0])
    np.testing.assert_allclose(result["d_h0"], [[3.0, 3.0]])


@PATHS
def test_an_lstm_with_open_gates_adds_up_its_inputs(path):
    arrays = {
        "x": np.array([[[1.0], [2.0], [-4.0]]]),
        "kernel": np.array([[0.0, 0.0, 1.0, 0.0]]),
        "recurrent_kernel": np.zeros((1, 4)),
        "bias": np.array([50.0, 50.0, 0.0, 50.0]),  # i, f, o = 1
        "h0": np.zeros((1, 1)),
        "c0": np.array([[7.0]]),
        "cotangent": np.ones((1, 3, 1)),
    }
    result = run_cell("lstm", arrays, path, activation="linear")
    np.testing.assert_allclose(result["y"], [[[8.0], [10.0], [6.0]]], rtol=1e-12)


@PATHS
@pytest.mark.parametrize("cell", ["gru", "gru_reset_before"])
def test_a_gru_whose_update_gate_is_one_keeps_its_state(cell, path):
    arrays = random_arrays(cell, 4, 5, 2)
    arrays["bias"][..., :2] = 100.0
    result = run_cell(cell, arrays, path)
    np.testing.assert_allclose(result["y"], np.repeat(arrays["h0"][:, None], 5, axis=1))


def test_the_two_variants_of_the_gru_agree_where_the_reset_gate_is_one():
    arrays = random_arrays("gru", 4, 5, 2)
    arrays["bias"][0, 2:4] = 100.0
    arrays["bias"][1] = 0.0
    before = dict(arrays, bias=arrays["bias"][0])
    after = run_cell("gru", arrays)
    np.testing.assert_allclose(run_cell("gru_reset_before", before)["y"], after["y"], rtol=1e-12)


# ----------------------------------------------------------------------- options and shapes


@pytest.mark.parametrize("cls", [SimpleRNN, LSTM, GRU, ZhouUnit])
def test_without_return_sequences_the_output_is_the_last_step(cls):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    every, last = cls(5, return_sequences=True), cls(5)
    for layer in (every, last):
        layer.ensure_built((None, None, 4))
    last.set_weights(every.get_weights())
    symbolic = pt.tensor("x", dtype="float32", shape=(None, None, 4))
    f = backend.compile([symbolic], [every(symbolic), last(symbolic)], name="both")
    sequences, final = f(x)
    assert (sequences.shape, final.shape) == ((2, 3, 5), (2, 5))
    assert sequences.dtype == final.dtype == np.float32
    np.testing.assert_array_equal(sequences[:, -1], final)
    assert every.compute_output_shape((None, None, 4)) == (None, None, 5)
    assert last.compute_output_shape((None, 3, 4)) == (None, 5)


def test_without_a_bias_the_result_is_that_of_a_zero_bias():
    for cell in ("lstm", "gru", "gru_reset_before"):
        cls, own = CELLS[cell]
        arrays = random_arrays(cell, 2, 3, 2)
        arrays["bias"][:] = 0
        layer = cls(2, dtype="float64", use_bias=False, return_sequences=True, **own)
        layer.ensure_built((None, None, 3))
        assert [w.name.rpartition("/")[2] for w in layer.weights] == ["kernel", "recurrent_kernel"]
        layer.set_weights([arrays["kernel"], arrays["recurrent_kernel"]])
        x = pt.tensor("x", dtype="float64", shape=(None, None, 3))
        y = backend.compile([x], [layer(x)], name="test")(arrays["x"])[0]
        zeros = {name: np.zeros((2, 2)) for name in ("h0", "c0") if name in arrays}
        np.testing.assert_allclose(y, run_cell(cell, arrays | zeros)["y"], rtol=1e-12)


def test_weights_have_keras_shapes_names_and_first_values():
    layer = LSTM(3, name="memory")
    layer.ensure_built((None, None, 2))
    assert [w.name for w in layer.weights] == [
        "memory/kernel",
        "memory/recurrent_kernel",
        "memory/bias",
    ]
    kernel, recurrent, bias = layer.get_weights()
    assert (kernel.shape, recurrent.shape) == ((2, 12), (3, 12))
    np.testing.assert_array_equal(bias, [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(3), atol=1e-6)
    plain = LSTM(3, unit_forget_bias=False)
    plain.ensure_built((None, None, 2))
    assert not plain.get_weights()[2].any()


def test_recurrent_activation_is_that_of_the_gates():
    layer = LSTM(1, recurrent_activation=lambda x: 0 * x + 1, activation="linear", dtype="float64")
    layer.ensure_built((None, None, 1))
    layer.set_weights([np.array([[9.0, 9.0, 1.0, 9.0]]), np.zeros((1, 4)), np.zeros(4)])
    y = layer(pt.constant(np.array([[[1.0], [2.0], [3.0]]])))
    assert backend.compile([], [y], name="test")()[0] == 6.0


def has_scan(function):
    return any(isinstance(node.op, Scan) for node in function.maker.fgraph.toposort())


def test_the_path_is_the_one_that_was_asked_for():
    assert has_scan(compiled_layer(LSTM, 2, 3, None, True, "scan").function)
    assert not has_scan(compiled_layer(LSTM, 2, 3, 5, True, "unroll").function)


def test_a_static_length_of_one_step_needs_no_loop():
    x = pt.tensor("x", dtype="float32", shape=(None, 1, 3))
    assert not has_scan(backend.compile([x], [LSTM(2)(x)], name="test"))


def test_backwards_reads_and_masks_from_the_end():
    arrays = random_arrays("lstm", 4, 5, 2, mask=MASK)
    turned = dict(arrays, x=arrays["x"][:, ::-1], mask=MASK[:, ::-1])
    back = run_cell("lstm", arrays, go_backwards=True)
    forth = run_cell("lstm", turned)
    np.testing.assert_allclose(back["y"], forth["y"], rtol=1e-12)
    np.testing.assert_allclose(back["d_x"], forth["d_x"][:, ::-1], rtol=1e-12, atol=1e-14)


def test_backwards_layers_pass_the_mask_in_their_outputs_order():
    x = pt.dtensor3("x")
    mask = pt.constant(MASK)
    layer = LSTM(2, go_backwards=True, return_sequences=True)
    assert (layer.compute_mask(x, mask).eval(mode="FAST_COMPILE") == MASK[:, ::-1]).all()
    assert LSTM(2, go_backwards=True).compute_mask(x, mask) is None
    assert LSTM(2, return_sequences=True).compute_mask(x, mask) is mask


def test_padding_reaches_the_second_of_two_stacked_layers():
    short = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    padded = np.concatenate([short, np.zeros((3, 3, 2), "float32")], axis=1)
    model = seqnet.Model([Masking(), LSTM(3, return_sequences=True), GRU(2)])
    np.testing.assert_allclose(model.predict(padded), model.predict(short), rtol=1e-5, atol=1e-7)


# PyTensor's own modes search for a BLAS library.
@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS")
@pytest.mark.parametrize("mode", ["FAST_COMPILE", pytest.param("NUMBA", marks=pytest.mark.slow)])
def test_pytensors_own_modes_give_the_same_values_and_gradients(mode):
    if mode == "NUMBA":  # which takes minutes to compile all of a scan
        arrays, length, path = random_arrays("simple_rnn", 4, 2, 2), 2, "unroll"
    else:
        arrays, length, path = random_arrays("simple_rnn", 4, 5, 2, mask=MASK), None, "scan"
    expected = run_cell("simple_rnn", arrays, path)
    compiled = compiled_layer(SimpleRNN, 2, 3, length, "mask" in arrays, path, "float64", ())
    wanted = ["y", "d_x", "d_recurrent_kernel"]
    outputs = [compiled.outputs[list(expected).index(name)] for name in wanted]
    function = pytensor.function(compiled.inputs, outputs, mode=mode, on_unused_input="ignore")
    values = function(*[arrays[variable.name] for variable in compiled.inputs])
    assert_same(
        dict(zip(wanted, values, strict=True)), {name: expected[name] for name in wanted}, 1e-12
    )
