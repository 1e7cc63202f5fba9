import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import numpy_mode
from reference import cases, load_arrays, numpy_training

import seqnet
from seqnet import activations, backend, losses
from seqnet.layers import Activation, Dense, Softmax, TimeDistributed
from seqnet.losses.reduction import step_weights, weighted_sum

KERAS = load_arrays("keras")
HELD = [(peer, name) for peer in ("keras", "pytorch") for name in cases.loss_inputs()]
STORED = {"keras": KERAS, "pytorch": load_arrays("pytorch")}
NAMES = {"squared_error": "mean_squared_error", "absolute_error": "mean_absolute_error"}


def make(case):
    """Return the loss of a stored case, and the last activation of its model."""
    name = case.removesuffix("_extreme")
    ending = {
        "sparse_categorical_crossentropy": activations.softmax,
        "categorical_crossentropy": activations.softmax,
        "binary_crossentropy": activations.sigmoid,
    }.get(name, activations.linear)
    return losses.get(NAMES.get(name, name)), ending


def evaluate(loss, ending, arrays, mode=None):
    """Return values, weighted mean and its gradient, as the training step computes them."""
    logits = pt.tensor("logits", dtype="float64", shape=(None,) * arrays["logits"].ndim)
    targets = arrays["targets"]
    dtype = "int32" if targets.dtype.kind == "i" else "float64"
    y = pt.tensor("y", dtype=dtype, shape=(None,) * targets.ndim)
    weights, mask = pt.dmatrix("weights"), pt.matrix("mask", dtype="bool")
    values = loss.call(y, ending(logits))
    steps = step_weights(values, weights, mask)
    mean = weighted_sum(values, steps) / pt.sum(steps)
    outputs = [values, mean, pytensor.grad(mean, logits)]
    f = pytensor.function([logits, y, weights, mask], outputs, mode=mode or backend.mode())
    return f(arrays["logits"], targets.astype(dtype), arrays["weights"], arrays["mask"])


@pytest.mark.parametrize("kernels", [False, True], ids=["plain", "kernels"])
@pytest.mark.parametrize(("peer", "case"), HELD)
def test_values_means_and_gradients_equal_the_stored_ones(peer, case, kernels):
    """The ``_extreme`` cases have logits of thousands, where no gradient may vanish."""
    arrays = STORED[peer][case]
    loss, ending = make(case)
    mode = backend.mode() if kernels else numpy_mode()
    values, mean, gradient = evaluate(loss, ending, arrays, mode)
    np.testing.assert_allclose(values, arrays["losses"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(mean, arrays["weighted_mean"], rtol=1e-10)
    np.testing.assert_allclose(gradient, arrays["d_logits"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "case",
    ["sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"],
)
def test_logits_and_probabilities_give_the_same_loss(case):
    arrays = KERAS[case]
    loss, ending = make(case)
    from_logits, _, _ = evaluate(type(loss)(from_logits=True), lambda x: x, arrays)
    # A softmax inside a custom function is not recognised, so the loss uses probabilities.
    from_probabilities, _, _ = evaluate(loss, lambda x: 1.0 * ending(x), arrays)
    np.testing.assert_allclose(from_logits, arrays["losses"], rtol=1e-12)
    np.testing.assert_allclose(from_probabilities, arrays["losses"], rtol=1e-6)


@pytest.mark.parametrize(
    "last",
    [
        [Dense(3, activation="softmax")],
        [Dense(3), Activation("softmax")],
        [Dense(3), Softmax()],
        [TimeDistributed(Dense(3, activation="softmax"))],
    ],
)
def test_a_softmax_is_recognised_in_all_forms(last):
    model = seqnet.Model(last)
    output = model(pt.tensor("x", dtype="float32", shape=(None, None, 4)))
    assert losses.softmax_logits(output) is not None
    assert losses.sigmoid_logits(output) is None
    assert isinstance(
        losses.guess(output, np.zeros((2, 3), int)), (losses.SparseCategoricalCrossentropy)
    )


def test_a_softmax_over_another_axis_is_not_replaced():
    x = pt.dtensor3("x")
    assert losses.softmax_logits(pt.special.softmax(x, axis=1)) is None
    assert losses.softmax_logits(pt.special.softmax(x, axis=-1)) is x
    assert losses.sigmoid_logits(pt.sigmoid(x)) is x


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_confident_wrong_prediction_has_a_gradient_in_float32(activation):
    model = seqnet.Model([Dense(2, activation=activation, kernel_initializer="identity")])
    model.compile(seqnet.optimizers.SGD(1.0))
    x = np.array([[500.0, -500.0]], "float32")
    y = np.array([1]) if activation == "softmax" else np.array([[0.0, 1.0]])
    loss = model.train_on_batch(x, y)
    assert loss == pytest.approx(1000.0 if activation == "softmax" else 500.0)
    change = model.get_weights()[1]
    share = 1.0 if activation == "softmax" else 0.5
    np.testing.assert_allclose(change, [-share, share])


def test_label_smoothing_mixes_targets_with_the_uniform_distribution():
    arrays = KERAS["categorical_crossentropy"]
    smooth = losses.CategoricalCrossentropy(label_smoothing=0.2)
    values, _, gradient = evaluate(smooth, activations.softmax, arrays)
    targets = 0.8 * arrays["targets"] + 0.2 / 5
    expected, d_logits = numpy_training.categorical_crossentropy(targets, arrays["logits"])
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    by = arrays["weights"], arrays["mask"]
    np.testing.assert_allclose(
        gradient, numpy_training.weighted_mean_backward(d_logits, *by), rtol=1e-10, atol=1e-14
    )
    again = losses.get({"name": "CategoricalCrossentropy", "config": smooth.get_config()})
    assert again.label_smoothing == 0.2


def test_a_probability_of_zero_gives_a_finite_loss():
    prediction, target = pt.dmatrix("p"), pt.ivector("y")
    value = losses.SparseCategoricalCrossentropy()(target, prediction)
    f = backend.compile([prediction, target], [value], name="test")
    (cost,) = f(np.array([[0.0, 1.0]]), np.array([0], "int32"))
    np.testing.assert_allclose(cost, [-np.log(1e-7)])


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("mse", losses.MeanSquaredError),
        ("mae", losses.MeanAbsoluteError),
        ("MeanSquaredError", losses.MeanSquaredError),
        ("binary_crossentropy", losses.BinaryCrossentropy),
    ],
)
def test_losses_are_found_by_name(name, cls):
    assert type(losses.get(name)) is cls


def test_a_value_of_weight_zero_is_ignored_even_if_nan():
    values, weights = pt.dvector("v"), pt.dvector("w")
    f = backend.compile([values, weights], [weighted_sum(values, weights)], name="test")
    assert f(np.array([1.0, np.nan, np.inf]), np.array([2.0, 0.0, 0.0]))[0] == 2.0


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 5)])
@pytest.mark.parametrize("weight_rank", [None, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_step_weights_equal_those_of_the_reference(shape, weight_rank, masked):
    if (weight_rank or 0) > len(shape) or not (weight_rank or masked):
        pytest.skip("There is no such case.")
    rng = np.random.default_rng(0)
    weights = None if weight_rank is None else rng.uniform(size=shape[:weight_rank])
    mask = rng.uniform(size=(3, 4)) > 0.5 if masked else None
    steps = step_weights(
        pt.constant(np.zeros(shape)),
        None if weights is None else pt.constant(weights),
        None if mask is None else pt.constant(mask),
    )
    # A mask of steps does not apply to values of whole samples.
    expected = numpy_training.step_weights(shape, weights, mask if len(shape) > 1 else None)
    if steps is None:
        assert (expected == 1).all()
    else:
        np.testing.assert_allclose(backend.compile([], [steps], name="test")()[0], expected)


# ---------------------------------------------------------------------------- masked_loss


def masked(arrays, predictions, predictions_given=None):
    """Return the losses and their gradient; the cotangent is not all ones."""
    given = [pt.constant(arrays[name]) for name in ("labels", "lengths", "starts")]
    loss = losses.masked_loss(predictions, *given)
    total = pt.sum(loss * pt.constant(arrays["cotangent"]))
    f = backend.compile([predictions], [loss, pytensor.grad(total, predictions)], name="test")
    return f(arrays["predictions"] if predictions_given is None else predictions_given)


def test_masked_loss_and_its_gradient_equal_those_of_pytorch():
    arrays = STORED["pytorch"]["masked_loss"]
    loss, gradient = masked(arrays, pt.dtensor3("p"))
    np.testing.assert_allclose(loss, arrays["losses"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient, arrays["d_predictions"], rtol=1e-10, atol=1e-12)


def test_masked_loss_equals_that_of_theano_lstm():
    uniform = np.full((2, 3, 5), 0.2)
    labels = np.array([[-1, 9, 4], [1, 2, 77]])  # values outside of the ranges are not read
    loss = losses.masked_loss(uniform, labels, np.array([1, 2]), np.array([2, 0]))
    values = loss.eval(mode=backend.mode())
    np.testing.assert_allclose(values, [1.609438, 3.218876], rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 5])
def test_masked_loss_refuses_labels_outside_of_the_classes(label):
    labels = np.array([[0, 0, label], [1, 2, 77]])
    loss = losses.masked_loss(np.full((2, 3, 5), 0.2), labels, np.array([1, 2]), np.array([2, 0]))
    with pytest.raises(IndexError, match=r"The class numbers are not all in \[0, 5\)"):
        loss.eval(mode=backend.mode())


@pytest.mark.parametrize("label", [-1, 3])
def test_the_sparse_loss_refuses_labels_outside_of_the_classes(label):
    prediction, target = pt.dmatrix("p"), pt.ivector("y")
    value = losses.SparseCategoricalCrossentropy()(target, prediction)
    f = backend.compile([prediction, target], [value], name="test")
    with pytest.raises(IndexError, match="The class numbers are not all in"):
        f(np.full((2, 3), 1 / 3), np.array([0, label], "int32"))


def test_zeros_outside_of_the_range_do_not_affect_the_gradient_of_masked_loss():
    arrays = STORED["pytorch"]["masked_loss"]
    given = arrays["predictions"].copy()
    given[1, 3:] = 0  # its range is only step 2
    _, gradient = masked(arrays, pt.dtensor3("p"), given)
    np.testing.assert_allclose(gradient, arrays["d_predictions"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("number", "value", "name"),
    [
        (0, np.zeros((2, 3)), "predictions must hold floats and have rank 3, got float64"),
        (0, np.zeros((2, 3, 5), int), "predictions must hold floats"),
        (1, np.zeros((2, 3)), "padded_labels must hold integers and have rank 2, got float64"),
        (1, np.zeros(2, int), "padded_labels .* rank 2, got int64 and rank 1"),
        (2, np.zeros((2, 1), int), "codelengths must hold integers and have rank 1"),
        (2, np.zeros(2), "codelengths must hold integers"),
        (3, np.zeros((2, 1), int), "label_starts must hold integers and have rank 1"),
        (3, np.zeros(2), "label_starts must hold integers"),
    ],
)
def test_masked_loss_checks_its_arguments_when_it_is_built(number, value, name):
    given = [np.full((2, 3, 5), 0.2), np.zeros((2, 3), int), np.array([1, 2]), np.array([2, 0])]
    given[number] = value
    with pytest.raises(ValueError, match=name):
        losses.masked_loss(*given)


@pytest.mark.parametrize(("lengths", "starts"), [([2, 2], [2, 0]), ([1, 1], [-1, 0])])
def test_masked_loss_refuses_steps_beyond_the_end(lengths, starts):
    given = [np.full((2, 3, 5), 0.2), np.zeros((2, 3), int), np.array(lengths), np.array(starts)]
    loss = losses.masked_loss(*given)
    with pytest.raises(ValueError, match="steps that are not there"):
        loss.eval(mode=backend.mode())
