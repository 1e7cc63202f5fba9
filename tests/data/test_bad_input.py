"""Every mistake raises one clear error before anything is compiled."""

import re
from collections import deque

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import layers, losses, metrics, optimizers
from seqnet.callbacks import EarlyStopping
from seqnet.data.adapters import Adapter
from seqnet.layers import GRU, LSTM, Dense, Dropout, Embedding, Masking, SimpleRNN
from seqnet.text import CharacterVocabulary, bigram_cross_entropy, next_step_examples

pytestmark = pytest.mark.usefixtures("no_compile")

TOKENS = np.array([[1, 2, 3], [4, 0, 1], [2, 2, 2], [3, 1, 4]])
CLASSES = np.array([0, 1, 2, 1])
SERIES = np.linspace(-1, 1, 24).reshape(4, 3, 2)
VALUES = np.linspace(0, 1, 4).reshape(4, 1)


def says(error, *parts):
    """Expect an error whose message contains all of these parts."""
    pattern = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(error, match=f"(?s){pattern}")


def classifier(**options):
    model = seqnet.Model([Embedding(5, 3), LSTM(2, **options), Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def regressor(**options):
    model = seqnet.Model([LSTM(2, **options), Dense(1)])
    model.compile("sgd", "mse")
    return model


VERBS = pytest.mark.parametrize("verb", ["fit", "evaluate", "train_on_batch", "test_on_batch"])

# ------------------------------------------------------------------------------ the inputs


@VERBS
@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        (TOKENS[:, :, None], ValueError, ["lstm", "rank 3", "(None, 3, 1, 3)"]),
        (TOKENS + 0.5, ValueError, ["X holds 1.5 at (0, 0)", "embedding", "whole numbers"]),
        (np.full((4, 3), 5), ValueError, ["X holds 5 at (0, 0)", "embedding", "0 to 4"]),
        (np.array([[0, 1, 2]] * 3 + [[0, -1, 2]]), ValueError, ["X holds -1 at (3, 1)", "0 to 4"]),
        (np.array([["a", "b", "c"]] * 4), TypeError, ["X", "numbers", "<U1"]),
        ([["a", "b", "c"]] * 4, TypeError, ["X", "numbers"]),
        ([[None, 1, 2]] * 4, TypeError, ["X", "numbers", "object"]),
        (np.array(TOKENS, dtype=complex), TypeError, ["X", "numbers", "complex"]),
        (np.zeros((0, 3), int), ValueError, ["X is empty", "(0, 3)"]),
        (np.zeros((4, 0), int), ValueError, ["X", "axis of size 0", "(4, 0)"]),
        ([], ValueError, ["X is empty"]),
        (3, ValueError, ["X", "batch axis", "3"]),
        (TOKENS[:3], ValueError, ["X", "y", "3 in X", "4 in y", "(3, 3)", "(4,)"]),
        (np.full((4, 3), 2**40), ValueError, ["X holds", str(2**40)]),
        (np.full((4, 3), 2**40, ">i8"), ValueError, ["X holds", str(2**40)]),
    ],
)
def test_wrong_tokens_are_refused(verb, x, error, parts):
    with says(error, *parts):
        getattr(classifier(), verb)(x, CLASSES)


@pytest.mark.parametrize("verb", ["predict", "predict_on_batch"])
@pytest.mark.parametrize(
    ("first", "x"),
    [
        ([Embedding(5, 3), LSTM(2)], TOKENS),
        ([LSTM(2)], SERIES),
        ([Masking(), LSTM(2)], SERIES),
        ([layers.TimeDistributed(Dense(2))], SERIES),
        ([layers.Bidirectional(GRU(2))], SERIES),
        ([Dense(2)], VALUES),
        ([layers.Activation("relu"), Dense(2)], VALUES),
        ([layers.RepeatVector(2)], VALUES),
    ],
    ids=lambda value: type(value[0]).__name__ if isinstance(value, list) else "",
)
def test_a_single_sample_without_a_batch_axis_is_refused(verb, first, x):
    model = seqnet.Model([type(layer).from_config(layer.get_config()) for layer in first])
    model.build((None, *x.shape[1:]))
    with says(ValueError, f"X has the shape {x.shape[1:]}", "one axis less", "X[None]"):
        getattr(model, verb)(x[0])


@VERBS
@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        (
            SERIES[0],
            ValueError,
            ["X[None]", "lstm", "(batch, time, features)", "rank 3", "(None, 2)"],
        ),
        (
            np.where(SERIES > 0.9, np.nan, SERIES),
            ValueError,
            ["X holds nan at (3, 2, 0)", "Masking"],
        ),
        (np.where(SERIES > 0.9, np.inf, SERIES), ValueError, ["X holds inf at (3, 2, 0)"]),
    ],
)
def test_wrong_series_are_refused(verb, x, error, parts):
    with says(error, *parts):
        getattr(regressor(), verb)(x, VALUES[: len(x)])


@pytest.mark.parametrize("verb", ["predict", "predict_on_batch"])
def test_wrong_inputs_of_predict_are_refused(verb):
    with says(ValueError, "X holds 9 at (0, 0)"):
        getattr(classifier(), verb)(np.full((4, 3), 9))
    with says(ValueError, "X holds nan"):
        getattr(regressor(), verb)(SERIES * np.nan)


def test_a_different_number_of_features_is_refused():
    model = regressor()
    model.build((None, None, 2))
    with says(ValueError, "lstm", "built for 2 features", "last axis has 3"):
        model.predict(np.zeros((4, 3, 3)))
    with says(ValueError, "lstm", "built for 2 features"):
        model.fit(np.zeros((4, 3, 3)), VALUES)


def test_integers_beyond_32_bits_are_refused():
    with says(ValueError, "X holds 3000000000", "astype('float64')"):
        regressor().predict(np.full((1, 3, 2), 3_000_000_000))
    with says(ValueError, "y holds 3000000000"):
        regressor().fit(SERIES, np.full((4, 1), 3_000_000_000))


@pytest.mark.parametrize("wrong", [SERIES * 1e300, list(SERIES * 1e300), list(SERIES[:2] * 1e300)])
@pytest.mark.parametrize("verb", ["predict", "predict_on_batch"])
def test_inputs_too_large_for_the_float_type_are_refused(verb, wrong):
    with says(ValueError, "X", "holds -1e+300 at", "float32", "set_floatx('float64')"):
        getattr(regressor(), verb)(wrong)


@VERBS
@pytest.mark.parametrize(
    ("x", "y", "options", "name"),
    [
        (SERIES * 1e300, VALUES, {}, "X"),
        (SERIES, VALUES * 1e300, {}, "y"),
        (SERIES, VALUES, {"sample_weight": np.full(4, 1e300)}, "sample_weight"),
    ],
)
def test_values_too_large_for_the_float_type_are_refused(verb, x, y, options, name):
    with says(ValueError, f"{name} holds", "e+", "float32", "set_floatx('float64')"):
        getattr(regressor(), verb)(x, y, **options)
    seqnet.config.set_floatx("float64")
    model = regressor()
    Adapter(model).dataset(x, y, options.get("sample_weight"))
    there = np.array([[True, True, False]] * 4)
    seqnet.config.set_floatx("float32")
    hidden = np.where(there[..., None], SERIES, 1e300)
    Adapter(regressor()).dataset(hidden, VALUES, mask=there)


MASKED = np.ma.masked_greater(SERIES, 0.5)


@VERBS
@pytest.mark.parametrize(
    ("x", "y", "options", "name"),
    [
        (MASKED, VALUES, {}, "X"),
        (list(MASKED), VALUES, {}, "X"),
        ([MASKED[3], SERIES[0, :2]], VALUES[:2], {}, "X[0]"),
        (SERIES, np.ma.masked_less(VALUES, 0.1), {}, "y"),
        (SERIES, VALUES, {"sample_weight": np.ma.masked_less(VALUES[:, 0], 0.1)}, "sample_weight"),
        (SERIES, VALUES, {"mask": np.ma.masked_equal(np.ones((4, 3), int), 1)}, "mask"),
    ],
)
def test_masked_arrays_with_masked_values_are_refused(verb, x, y, options, name):
    with says(
        TypeError, f"{name} is a masked array", f"{name}.filled(0)", "mask=", "sample_weight="
    ):
        getattr(regressor(), verb)(x, y, **options)


def test_a_masked_array_without_masked_values_is_accepted():
    found = Adapter(regressor()).dataset(np.ma.masked_greater(SERIES, 5), np.ma.array(VALUES))
    assert type(found.data.inputs) is np.ndarray
    np.testing.assert_array_equal(found.data.inputs, SERIES)
    np.testing.assert_array_equal(found.data.targets, VALUES)
    with says(TypeError, "sequences[3] is a masked array"):
        seqnet.data.pad_sequences(list(MASKED))


@VERBS
@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        ([TOKENS, SERIES], ValueError, ["list of 2 arrays", "(4, 3, 2)", "one input"]),
        ([TOKENS, TOKENS], ValueError, ["list of 2 arrays", "one input"]),
        ([TOKENS, np.zeros((4, 7))], ValueError, ["list of 2 arrays", "(4, 7)", "one input"]),
        ({"text": TOKENS}, ValueError, ["the key 'text'", "has the input 'input_layer'"]),
        (deque(TOKENS.tolist()), TypeError, ["deque of 4", "X[start:stop]", "list(X)"]),
        (TOKENS.astype(object), TypeError, ["object", "np.asarray(X, 'int32')"]),
        (TOKENS * 0.5 + np.zeros((4, 3), object), TypeError, ["np.asarray(X, 'float32')"]),
        ([[None, 1, 2]] * 4, TypeError, ["holds None"]),
        (np.zeros((4, 3), "datetime64[s]"), TypeError, ["datetime64", "to numbers"]),
        (["abc"] * 4, TypeError, ["Convert text to numbers"]),
        ([np.zeros((2, 0)), np.zeros((3, 0))], ValueError, ["X[0] has an axis of size 0"]),
    ],
)
def test_inputs_that_are_not_arrays_are_refused_with_advice(verb, x, error, parts):
    with says(error, "X", *parts):
        getattr(classifier(), verb)(x, CLASSES)


@pytest.mark.parametrize(
    "X", [[["a b", "c"], np.zeros((2, 3))], [["a", "b"], [1.0, 2.0]], ["a", 2.0]], ids=str
)
def test_text_and_numbers_are_two_inputs(X, no_compile):
    model = seqnet.Model([seqnet.layers.LSTM(2), seqnet.layers.Dense(1)])
    with pytest.raises(TypeError, match=r"list of text and numbers, but the model has one input"):
        model.fit(X, np.zeros((2, 1)), verbose=0)


def test_several_inputs_to_predict_are_refused():
    with says(ValueError, "X is a list of 2 arrays", "one input"):
        classifier().predict([TOKENS, SERIES])


def test_a_series_of_lists_is_refused_with_advice():
    pandas = pytest.importorskip("pandas")
    for rows in (TOKENS.tolist(), [[1, 2, 3], [1], [2, 2], [3]]):
        with says(TypeError, "X", "Series", "X.tolist()"):
            classifier().fit(pandas.Series(rows), CLASSES)
    found = Adapter(classifier()).dataset(pandas.Series(TOKENS.tolist()).tolist(), CLASSES)
    np.testing.assert_array_equal(found.data.inputs, TOKENS)


# ----------------------------------------------------------------------------- the targets


@VERBS
@pytest.mark.parametrize(
    ("y", "error", "parts"),
    [
        (np.array([0, 1, 3, 1]), ValueError, ["y holds class 3 at (2,)", "3 classes", "0 to 2"]),
        (np.array([0, -1, 1, 1]), ValueError, ["y holds class -1 at (1,)"]),
        (np.eye(3)[CLASSES], TypeError, ["integer class numbers", "float64", "astype('int32')"]),
        (
            np.eye(3, dtype=int)[CLASSES],
            ValueError,
            ["one class number", "(batch,)", "categorical_crossentropy"],
        ),
        (TOKENS % 3, ValueError, ["one class number for each prediction", "(4, 3)"]),
        (CLASSES[:3], ValueError, ["same number of samples", "4 in X", "3 in y"]),
        (["a", "b", "c", "a"], TypeError, ["y", "numbers"]),
        ([[0], [1, 2], [0], [1]], ValueError, ["y", "not rectangular", "y[0] has 1 entries"]),
    ],
)
def test_targets_that_do_not_fit_the_sparse_loss_are_refused(verb, y, error, parts):
    with says(error, *parts):
        getattr(classifier(), verb)(TOKENS, y)


@VERBS
@pytest.mark.parametrize(
    ("y", "error", "parts"),
    [
        (np.zeros((4, 3, 1)), ValueError, ["mean_squared_error", "(batch, 1)", "(4, 3, 1)"]),
        (np.array([[0], [np.inf], [1], [1]]), ValueError, ["y holds inf at (1, 0)"]),
        (np.array([[0], [0], [np.nan], [1]]), ValueError, ["y holds nan at (2, 0)"]),
    ],
)
def test_targets_that_do_not_fit_the_squared_error_are_refused(verb, y, error, parts):
    with says(error, *parts):
        getattr(regressor(), verb)(SERIES, y)


@VERBS
@pytest.mark.parametrize(
    ("y", "parts"),
    [
        ([[1], [-1], [1], [1]], ["y holds -1 at (1, 0)", "from 0 to 1", "(y == 1)"]),
        ([[0], [0], [255], [0]], ["y holds 255 at (2, 0)", "from 0 to 1", "(y == 255)"]),
        ([[1], [2], [1], [1]], ["y holds 2 at (1, 0)", "from 0 to 1", "(y == 2)"]),
        ([[0.5], [1.5], [0.1], [1]], ["y holds 1.5 at (1, 0)", "the probability of class 1"]),
    ],
)
def test_targets_of_the_binary_cross_entropy_must_be_from_0_to_1(verb, y, parts):
    model = seqnet.Model([LSTM(2), Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    with says(ValueError, "binary_crossentropy", *parts):
        getattr(model, verb)(SERIES, np.array(y))


@VERBS
@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ([1, 1, 0], ["y has a row at (2,) that adds up to 2", "binary_crossentropy"]),
        ([0, 0, 0], ["y has a row at (2,) that adds up to 0", "the sample_weight 0"]),
        ([0.0, 255.0, 0.0], ["y has a row at (2,) that adds up to 255"]),
        ([0.9, 0.0, 0.0], ["y has a row at (2,) that adds up to 0.9"]),
        ([1.5, -0.5, 0.0], ["y holds -0.5 at (2, 1)"]),
    ],
)
def test_targets_of_the_categorical_cross_entropy_must_be_distributions(verb, row, parts):
    y = np.eye(3)[CLASSES]
    y[2] = row
    model = classifier()
    model.compile("sgd", "categorical_crossentropy")
    with says(ValueError, "categorical_crossentropy takes probabilities", *parts):
        getattr(model, verb)(TOKENS, y)


@pytest.mark.parametrize(
    "row",
    [
        np.eye(3, dtype=bool)[1],
        np.float32([0.2, 0.3, 0.5]) * np.float32(0.9) + np.float32(0.1 / 3),
        [0.333, 0.333, 0.333],
        [1 + 1e-7, -1e-7, 0],
    ],
)
def test_distributions_may_be_rounded(row):
    model = classifier()
    model.compile("sgd", "categorical_crossentropy")
    Adapter(model).dataset(TOKENS, np.array([row] * 4))


@pytest.mark.parametrize("classes", [3, 50_000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_distributions_may_have_low_precision(classes, dtype):
    rows = np.random.default_rng(0).dirichlet(np.ones(classes), 2).astype(dtype)
    seqnet.losses.CategoricalCrossentropy().check_targets(rows, (None, classes), "y")


@pytest.mark.parametrize(
    ("loss", "activation", "allowed"),
    [
        ("categorical_crossentropy", "softmax", np.eye(3)[TOKENS % 3]),
        ("binary_crossentropy", "sigmoid", np.ones((4, 3, 3))),
    ],
)
@pytest.mark.parametrize("how", ["mask", "step weights", "row weights", "lengths", "mask_zero"])
def test_targets_without_weight_may_have_any_value(loss, activation, allowed, how):
    mask_zero = how == "mask_zero"
    recurrent = LSTM(2, return_sequences=True)
    model = seqnet.Model([Embedding(5, 3, mask_zero=mask_zero), recurrent, Dense(3, activation)])
    model.compile("sgd", loss)
    there = np.array([[True, True, False]] * 4)
    options = {
        "mask": {"mask": there},
        "step weights": {"sample_weight": there.astype(float)},
        "row weights": {"sample_weight": np.array([1.0, 1.0, 1.0, 0.0])},
        "lengths": {"lengths": [2, 2, 2, 2]},
        "mask_zero": {},
    }[how]
    if how == "row weights":
        there = np.array([[True] * 3] * 3 + [[False] * 3])
    for other in (0.0 if loss[0] == "c" else 7.0, 255.0, -1.0, np.nan):
        y = np.where(there[..., None], allowed, other)
        Adapter(model).dataset(np.where(there, TOKENS % 4 + 1, 0), y, **renamed(options))
    y[1, 1] = 7
    with says(ValueError, "y", "7" if loss[0] == "b" else "21"):
        Adapter(model).dataset(np.where(there, TOKENS % 4 + 1, 0), y, **renamed(options))


def renamed(options):
    """Return options of `fit` under the names of `Adapter.dataset`."""
    return {"weight" if k == "sample_weight" else k: v for k, v in options.items()}


def test_a_loss_used_as_a_metric_checks_its_targets():
    model = seqnet.Model([LSTM(2), Dense(1, "sigmoid")])
    model.compile("sgd", "mse", metrics=["binary_crossentropy"])
    with says(ValueError, "y holds -1.0 at (0, 0)", "binary_crossentropy"):
        model.fit(SERIES, VALUES * 2 - 1)
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["mse"])
    with says(ValueError, "mean_squared_error compares y", "(batch, 3)"):
        model.fit(TOKENS, CLASSES)


def test_integer_targets_of_the_dense_cross_entropy_get_a_hint():
    model = classifier()
    model.compile("sgd", "categorical_crossentropy")
    with says(ValueError, "categorical_crossentropy", "use sparse_categorical_crossentropy"):
        model.fit(TOKENS, CLASSES)


def test_class_numbers_are_not_compared_with_several_outputs():
    model = classifier()
    for loss in ("mse", "binary_crossentropy"):
        model.compile("sgd", loss)
        with says(ValueError, "3 numbers", "sparse_categorical_crossentropy"):
            model.fit(TOKENS, CLASSES)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "binary_crossentropy"])
@pytest.mark.parametrize(
    "last",
    [
        lambda: [Dense(3)],
        lambda: [Dense(3, "relu")],
        lambda: [Dense(3), layers.Activation("log_softmax")],
        lambda: [layers.RepeatVector(3), layers.TimeDistributed(Dense(3, "tanh"))],
    ],
)
def test_a_cross_entropy_without_probabilities_is_refused(last, loss):
    model = seqnet.Model([Embedding(5, 3), LSTM(2), *last()])
    model.compile("sgd", loss)
    y = np.zeros(model.compute_output_shape((4, 3)), int)
    y = y if loss[0] == "b" else y[..., 0]
    with says(ValueError, "takes probabilities", "ends with the activation", "from_logits=True"):
        model.fit(TOKENS, y)


def test_from_logits_after_a_softmax_is_refused():
    model = classifier()
    model.compile("sgd", seqnet.losses.SparseCategoricalCrossentropy(from_logits=True))
    with says(ValueError, "before a softmax", "dense", "remove one of the two"):
        model.fit(TOKENS, CLASSES)


@pytest.mark.parametrize("last", [Dense(3, lambda x: x / x.sum(-1)), layers.Lambda(abs)])
def test_custom_activations_may_return_probabilities(last):
    model = seqnet.Model([Embedding(5, 3), LSTM(3), last])
    model.compile("sgd", "sparse_categorical_crossentropy")
    Adapter(model).dataset(TOKENS, CLASSES)


def test_a_custom_loss_is_protected_from_infinite_targets():
    model = regressor()
    model.compile("sgd", lambda y, p: pt.mean(pt.abs(y - p), axis=-1))
    with says(ValueError, "y holds inf at (1, 0)"):
        model.fit(SERIES, np.array([[0], [np.inf], [1], [1]]))


# ---------------------------------------------------------------------- weights and masks


@VERBS
@pytest.mark.parametrize(
    ("weight", "error", "parts"),
    [
        (np.ones(3), ValueError, ["sample_weight", "4 in X", "3 in sample_weight"]),
        (np.ones((4, 2)), ValueError, ["sample_weight", "(4,)", "got (4, 2)"]),
        (np.array([1, -1, 1, 1]), ValueError, ["sample_weight", "not negative"]),
        (np.array([1, np.nan, 1, 1]), ValueError, ["sample_weight", "finite"]),
        (["a"] * 4, TypeError, ["sample_weight", "numbers"]),
    ],
)
def test_wrong_sample_weights_are_refused(verb, weight, error, parts):
    with says(error, *parts):
        getattr(classifier(), verb)(TOKENS, CLASSES, sample_weight=weight)


def test_weights_for_each_step_must_have_the_length_of_the_sequences():
    model = seqnet.Model([Embedding(5, 3), LSTM(2, return_sequences=True), Dense(5)])
    model.compile("sgd", seqnet.losses.SparseCategoricalCrossentropy(from_logits=True))
    with says(ValueError, "sample_weight", "(4,) or (4, 3)", "(4, 2)"):
        model.fit(TOKENS, TOKENS, sample_weight=np.ones((4, 2)))


def test_a_mask_must_have_the_shape_of_samples_and_steps():
    with says(ValueError, "mask", "(samples, time)", "(4, 3)", "got (4, 2)"):
        regressor().fit(SERIES, VALUES, mask=np.ones((4, 2), bool))
    with says(ValueError, "mask", "(4, 3)", "got (3, 4)"):
        regressor().predict(SERIES, mask=np.ones((3, 4), bool))


@VERBS
@pytest.mark.parametrize(
    ("mask", "error", "parts"),
    [
        (np.ones((4, 3)), TypeError, ["float64", "mask.astype(bool)"]),
        (np.full((4, 3), 0.3), TypeError, ["float64"]),
        (np.array([[1, 1, 0]] * 3 + [[1, 2, 0]]), ValueError, ["holds 2 at (3, 1)"]),
        (np.array([[1, -1, 0]] * 4), ValueError, ["holds -1 at (0, 1)"]),
    ],
)
def test_a_mask_must_hold_bools(verb, mask, error, parts):
    with says(error, "mask must hold bools", "0 and 1", *parts):
        getattr(regressor(), verb)(SERIES, VALUES, mask=mask)


def test_a_mask_may_hold_zeros_and_ones():
    mask = np.array([[1, 1, 0]] * 4, "uint8")
    found = Adapter(regressor()).dataset(SERIES, VALUES, mask=mask)
    assert found.data.mask.dtype == bool
    np.testing.assert_array_equal(found.data.mask, mask)


def test_a_mask_of_sequences_must_hold_bools():
    with says(ValueError, "mask[1] must hold bools", "holds 2 at (0,)"):
        tagger().fit(ROWS, TAGS, mask=[[1, 1, 0], [2], [1, 0]])
    with says(TypeError, "mask must hold bools", "float64"):
        tagger().fit(ROWS, TAGS, mask=[[1, 1, 0], [0.5], [1, 0]])


# ------------------------------------------------------------ sequences of different lengths

ROWS = [[1, 2, 3], [4], [0, 1]]
TAGS = [[0, 1, 2], [1], [2, 2]]


def tagger(**options):
    model = seqnet.Model(
        [
            Embedding(5, 3),
            LSTM(2, return_sequences=True, **options),
            Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@VERBS
@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        ([[1, 2, 3], [], [0, 1]], ValueError, ["X[1] is empty", "at least one step"]),
        ([[1, 2, 3], [4], [0, 5]], ValueError, ["X[2] holds 5 at (1,)", "embedding", "0 to 4"]),
        ([[1, 2, 3], [-1], [0, 1]], ValueError, ["X[1] holds -1 at (0,)", "0 to 4"]),
        ([[1, 2, 3], [2**40], [0, 1]], ValueError, ["X[1] holds", str(2**40)]),
        ([[1, 2, 3], [0.5], [0, 1]], ValueError, ["X[1] holds 0.5 at (0,)", "whole numbers"]),
        ([["a", "b"], ["c"], [1]], TypeError, ["X[0]", "numbers"]),
        ([[1, 2, 3], [None], [0, 1]], TypeError, ["X[1]", "numbers", "object"]),
        ([[1, 2, 3], [[4]], [0, 1]], ValueError, ["X[1]", "(1,)", "X[0]", "()"]),
        ([[1, 2, 3], [4], [[0], [1, 2]]], ValueError, ["X[2] is not rectangular"]),
        (ROWS[:2], ValueError, ["same number of samples", "2 in X", "3 in y"]),
    ],
)
def test_wrong_ragged_tokens_are_refused(verb, x, error, parts):
    with says(error, *parts):
        getattr(tagger(), verb)(x, TAGS)


@VERBS
@pytest.mark.parametrize(
    ("x", "parts"),
    [
        ([np.zeros((3, 2)), np.zeros((1, 4))], ["X[1]", "(4,)", "X[0]", "(2,)", "features"]),
        ([np.zeros((3, 2)), np.zeros((3, 4))], ["X[1]", "(4,)", "X[0]", "(2,)"]),
        ([np.zeros((3, 2)), np.zeros((0, 2))], ["X[1] is empty"]),
        ([np.zeros((3, 2)), np.full((1, 2), np.nan)], ["X[1] holds nan at (0, 0)", "Masking"]),
        ([np.zeros((3, 2)), np.full((1, 2), np.inf)], ["X[1] holds inf at (0, 0)"]),
        ([np.zeros(3), np.zeros(2)], ["lstm", "rank 3", "(batch, time, features)"]),
    ],
)
def test_wrong_ragged_series_are_refused(verb, x, parts):
    with says(ValueError, *parts):
        getattr(regressor(), verb)(x, np.zeros((2, 1)))


@VERBS
@pytest.mark.parametrize(
    ("y", "error", "parts"),
    [
        ([[0, 1, 2], [1, 1], [2, 2]], ValueError, ["y[1] has 2 steps", "X[1] has 1"]),
        ([[0, 1, 2], 1, [2, 2]], ValueError, ["y[1] is a single value", "X[1] has 1"]),
        (np.zeros((3, 3), int), ValueError, ["y[1] has 3 steps", "X[1] has 1"]),
        (np.zeros(3, int), ValueError, ["y[0] is a single value", "X[0] has 3"]),
        ([[0, 1, 2], [3], [2, 2]], ValueError, ["y[1] holds class 3 at (0,)", "3 classes"]),
        ([[0, 1, 2], [1], [2, -1]], ValueError, ["y[2] holds class -1 at (1,)"]),
        ([[0, 1, 2], [0.5], [2, 2]], TypeError, ["y", "integer class numbers"]),
        ([[0, 1, 2], [None], [2, 2]], TypeError, ["y[1]", "numbers"]),
        (TAGS[:2], ValueError, ["same number of samples", "3 in X", "2 in y"]),
        (3, TypeError, ["y must have one entry for each sequence", "3"]),
    ],
)
def test_ragged_targets_that_do_not_fit_are_refused(verb, y, error, parts):
    with says(error, *parts):
        getattr(tagger(), verb)(ROWS, y)


def test_ragged_targets_of_vectors():
    model = seqnet.Model([LSTM(2, return_sequences=True), Dense(1)])
    model.compile("sgd", "mse")
    x = [np.zeros((3, 2)), np.zeros((1, 2))]
    with says(ValueError, "y[1] holds nan at (0, 0)"):
        model.fit(x, [np.zeros((3, 1)), np.full((1, 1), np.nan)])
    with says(ValueError, "y[1] holds nan"):
        model.fit(x, [np.zeros(3), np.full(1, np.nan)])
    with says(ValueError, "The steps of y[1]", "(2,)", "y[0]", "(1,)"):
        model.fit(x, [np.zeros((3, 1)), np.zeros((1, 2))])


@VERBS
def test_targets_for_each_step_of_a_model_with_one_output_are_refused(verb):
    with says(ValueError, "y has sequences", "one output for each sequence", "return_sequences"):
        getattr(classifier(), verb)(ROWS, TAGS)


@VERBS
@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"sample_weight": [1, 2]}, ValueError, ["3 in X", "2 in sample_weight"]),
        ({"sample_weight": [1, -1, 1]}, ValueError, ["sample_weight", "not negative"]),
        ({"sample_weight": [[1, 1, 1], [1], [1]]}, ValueError, ["sample_weight[2] has 1 steps"]),
        ({"sample_weight": [[1, 1, 1], [-1], [1, 1]]}, ValueError, ["sample_weight[1]", "negat"]),
        ({"sample_weight": np.ones((3, 3))}, ValueError, ["sample_weight[1] has 3 steps"]),
        ({"sample_weight": [np.ones((k, 1)) for k in (3, 1, 2)]}, ValueError, ["one value"]),
        ({"sample_weight": 2.0}, TypeError, ["sample_weight", "one entry for each sequence"]),
        ({"mask": [[1, 1, 1], [1]]}, ValueError, ["3 in X", "2 in mask"]),
        ({"mask": np.ones((3, 3), bool)}, ValueError, ["mask[1] has 3 steps", "X[1] has 1"]),
        ({"mask": [True] * 3}, ValueError, ["mask[0] is a single value", "X[0] has 3"]),
        ({"lengths": [3, 1, 2]}, ValueError, ["lengths needs an array", "have their own"]),
    ],
)
def test_options_that_do_not_support_ragged_sequences_are_refused(verb, options, error, parts):
    with says(error, *parts):
        getattr(tagger(), verb)(ROWS, TAGS, **options)


@VERBS
@pytest.mark.parametrize("x", [TOKENS, TOKENS.tolist()], ids=["array", "list"])
@pytest.mark.parametrize("part", ["y", "sample_weight", "mask"])
def test_ragged_values_for_sequences_of_one_length_are_refused(verb, x, part):
    rows = [[1, 1, 1], [1, 1, 1], [1], [1, 1, 1]]
    options = {"y": TOKENS % 3, part: rows}
    with says(ValueError, f"{part}[2] has 1 entries", "X[2] has 3 steps"):
        getattr(tagger(), verb)(x, **options)


@VERBS
@pytest.mark.parametrize("x", [[[], []], [[]], [[1, 2], None], [3, [1, 2]]])
def test_an_invalid_sequence_is_named(verb, x):
    number = 0 if x[0] in ([], 3) else 1
    with says((ValueError, TypeError), f"X[{number}]"):
        getattr(tagger(), verb)(x, [[1]] * len(x))


def test_weights_for_each_step_of_a_model_with_one_output_are_refused():
    with says(ValueError, "sample_weight", "(3,)", "one output for each sequence"):
        classifier().fit(ROWS, CLASSES[:3], sample_weight=[[1, 1, 1], [1], [1, 1]])


@VERBS
@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"lengths": [3, 3, 0, 1]}, ValueError, ["lengths[2] is 0", "3 steps", "from 1 to 3"]),
        ({"lengths": [3, 4, 1, 1]}, ValueError, ["lengths[1] is 4", "from 1 to 3"]),
        ({"lengths": [3, -1, 1, 1]}, ValueError, ["lengths[1] is -1"]),
        ({"lengths": [3, 3, 3]}, ValueError, ["lengths", "(4,)", "got (3,)"]),
        ({"lengths": np.ones((4, 1), int)}, ValueError, ["lengths", "(4,)", "got (4, 1)"]),
        ({"lengths": [1.0, 2, 3, 1]}, TypeError, ["lengths", "integers", "float64"]),
        ({"lengths": "abcd"}, TypeError, ["lengths", "numbers"]),
        (
            {"lengths": [1, 2, 3, 1], "mask": np.ones((4, 3), bool)},
            ValueError,
            ["mask or lengths", "not both"],
        ),
        (
            {"lengths": [1, 2, 3, 1], "sample_weight": np.ones((4, 2))},
            ValueError,
            ["sample_weight", "(4, 3)", "(4, 2)"],
        ),
    ],
)
def test_wrong_lengths_are_refused(verb, options, error, parts):
    with says(error, *parts):
        getattr(tagger(), verb)(TOKENS, TOKENS % 3, **options)


def test_lengths_without_sequences_are_refused():
    with says(ValueError, "lengths[0] is 4", "from 1 to 3"):
        tagger().predict(TOKENS, lengths=[4, 1, 1, 1])
    with says(ValueError, "lengths needs sequences", "(4,)"):
        seqnet.Model([Dense(1)]).predict(np.zeros(4), lengths=[1, 1, 1, 1])
    with says(ValueError, "y must have the (samples, time) of X, (4, 3)", "(4, 2)"):
        tagger().fit(TOKENS, TOKENS[:, :2] % 3, lengths=[1, 2, 3, 1])
    with says(ValueError, "validation X[1] is empty"):
        tagger().fit(ROWS, TAGS, validation_data=([[1, 2], []], [[0, 1], []]))


def test_unmasked_values_are_checked_if_others_are_masked():
    mask = np.array([[True, True, False]] * 4)
    y = TOKENS % 3
    y[:, 2] = -1
    y[1, 1] = 7
    with says(ValueError, "y holds class 7 at (1, 1)"):
        tagger().fit(TOKENS, y, mask=mask)
    x = np.where(mask, TOKENS, 99)
    x[2, 0] = 5
    with says(ValueError, "X holds 5 at (2, 0)"):
        tagger().fit(x, TOKENS % 3, mask=mask)


# ------------------------------------------------------------------------ numbers for fit


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"batch_size": 0}, ValueError, ["batch_size", "at least 1", "0"]),
        ({"batch_size": 2.0}, TypeError, ["batch_size", "integer", "2.0"]),
        ({"batch_size": "2"}, TypeError, ["batch_size", "integer", "'2'"]),
        ({"batch_size": True}, TypeError, ["batch_size", "integer"]),
        ({"epochs": -1}, ValueError, ["epochs", "at least 0", "-1"]),
        ({"epochs": 1.5}, TypeError, ["epochs", "integer", "1.5"]),
        ({"initial_epoch": -1}, ValueError, ["initial_epoch"]),
        ({"validation_split": 1.0}, ValueError, ["validation_split", "1.0"]),
        ({"validation_split": -0.1}, ValueError, ["validation_split", "-0.1"]),
        ({"validation_split": 1e-18}, ValueError, ["validation_split", "4 samples", "nothing"]),
        ({"validation_split": 0.99}, ValueError, ["validation_split", "nothing to train"]),
        ({"validation_data": SERIES}, ValueError, ["validation_data", "(X, y)"]),
        ({"validation_data": (SERIES,)}, ValueError, ["validation_data", "(X, y)"]),
        (
            {"validation_data": (SERIES, VALUES[:2])},
            ValueError,
            ["validation X", "validation y", "4 in", "2 in"],
        ),
        (
            {"validation_data": (SERIES * np.nan, VALUES)},
            ValueError,
            ["validation X holds nan"],
        ),
        (
            {"validation_data": (SERIES, VALUES, -np.ones(4))},
            ValueError,
            ["validation sample_weight", "negative"],
        ),
        ({"callbacks": [print]}, TypeError, ["callbacks", "Callback"]),
        ({"callbacks": seqnet.callbacks.History()}, TypeError, ["callbacks", "list"]),
    ],
)
def test_wrong_options_of_fit_are_refused(options, error, parts):
    with says(error, *parts):
        regressor().fit(SERIES, VALUES, verbose=0, **options)


@pytest.mark.parametrize("size", [0, 1.5, "all"])
def test_wrong_batch_sizes_of_other_methods_are_refused(size):
    with pytest.raises((ValueError, TypeError), match="batch_size"):
        regressor().evaluate(SERIES, VALUES, batch_size=size)
    with pytest.raises((ValueError, TypeError), match="batch_size"):
        regressor().predict(SERIES, batch_size=size)


# ----------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: seqnet.Model().compile("sdg"), ["optimizer 'sdg'", "'sgd'"]),
        (lambda: seqnet.Model().compile("adamm"), ["optimizer 'adamm'", "'adam'"]),
        (
            lambda: seqnet.Model().compile("sgd", "categorical_crosentropy"),
            ["loss 'categorical_crosentropy'", "'categorical_crossentropy'"],
        ),
        (
            lambda: seqnet.Model().compile("sgd", "mse", metrics=["perplexty"]),
            ["metric 'perplexty'", "'perplexity'"],
        ),
        (
            lambda: seqnet.Model().compile("sgd", metrics=["acuracy"]),
            ["metric 'acuracy'", "accuracy"],
        ),
        (lambda: Dense(2, activation="sofmax"), ["activation 'sofmax'", "'softmax'"]),
        (
            lambda: Dense(2, kernel_initializer="ortogonal"),
            ["initializer 'ortogonal'", "'orthogonal'"],
        ),
        (lambda: Dense(2, kernel_regularizer="l3"), ["regularizer 'l3'", "Did you mean"]),
        (lambda: seqnet.registry.get("layer", "LTSM"), ["layer 'LTSM'", "'LSTM'"]),
        (lambda: seqnet.config.set_backend("cuda"), ["backend 'cuda'", "numba"]),
        (lambda: seqnet.config.set_floatx("float16"), ["float16", "float32"]),
        (lambda: Dense(2, dtype="int32"), ["int32", "float32"]),
    ],
)
def test_errors_for_unknown_names_suggest_the_closest_name(make, parts):
    with says(ValueError, *parts):
        make()


def test_metrics_must_be_a_list():
    with says(TypeError, "metrics takes a list", "['accuracy']"):
        regressor().compile("sgd", "mse", metrics="accuracy")


@pytest.mark.parametrize("thing", [3, None, [], object()])
def test_an_optimizer_must_be_a_name_or_an_object(thing):
    with pytest.raises(TypeError, match="optimizer"):
        regressor().compile(thing, "mse")


def test_a_layer_is_not_an_optimizer():
    with pytest.raises(TypeError, match="optimizer"):
        regressor().compile(Dense(2), "mse")


# --------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("units", [0, -3])
@pytest.mark.parametrize("cls", [Dense, SimpleRNN, LSTM, GRU])
def test_units_must_be_at_least_one(cls, units):
    with says(ValueError, cls.__name__, "at least 1", str(units)):
        cls(units)


@pytest.mark.parametrize("units", [2.5, "3", None, True])
@pytest.mark.parametrize("cls", [Dense, LSTM])
def test_units_must_be_an_integer(cls, units):
    with says(TypeError, "units", "integer", repr(units)):
        cls(units)


def test_a_vocabulary_size_must_be_an_integer():
    with says(ValueError, "input_dim", "at least 1", "0"):
        Embedding(0, 3)
    with says(TypeError, "input_dim", "integer"):
        Embedding(5.5, 3)
    with says(TypeError, "output_dim", "integer"):
        Embedding(5, "3")


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, np.nan])
def test_a_dropout_rate_must_be_below_one(rate):
    with says(ValueError, "rate", "[0, 1)", str(rate)):
        Dropout(rate)


def test_a_mask_value_must_be_finite():
    with says(ValueError, "mask_value", "finite"):
        Masking(np.nan)


@pytest.mark.parametrize("value", [None, "0", True])
def test_a_mask_value_must_be_a_number(value):
    with says(TypeError, "mask_value must be a number", repr(value)):
        Masking(value)


@pytest.mark.parametrize(
    ("function", "value", "error", "text"),
    [
        (seqnet.config.set_epsilon, "small", TypeError, "epsilon must be a number, got 'small'"),
        (seqnet.config.set_epsilon, None, TypeError, "epsilon must be a number"),
        (seqnet.config.set_epsilon, 0, ValueError, "above zero and below one, got 0"),
        (seqnet.config.set_epsilon, np.inf, ValueError, "above zero and below one, got inf"),
        (seqnet.config.set_floatx, None, ValueError, "float32 or float64, not in None"),
        (seqnet.config.set_floatx, 32, ValueError, "float32 or float64, not in 32"),
        (seqnet.config.set_backend, ["auto"], ValueError, "Unknown backend"),
    ],
)
def test_wrong_settings_are_refused(function, value, error, text):
    before = seqnet.config.epsilon(), seqnet.config.floatx(), seqnet.config.backend()
    with says(error, text):
        function(value)
    assert before == (seqnet.config.epsilon(), seqnet.config.floatx(), seqnet.config.backend())


def test_the_same_layer_twice_is_refused():
    layer = Dense(2, name="head")
    with says(ValueError, "'head'", "already in this model"):
        seqnet.Model([layer, layer])


def test_two_layers_with_the_same_name_are_refused():
    with says(ValueError, "already has a layer named 'head'"):
        seqnet.Model([Dense(2, name="head"), Dense(2, name="head")])


def test_a_model_accepts_only_layers():
    with says(TypeError, "layers", "'dense'"):
        seqnet.Model(["dense"])
    with says(TypeError, "layers", "Dense"):
        seqnet.Model([Dense])


def test_a_model_without_layers_is_refused():
    for verb in ("fit", "evaluate", "train_on_batch"):
        with says(ValueError, "no layers"):
            getattr(seqnet.Model(), verb)(SERIES, VALUES)
    with says(ValueError, "no layers"):
        seqnet.Model().predict(SERIES)
    with says(ValueError, "no layers"):
        seqnet.Model().build((None, 3))


def test_weights_of_a_model_that_is_not_built_are_refused():
    for call in (
        lambda model: model.get_weights(),
        lambda model: model.set_weights([]),
    ):
        with says(ValueError, "no weights", "input_shape=", "build", "fit or predict"):
            call(regressor())


def test_the_features_must_be_known_to_build():
    with says(ValueError, "'lstm'", "number of features", "input_shape="):
        regressor().build((None, None, None))
    with says(ValueError, "'lstm'", "number of features"):
        LSTM(2)(pt.ftensor3("x"))


def test_weights_of_other_shapes_change_nothing():
    model = regressor()
    model.build((None, None, 2))
    before = model.get_weights()
    wrong = [w + 1 for w in before]
    wrong[-1] = np.zeros((2, 2))
    with says(ValueError, "dense/bias", "(1,)", "(2, 2)"):
        model.set_weights(wrong)
    with says(ValueError, "5 weights", "1 arrays"):
        model.set_weights(before[:1])
    with says(ValueError, "lstm", "3 weights", "kernel", "2 arrays"):
        model.layers[0].set_weights(before[:2])
    with says(ValueError, "lstm/kernel", "numbers"):
        model.set_weights([np.full(before[0].shape, "a"), *before[1:]])
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_unrolling_needs_the_number_of_steps():
    x = pt.tensor("x", dtype="float32", shape=(None, None, 2))
    with says(ValueError, "'lstm'", "unroll=True", "number of steps", "input_shape=(steps, 2)"):
        LSTM(2, unroll=True)(x)
    with says(ValueError, "'lstm'", "unroll=True"):
        regressor(unroll=True)(x)


def test_fused_and_unroll_contradict_each_other():
    with says(ValueError, "fused=True", "unroll=True"):
        LSTM(2, fused=True, unroll=True)
    with says(ValueError, "fused", "'auto'", "'yes'"):
        LSTM(2, fused="yes")


def test_the_embedding_refuses_symbolic_floats():
    with says(TypeError, "embedding", "integers", "float32"):
        Embedding(5, 3)(pt.fmatrix("x"))


def test_an_initializer_must_give_the_right_shape():
    layer = Dense(2, kernel_initializer=lambda shape, dtype: np.zeros(3, dtype))
    with says(ValueError, "dense/kernel", "(3,)", "(4, 2)"):
        layer.ensure_built((None, 4))


def test_time_distributed_needs_a_time_axis():
    with says(ValueError, "time_distributed", "(batch, time, ...)", "(None, 2)"):
        seqnet.Model([layers.TimeDistributed(Dense(2))]).build((None, 2))


def test_a_noise_shape_has_the_rank_of_the_input():
    with says(ValueError, "noise_shape (None, 1)", "dropout", "rank 3"):
        Dropout(0.5, noise_shape=(None, 1))(pt.ftensor3("x"), training=True)


# ------------------------------------------------------------------------------ optimizers


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: optimizers.SGD(-0.1), ValueError, ["learning_rate", "at least 0", "-0.1"]),
        (lambda: optimizers.SGD(np.nan), ValueError, ["learning_rate", "nan"]),
        (lambda: optimizers.SGD(np.inf), ValueError, ["learning_rate", "inf"]),
        (lambda: optimizers.SGD("0.1"), TypeError, ["learning_rate", "number", "'0.1'"]),
        (lambda: optimizers.SGD(None), TypeError, ["learning_rate", "number", "None"]),
        (lambda: optimizers.SGD(momentum=1.0), ValueError, ["momentum", "below 1.0", "1.0"]),
        (lambda: optimizers.Adam(beta_1=1.0), ValueError, ["beta_1", "below 1.0"]),
        (lambda: optimizers.RMSprop(rho=-0.1), ValueError, ["rho", "at least 0"]),
        (lambda: optimizers.Adagrad(epsilon=-1e-9), ValueError, ["epsilon"]),
        (
            lambda: optimizers.Adagrad(initial_accumulator_value=-1),
            ValueError,
            ["initial_accumulator_value", "negative"],
        ),
        (lambda: optimizers.SGD(clipvalue=-1), ValueError, ["clipvalue", "above 0", "-1"]),
        (lambda: optimizers.SGD(clipnorm=0), ValueError, ["clipnorm", "above 0"]),
        (lambda: optimizers.SGD(global_clipnorm=0), ValueError, ["global_clipnorm", "above 0"]),
        (
            lambda: optimizers.SGD(clipnorm=1, clipvalue=1),
            ValueError,
            ["Only one of", "clipvalue and clipnorm"],
        ),
        (
            lambda: optimizers.Adam(clipnorm=1, global_clipnorm=1),
            ValueError,
            ["Only one of", "clipnorm and global_clipnorm"],
        ),
    ],
)
def test_wrong_hyperparameters_are_refused(make, error, parts):
    with says(error, *parts):
        make()


def test_wrong_hyperparameters_are_refused_when_set_later():
    optimizer = optimizers.SGD(0.1, momentum=0.5)
    with says(ValueError, "learning_rate", "-1"):
        optimizer.learning_rate = -1
    with says(ValueError, "momentum", "2"):
        optimizer.momentum = 2
    assert (optimizer.learning_rate, optimizer.momentum) == (0.1, 0.5)


# ------------------------------------------------------------------------------ common mistakes


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (
            lambda: LSTM(4, return_sequence=True),
            TypeError,
            ["LSTM takes no argument 'return_sequence'", "Did you mean 'return_sequences'?"],
        ),
        (lambda: optimizers.SGD(rate=1), TypeError, ["SGD takes no argument 'rate'"]),
        (lambda: seqnet.Model(LSTM(3)), TypeError, ["takes a list of layers", "LSTM"]),
        (lambda: seqnet.Model([LSTM(3)], Dense(2)), TypeError, ["in one list", "Dense"]),
        (lambda: seqnet.set_random_seed("a"), TypeError, ["seed must be an integer"]),
        (lambda: EarlyStopping("loss", min_delta="a"), TypeError, ["min_delta", "number", "'a'"]),
    ],
)
def test_mistakes_in_constructor_arguments_are_refused(make, error, parts):
    with says(error, *parts):
        make()


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"verbose": 3}, ValueError, ["verbose is 0 (silent), 1", "2", "got 3"]),
        ({"verbose": "yes"}, ValueError, ["verbose", "'yes'"]),
        ({"validation_split": "0.1"}, TypeError, ["validation_split must be a number", "'0.1'"]),
        ({"validation_data": TOKENS}, ValueError, ["validation_data", "array of shape (4, 3)"]),
        ({"validation_data": (TOKENS,)}, ValueError, ["validation_data", "tuple of 1"]),
        ({"callbacks": EarlyStopping("loss")}, TypeError, ["one EarlyStopping; put it in a list"]),
        ({"callbacks": [EarlyStopping]}, TypeError, ["Make one: EarlyStopping(...)"]),
        ({"class_weight": {0: "a"}}, TypeError, ["The weight of class 0 must be a number", "'a'"]),
    ],
)
def test_mistakes_in_arguments_of_fit_are_refused(options, error, parts):
    with says(error, *parts):
        classifier().fit(TOKENS, CLASSES, **options)


def test_the_error_for_a_missing_y_describes_the_input():
    with says(ValueError, "y is missing", "tuple of 2", "one after the other"):
        classifier().fit((TOKENS, CLASSES))
    with says(ValueError, "y is missing", "function", "Call it"):
        classifier().fit(lambda: iter([(TOKENS, CLASSES)]))


def test_the_error_of_a_layer_that_needs_steps_says_how_to_get_them():
    with says(ValueError, "lstm_1", "rank 3", "return_sequences=True", "Embedding"):
        seqnet.Model([LSTM(2), LSTM(2)]).fit(SERIES, VALUES)


def test_errors_for_targets_of_another_shape_say_how_to_get_such_outputs():
    with says(ValueError, "(batch, 3, 1)", "(4, 1)", "return_sequences=False"):
        regressor(return_sequences=True).fit(SERIES, VALUES)
    with says(ValueError, "got (4, 2)", "return_sequences=True"):
        classifier().fit(TOKENS[:, :2], TOKENS[:, :2] % 3)


def test_one_softmax_unit_for_two_classes_is_refused():
    model = seqnet.Model([LSTM(2), Dense(1, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with says(ValueError, "y holds class 1", "one unit", "sigmoid"):
        model.fit(SERIES, CLASSES % 2)


# ------------------------------------------------------- data preparation, losses, metrics


@pytest.mark.parametrize(
    ("given", "error", "parts"),
    [
        (None, TypeError, ["sequences must be a list of sequences", "None"]),
        (["ab", "c"], TypeError, ["sequences[0] is 'ab'"]),
        ([["a"], ["b"]], TypeError, ["sequences[0]", "Convert text to numbers"]),
        ([[1], [None, 2]], TypeError, ["sequences[1]", "holds None"]),
        ([[1], [2j]], TypeError, ["sequences[1]", "complex128"]),
        ([[1], [2**40]], ValueError, [f"sequences[1] holds {2**40}"]),
        ([[[1], [1, 2]]], ValueError, ["sequences[0] is not rectangular"]),
    ],
)
def test_wrong_sequences_to_pad_are_refused(given, error, parts):
    with says(error, *parts):
        seqnet.data.pad_sequences(given)


def test_sequences_to_pad_may_come_from_a_generator():
    rows = ([1] * n for n in (1, 2))
    assert seqnet.data.pad_sequences(rows).tolist() == [[0, 1], [1, 1]]
    with says(TypeError, "value must be a number", "'x'"):
        seqnet.data.pad_sequences([[1]], value="x")


@pytest.mark.parametrize(
    ("given", "error", "parts"),
    [
        (([0.5], 1, 3), TypeError, ["starts must hold integers", "float64"]),
        (([0], 1.5, 3), TypeError, ["lengths must hold integers"]),
        (([0], [np.nan], 3), TypeError, ["lengths must hold integers"]),
        (([0], 1, 3.0), TypeError, ["time must hold integers"]),
        (([0, 1], [1, 1, 1], 3), ValueError, ["lengths must have the shape (2,), got (3,)"]),
        (([[0]], 1, 3), ValueError, ["starts must have the shape (1,), got (1, 1)"]),
        (("a", 1, 3), TypeError, ["starts must be an array of numbers"]),
    ],
)
def test_wrong_ranges_of_steps_are_refused(given, error, parts):
    with says(error, *parts):
        seqnet.data.range_weights(*given)


LABELS = TOKENS % 3


@VERBS
@pytest.mark.parametrize(
    ("y", "weight", "error", "parts"),
    [
        ((5, [1] * 4, [0] * 4), None, TypeError, ["y[0] must hold labels for each step, got 5"]),
        ((LABELS, [1.5] * 4, [0] * 4), None, TypeError, ["y[1] must hold integers"]),
        ((LABELS, [1] * 4, [0.0] * 4), None, TypeError, ["y[2] must hold integers"]),
        ((LABELS, [1] * 4, [0] * 4), [1, None, 1, 1], TypeError, ["sample_weight", "holds None"]),
        ((LABELS, [1] * 4, [0] * 4), [1, -1, 1, 1], ValueError, ["sample_weight[1]", "holds -1"]),
        (
            (LABELS, [1] * 4, [0] * 4),
            np.ones((4, 2)),
            ValueError,
            ["sample_weight[0] has the shape (2,)", "X[0] has 3 steps"],
        ),
    ],
)
def test_wrong_targets_of_masked_loss_are_refused(verb, y, weight, error, parts):
    model = tagger()
    model.compile("sgd", "masked_loss")
    with says(error, *parts):
        getattr(model, verb)(TOKENS, y, sample_weight=weight)


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (
            lambda: losses.CategoricalCrossentropy(label_smoothing=2),
            ValueError,
            ["from 0 to 1", "2"],
        ),
        (lambda: losses.CategoricalCrossentropy(label_smoothing="a"), TypeError, ["a number"]),
        (lambda: losses.BinaryCrossentropy(from_logits="no"), TypeError, ["from_logits", "'no'"]),
        (lambda: losses.MaskedLoss(from_logits=1), TypeError, ["from_logits", "True or False"]),
        (lambda: metrics.Perplexity(from_logits=None), TypeError, ["from_logits", "None"]),
        (lambda: metrics.BinaryAccuracy(threshold=None), TypeError, ["threshold", "a number"]),
        (lambda: metrics.BinaryAccuracy(threshold=np.nan), ValueError, ["threshold", "finite"]),
        (
            lambda: metrics.BinaryAccuracy(threshold=1.0).of_logits(),
            ValueError,
            ["in (0, 1), got 1.0"],
        ),
        (lambda: metrics.get(np.ones(2)), TypeError, ["A metric is given by name"]),
        (lambda: optimizers.SGD(1j), TypeError, ["learning_rate must be a number"]),
    ],
)
def test_wrong_arguments_of_losses_and_metrics_are_refused(make, error, parts):
    with says(error, *parts):
        make()


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"verbose": np.array([1, 2])}, ValueError, ["verbose is 0 (silent)"]),
        ({"validation_freq": []}, ValueError, ["validation_freq is an empty list"]),
    ],
)
def test_lists_as_options_are_refused(options, error, parts):
    with says(error, *parts):
        regressor().fit(SERIES, VALUES, **options)


AB = CharacterVocabulary("ab")


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: CharacterVocabulary(None), TypeError, ["made of characters", "None"]),
        (lambda: CharacterVocabulary([1, 2]), TypeError, ["holds characters, got 1"]),
        (lambda: AB.encode(3), TypeError, ["encodes text, got 3"]),
        (lambda: AB.decode([0, -1]), ValueError, ["numbers[1] is -1", "0 to 1"]),
        (lambda: AB.decode([7]), ValueError, ["numbers[0] is 7"]),
        (lambda: AB.decode([0.7]), TypeError, ["integers", "float64"]),
        (lambda: AB.decode([[0, 1]]), TypeError, ["one sequence", "(1, 2)"]),
        (lambda: next_step_examples("abc", 1), TypeError, ["numbers", "Convert text"]),
        (lambda: bigram_cross_entropy([0, -1], [0, 1], 2), ValueError, ["train[1] is -1"]),
        (lambda: bigram_cross_entropy([0, 1], [0, 5], 2), ValueError, ["test[1] is 5"]),
        (lambda: bigram_cross_entropy([0, 1], [0], 2), ValueError, ["test has 1 numbers"]),
    ],
)
def test_text_instead_of_numbers_is_refused(call, error, parts):
    with says(error, *parts):
        call()


def test_decoding_takes_arrays_and_iterators():
    assert AB.decode(np.array([1, 0], "int32")) == AB.decode(iter([1, 0])) == "ba"
    assert AB.decode([]) == ""
