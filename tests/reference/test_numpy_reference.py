"""The NumPy reference agrees with finite differences, and with the stored results of the peers."""

from pathlib import Path

import numpy as np
import pytest

from . import cases, load_arrays, numpy_layers, numpy_training

STORED = {peer: load_arrays(peer) for peer in ("keras", "pytorch")}
HELD = [(peer, name) for peer in STORED for name in STORED[peer]]


def held(names):
    return [(peer, name) for peer, name in HELD if name in names]


def assert_same(actual, expected, tolerance=1e-10):
    """Check that `actual` has every array of `expected`, equal within the tolerance."""
    for name, value in expected.items():
        np.testing.assert_allclose(
            actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name
        )


def numerical_gradient(function, array, step=1e-5):
    """Return central differences of a scalar function without arguments that reads `array`."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        below = function()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_gradients(function, arrays, gradients):
    """Check that ``gradients["d_" + name]`` is the derivative of the function for every array."""
    for name, array in arrays.items():
        numerical = numerical_gradient(function, array)
        np.testing.assert_allclose(
            gradients[f"d_{name}"], numerical, rtol=1e-6, atol=1e-8, err_msg=name
        )


# ------------------------------------------------------------- derivatives by finite differences

CELLS = {
    "simple_rnn": numpy_layers.SimpleRNNCell(),
    "simple_rnn_relu": numpy_layers.SimpleRNNCell("relu"),
    "simple_rnn_linear": numpy_layers.SimpleRNNCell("linear"),
    "lstm": numpy_layers.LSTMCell(),
    "gru": numpy_layers.GRUCell(),
    "gru_reset_before": numpy_layers.GRUCell(reset_after=False),
}


def make_recurrent(cell, batch=4, time=5, features=3, units=2):
    """Return x, weights and initial states of a recurrent layer by name."""
    rng = np.random.default_rng(7)
    arrays = {
        "x": rng.normal(size=(batch, time, features)),
        "kernel": rng.normal(size=(features, cell.gates * units)),
        "recurrent_kernel": rng.normal(size=(units, cell.gates * units)),
        "bias": rng.normal(size=cell.bias_shape(units)),
    }
    return arrays | {f"{state}0": rng.normal(size=(batch, units)) for state in cell.state_names}


def run(cell, arrays, **options):
    weights = {name: arrays[name] for name in ("kernel", "recurrent_kernel", "bias")}
    states = [arrays[f"{state}0"] for state in cell.state_names]
    return numpy_layers.recurrent(cell, arrays["x"], weights, states=states, **options)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("mask", [None, cases.HOLES], ids=["no_mask", "mask"])
@pytest.mark.parametrize("name", CELLS)
def test_recurrent_gradients_equal_finite_differences(name, mask, go_backwards, return_sequences):
    cell = CELLS[name]
    arrays = make_recurrent(cell)
    options = {"mask": mask, "go_backwards": go_backwards, "return_sequences": return_sequences}
    y, states, tape = run(cell, arrays, **options)
    rng = np.random.default_rng(8)
    d_y, *d_states = (rng.normal(size=array.shape) for array in (y, *states))

    def loss():
        y, states, _ = run(cell, arrays, **options)
        pairs = zip((y, *states), (d_y, *d_states), strict=True)
        return sum((value * cotangent).sum() for value, cotangent in pairs)

    gradients = numpy_layers.recurrent_backward(tape, d_y=d_y, d_states=d_states)
    assert_gradients(loss, arrays, gradients)


@pytest.mark.parametrize("name", ["dense_2d", "dense_3d", "embedding", "softmax_3d"])
def test_layer_gradients_equal_finite_differences(name):
    arrays = cases.layer_inputs()[name]
    if name == "softmax_3d":
        arrays["x"][0, 0] = [1.0, -2.0, 0.5, 0.0, 1.0]
    varied = {key: arrays[key] for key in arrays if key not in ("ids", "cotangent")}

    def loss():
        return (cases.layer_numpy_result(name, arrays)["y"] * arrays["cotangent"]).sum()

    assert_gradients(loss, varied, cases.layer_numpy_result(name, arrays))


@pytest.mark.parametrize("name", cases.LOSSES)
def test_loss_gradients_equal_finite_differences(name):
    arrays = cases.loss_inputs()[name]

    def loss():
        return cases.loss_numpy_result(name, arrays)["weighted_mean"]

    result = cases.loss_numpy_result(name, arrays)
    assert_gradients(loss, {"logits": arrays["logits"]}, result)


def test_crossentropy_gradient_is_correct_for_targets_that_do_not_sum_to_one():
    arrays = cases.loss_inputs()["categorical_crossentropy"]
    arrays["targets"] = 1.7 * arrays["targets"] ** 2

    def loss():
        return cases.loss_numpy_result("categorical_crossentropy", arrays)["weighted_mean"]

    result = cases.loss_numpy_result("categorical_crossentropy", arrays)
    assert_gradients(loss, {"logits": arrays["logits"]}, result)


def test_masked_loss_gradient_equals_finite_differences():
    arrays = cases.masked_loss_inputs()
    varied = {"predictions": arrays["predictions"]}

    def loss():
        return (cases.masked_loss_numpy_result(arrays)["losses"] * arrays["cotangent"]).sum()

    arrays["predictions"] += 0.05  # away from 0, where differences of logarithms are inaccurate
    assert_gradients(loss, varied, cases.masked_loss_numpy_result(arrays))


# ------------------------------------------------------------------- results known analytically


@pytest.mark.parametrize("name", CELLS)
def test_a_masked_step_is_as_if_it_were_not_there(name):
    cell = CELLS[name]
    arrays = make_recurrent(cell)
    y, states, _ = run(cell, arrays, mask=cases.HOLES)
    for row, kept in enumerate(cases.HOLES):
        short = {key: arrays[key] for key in ("kernel", "recurrent_kernel", "bias")}
        short["x"] = arrays["x"][row : row + 1, kept]
        for state in cell.state_names:
            short[f"{state}0"] = arrays[f"{state}0"][row : row + 1]
        if not kept.any():
            expected = np.repeat(short["h0"], len(kept), axis=0)
            last = [short[f"{state}0"] for state in cell.state_names]
        else:
            short_y, last, _ = run(cell, short)
            with_start = np.concatenate([short["h0"], short_y[0]])
            expected = with_start[np.cumsum(kept)]
        np.testing.assert_allclose(y[row], expected, rtol=1e-14)
        for state, value in zip(states, last, strict=True):
            np.testing.assert_allclose(state[row], value[0], rtol=1e-14)


def test_go_backwards_equals_reversed_inputs():
    cell = CELLS["lstm"]
    arrays = make_recurrent(cell)
    y, _, _ = run(cell, arrays, mask=cases.HOLES, go_backwards=True)
    reversed_arrays = arrays | {"x": arrays["x"][:, ::-1]}
    expected, _, _ = run(cell, reversed_arrays, mask=cases.HOLES[:, ::-1])
    np.testing.assert_array_equal(y, expected)


def test_an_lstm_with_open_gates_adds_up_its_inputs():
    bias = np.array([50.0, 50.0, 0.0, 50.0])  # i, f, o = 1
    weights = {
        "kernel": np.array([[0.0, 0.0, 1.0, 0.0]]),
        "recurrent_kernel": np.zeros((1, 4)),
        "bias": bias,
    }
    x = np.array([[[1.0], [2.0], [-4.0]]])
    cell = numpy_layers.LSTMCell("linear")
    y, _, _ = numpy_layers.recurrent(cell, x, weights)
    np.testing.assert_allclose(y, [[[1.0], [3.0], [-1.0]]], rtol=1e-12)


def test_no_bias_equals_a_zero_bias():
    cell = CELLS["gru"]
    arrays = make_recurrent(cell)
    weights = {name: arrays[name] for name in ("kernel", "recurrent_kernel")}
    y, _, tape = numpy_layers.recurrent(cell, arrays["x"], weights)
    zero = weights | {"bias": np.zeros_like(arrays["bias"])}
    expected, _, _ = numpy_layers.recurrent(cell, arrays["x"], zero)
    np.testing.assert_array_equal(y, expected)
    assert "d_bias" not in numpy_layers.recurrent_backward(tape, d_y=y)


def test_the_loss_of_uniform_predictions_is_the_logarithm_of_the_number_of_classes():
    labels = np.array([[0, 3, 2], [4, 4, 1]])
    losses, _ = numpy_training.sparse_categorical_crossentropy(labels, np.zeros((2, 3, 5)))
    np.testing.assert_allclose(losses, np.log(5.0))
    assert numpy_training.perplexity(losses) == pytest.approx(5.0)
    ranges = np.array([1, 2]), np.array([2, 0])
    summed = numpy_training.masked_loss(np.full((2, 3, 5), 0.2), labels, *ranges)
    np.testing.assert_allclose(summed, [1.609438, 3.218876], atol=1e-6)


def test_weighted_mean_uses_weights_and_mask():
    values = np.array([[1.0, 2.0, np.nan], [4.0, np.inf, np.nan]])
    mask = np.array([[True, True, False], [True, False, False]])
    assert numpy_training.weighted_mean(values, mask=mask) == pytest.approx(7 / 3)
    by_example = numpy_training.weighted_mean(values, np.array([1.0, 3.0]), mask)
    assert by_example == pytest.approx(15 / 5)
    assert numpy_training.weighted_mean(values, mask=np.zeros_like(mask)) == 0.0
    d_values = numpy_training.weighted_mean_backward(values[..., None], mask=mask)
    np.testing.assert_allclose(d_values[..., 0], [[1 / 3, 2 / 3, 0.0], [4 / 3, 0.0, 0.0]])


def test_accuracy_is_one_where_the_right_class_is_highest():
    scores = np.array([[[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]])
    labels = np.array([[1, 2]])
    sparse = numpy_training.sparse_categorical_accuracy(labels, scores)
    np.testing.assert_array_equal(sparse, [[1.0, 0.0]])
    dense = numpy_training.categorical_accuracy(np.eye(3)[labels], scores)
    np.testing.assert_array_equal(dense, sparse)
    binary = numpy_training.binary_accuracy(np.array([[1, 0]]), np.array([[0.6, 0.7]]))
    np.testing.assert_array_equal(binary, [0.5])


def test_clipping_keeps_gradients_within_the_limit():
    small, large = np.array([0.3, 0.4]), np.array([3.0, -4.0])
    by_value = numpy_training.clip_by_value([small, large], 1.0)
    np.testing.assert_allclose(by_value, [[0.3, 0.4], [1.0, -1.0]])
    by_norm = numpy_training.clip_by_norm([small, large], 1.0)
    np.testing.assert_allclose(by_norm, [[0.3, 0.4], [0.6, -0.8]])
    together = numpy_training.clip_by_global_norm([small, large], 1.0)
    assert np.linalg.norm(np.concatenate(together)) == pytest.approx(1.0)
    np.testing.assert_array_equal(numpy_training.clip_by_global_norm([small], 0.6)[0], small)


@pytest.mark.parametrize("name", cases.THEANO_LSTM)
def test_optimizers_agree_with_theano_lstm(name):
    optimizer = getattr(numpy_training, name)
    options = {"sgd": {}, "adagrad": {"epsilon": 1e-6}, "adadelta": {}}[name]
    parameter, slots = np.array([1.0, -2.0]), {}
    for expected in cases.THEANO_LSTM[name]:
        norm = np.linalg.norm(parameter)
        gradient = parameter * min(5.0, norm) / (norm + 1e-6)
        parameter, slots = optimizer(parameter, gradient, slots, **options)
        np.testing.assert_allclose(parameter, expected, rtol=0, atol=2e-11)


# --------------------------------------------------------------------- the stored peer results


@pytest.mark.parametrize(("peer", "name"), held(cases.RECURRENT))
def test_recurrent_layers_agree_with_the_peer(peer, name):
    arrays = dict(STORED[peer][name])
    case = cases.RECURRENT[name]
    result = case.numpy_result(arrays)
    if case.mask == "padded":  # PyTorch returns zeros at padded steps
        result["y"] = result["y"] * arrays["mask"][:, :, None]
    given = {"x", "kernel", "recurrent_kernel", "bias", "h0", "c0", "cotangent", "mask"}
    assert_same(result, {key: arrays[key] for key in arrays.keys() - given})


@pytest.mark.parametrize(("peer", "name"), held(cases.layer_inputs()))
def test_layers_agree_with_the_peer(peer, name):
    arrays = STORED[peer][name]
    expected = {key: arrays[key] for key in arrays if key == "y" or key.startswith("d_")}
    assert_same(cases.layer_numpy_result(name, arrays), expected)


@pytest.mark.parametrize(("peer", "name"), held(cases.loss_inputs()))
def test_losses_agree_with_the_peer(peer, name):
    arrays = STORED[peer][name]
    expected = {key: arrays[key] for key in ("losses", "weighted_mean", "d_logits")}
    assert_same(cases.loss_numpy_result(name, arrays), expected)


def test_masked_loss_agrees_with_pytorch():
    arrays = STORED["pytorch"]["masked_loss"]
    expected = {key: arrays[key] for key in ("losses", "d_predictions")}
    assert_same(cases.masked_loss_numpy_result(arrays), expected)


@pytest.mark.parametrize("name", cases.OPTIMIZERS)
@pytest.mark.parametrize("peer", STORED)
def test_optimizers_agree_with_the_peer(peer, name):
    arrays = STORED[peer][f"optimizer_{name}"]
    result = cases.optimizer_numpy_result(name, arrays, peer)
    assert_same({"trajectory": result}, {"trajectory": arrays["trajectory"]})


@pytest.mark.parametrize(("peer", "name"), held(cases.CLIPPING))
def test_clipping_agrees_with_the_peer(peer, name):
    arrays = STORED[peer][name]
    # PyTorch divides by norm + 1e-6.
    tolerance = 1e-6 if (peer, name) == ("pytorch", "clip_by_global_norm") else 1e-10
    expected = {key: arrays[key] for key in ("clipped_0", "clipped_1")}
    assert_same(cases.clipping_numpy_result(name, arrays), expected, tolerance)


def peers_differ(name):
    """Return cases where Keras and PyTorch use different formulas: the place of epsilon."""
    function = cases.OPTIMIZERS.get(name.removeprefix("optimizer_"), ("",))[0]
    return function in cases.PYTORCH_FORM or name == "clip_by_global_norm"


SHARED = sorted(STORED["keras"].keys() & STORED["pytorch"].keys())


@pytest.mark.parametrize("name", [name for name in SHARED if not peers_differ(name)])
def test_keras_and_pytorch_agree_with_each_other(name):
    keras, pytorch = STORED["keras"][name], STORED["pytorch"][name]
    both = keras.keys() & pytorch.keys() - {"hyperparameters"}
    assert_same({key: keras[key] for key in both}, {key: pytorch[key] for key in both})


@pytest.mark.parametrize("name", [name for name in SHARED if peers_differ(name)])
def test_keras_and_pytorch_differ_only_in_documented_cases(name):
    keras, pytorch = STORED["keras"][name], STORED["pytorch"][name]
    key = "trajectory" if "trajectory" in keras else "clipped_0"
    assert np.abs(keras[key] - pytorch[key]).max() > 1e-9


@pytest.mark.parametrize("peer", STORED)
def test_the_files_contain_every_case_and_are_small(peer):
    path = Path(__file__).with_name(f"{peer}.npz")
    assert path.stat().st_size < 200_000
    with np.load(path) as stored:
        assert "numpy" in str(stored["versions"])
    expected = {case.name for case in cases.RECURRENT.values() if peer in case.peers}
    expected |= cases.layer_inputs().keys() | cases.loss_inputs().keys()
    expected |= {f"optimizer_{name}" for name in cases.OPTIMIZERS}
    assert expected <= STORED[peer].keys()


@pytest.mark.parametrize(("peer", "name"), held(cases.RECURRENT))
def test_stored_inputs_are_exact_in_float32(peer, name):
    arrays = STORED[peer][name]
    for key in ("x", "kernel", "recurrent_kernel", "bias", "h0", "cotangent"):
        np.testing.assert_array_equal(arrays[key].astype(np.float32), arrays[key])
