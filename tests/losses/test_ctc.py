"""The CTC loss: PyTorch's values, a sum over all alignments, masks, bad labels, decoding."""

import itertools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import load_arrays

import seqnet
from seqnet import backend
from seqnet.generation import ctc_beam_search_decode, ctc_greedy_decode
from seqnet.layers import LSTM, Conv1D, Dense, Embedding, Masking
from seqnet.losses import CTC
from seqnet.ops.ctc import CTCLoss

TORCH = load_arrays("ctc")


def merged(path, blank):
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def log_probabilities_of_labels(logits, blank):
    """Return the log probability of all label sequences for logits (time, classes)."""
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    found = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        score = sum(log_p[t, k] for t, k in enumerate(path))
        labels = merged(path, blank)
        found[labels] = np.logaddexp(found.get(labels, -np.inf), score)
    return found


def compiled(loss, dtype):
    """Return a function of labels, logits, mask and factors: the values, and the gradient."""
    y, x, mask, factors = pt.imatrix(), pt.tensor3(dtype=dtype), pt.matrix(dtype="bool"), None
    factors = pt.vector(dtype=dtype)
    values = loss.call(y, x, mask)
    gradient = pytensor.grad(pt.sum(pt.switch(pt.isinf(values), 0, values) * factors), x)
    return backend.compile([y, x, mask, factors], [values, gradient], name="ctc")


@pytest.mark.parametrize("case", ["ctc", "ctc_last_blank"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", ["auto", pytest.param("numpy", marks=pytest.mark.slow)])
def test_values_and_gradients_are_pytorchs(case, dtype, how):
    seqnet.config.set_backend(how)
    arrays = TORCH[case]
    x, blank = arrays["logits"].astype(dtype), 0 if case == "ctc" else 10
    mask = np.arange(x.shape[1]) < arrays["steps"][:, None]
    x = np.where(mask[..., None], x, np.nan).astype(dtype)  # padding may hold anything
    function = compiled(CTC(mask_index=blank), dtype)
    labels, factors = arrays["labels"].astype("int32"), arrays["cotangent"].astype(dtype)
    values, gradient = function(labels, x, mask, factors)
    close = {"rtol": 1e-10, "atol": 1e-10} if dtype == "float64" else {"rtol": 1e-5, "atol": 2e-5}
    np.testing.assert_allclose(values, arrays["losses"], **close)
    np.testing.assert_allclose(gradient, arrays["d_logits"], **close)


@pytest.mark.parametrize("how", ["auto", "numpy"])
def test_values_and_gradients_are_sums_over_all_alignments(how):
    """Masks have holes; sequences without steps, without labels, and with too many labels."""
    seqnet.config.set_backend(how)
    rng = np.random.default_rng(0)
    x = 2 * rng.normal(size=(6, 4, 3))
    rows = ["1111", "1011", "0000", "0110", "1101", "1111"]
    mask = np.array([list(row) for row in rows]) == "1"
    y = np.array([[1, 2, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 0], [-1, -1, -1]], "int32")
    factors = np.arange(1.0, 7)
    values, gradient = compiled(CTC(), "float64")(y, x, mask, factors)

    def enumerated(x):
        found = [log_probabilities_of_labels(row[on], 0) for row, on in zip(x, mask, strict=True)]
        targets = [tuple(k for k in row if k > 0) for row in y]
        return np.array([-p.get(t, -np.inf) for p, t in zip(found, targets, strict=True)])

    expected = enumerated(x)
    assert np.isinf(expected).tolist() == [False, False, False, True, False, False]
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)
    for place in np.ndindex(x.shape):
        beside = [x.copy(), x.copy()]
        beside[0][place] += 1e-5
        beside[1][place] -= 1e-5
        with np.errstate(invalid="ignore"):
            slope = (enumerated(beside[0]) - enumerated(beside[1]))[place[0]] / 2e-5
        slope = 0.0 if np.isnan(slope) else slope
        assert gradient[place] == pytest.approx(factors[place[0]] * slope, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_are_the_graph_at_sizes_around_vectors(dtype):
    rng = np.random.default_rng(0)
    x, mask, y, n = pt.tensor3(dtype=dtype), pt.matrix(dtype="bool"), pt.imatrix(), pt.ivector()
    node = CTCLoss(0).make_node(x, mask, y, n)
    functions = []
    for how in ("numpy", "auto"):
        seqnet.config.set_backend(how)
        functions.append(backend.compile([x, mask, y, n], node.outputs, name="ctc"))
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 1e-4, "atol": 2e-5}
    for classes, length in ((2, 1), (7, 2), (8, 3), (9, 4), (17, 7), (33, 8), (40, 9), (5, 0)):
        logits = rng.normal(size=(12, 20, classes)).transpose(1, 0, 2)  # time-major memory
        logits = np.ascontiguousarray(logits).transpose(1, 0, 2).astype(dtype)
        on = rng.random((12, 20)) < 0.9
        labels = rng.integers(1, classes, (12, length)).astype("int32")
        lengths = rng.integers(0, length + 1, 12).astype("int32")
        graph, kernel = [f(logits, on, labels, lengths) for f in functions]
        for one, other in zip(graph, kernel, strict=True):
            np.testing.assert_allclose(one, other, **close)


def test_long_sequences_do_not_underflow():
    """The sure labels of 4,000 steps in float32; of steps without any knowledge, the exact loss."""
    time, classes = 4000, 3
    x = np.zeros((2, time, classes), "float32")
    path = np.tile([1, 1, 0, 2], time // 4)
    x[0] = 80 * np.eye(classes)[path]
    y = np.full((2, time // 2), -1, "int32")
    y[0] = np.tile([1, 2], time // 4)
    y[1, 0] = 1
    mask, factors = np.ones((2, time), bool), np.ones(2, "float32")
    values, gradient = compiled(CTC(), "float32")(y, x, mask, factors)
    expected = time * np.log(3) - np.log(time * (time + 1) / 2)  # all paths 0..0 1..1 0..0
    np.testing.assert_allclose(values, [0, expected], rtol=1e-6, atol=1e-6)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[0], 0, atol=1e-6)


def test_arrays_zero_infinity_and_names():
    x = np.zeros((2, 4, 3))
    assert seqnet.losses.ctc([[1, 2, 0], [1, 1, 1]], x)[1] == np.inf
    assert CTC(zero_infinity=True, reduction="none")([[1, 2, 0], [1, 1, 1]], x)[1] == 0
    loss = seqnet.losses.get("ctc")
    assert (loss.name, loss.get_config()["mask_index"]) == ("ctc", 0)
    with pytest.raises(ValueError, match=r"mask_index=3, but there are 3 classes"):
        CTC(mask_index=3)([[1]], x[:1])
    with pytest.raises(ValueError, match="batch, length"):
        CTC()([1], x[:1])
    with pytest.raises(ValueError, match="mask_index"):
        CTC(mask_index=-1)


# ---- in a model


def speech():
    """Sequences of class numbers, and their labels: each is held for some steps."""
    rng = np.random.default_rng(0)
    labels = [rng.integers(1, 4, rng.integers(1, 5)) for _ in range(32)]
    return [np.stack([y, 0 * y], axis=1).ravel() for y in labels], labels


def listener(*last, **options):
    layers = [Embedding(4, 6), LSTM(8, return_sequences=True), Dense(4, *last)]
    model = seqnet.Model(layers)
    model.compile(seqnet.optimizers.Adam(0.05), CTC(**options))
    return model


def test_training_on_lists_arrays_and_files(tmp_path):
    X, y = speech()
    model = listener()
    losses = model.fit(X, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.75 * losses[0]
    found = model.evaluate(X, y)
    arrays = [seqnet.data.pad_sequences(values, padding="post") for values in (X, y)]
    mask = np.arange(arrays[0].shape[1]) < np.array([[len(x)] for x in X])
    assert model.evaluate(*arrays, lengths=mask.sum(axis=1)) == pytest.approx(found, rel=1e-6)
    assert model.evaluate(*arrays, mask=mask) == pytest.approx(found, rel=1e-6)
    model.save(tmp_path / "model.h5")
    assert seqnet.load_model(tmp_path / "model.h5").evaluate(X, y) == found
    half = model.evaluate(X, y, sample_weight=np.arange(32) < 16)
    assert half == pytest.approx(model.evaluate(X[:16], y[:16]), rel=1e-6)
    softmax = listener("softmax")
    softmax.build((None, None))
    softmax.set_weights(model.get_weights())
    softmax.compile("adam", "ctc", metrics=["ctc"])
    assert softmax.evaluate(X, y) == pytest.approx([found, found], rel=1e-5)


def test_padding_and_holes_change_nothing():
    """Masked steps change neither the loss nor an update: inputs of more padding, and of holes."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4, 6, 3)), np.array([[1, 2], [2, 0], [1, 0], [1, 1]])
    holes = np.full((4, 12, 3), 7.0)
    holes[:, [0, 2, 3, 5, 8, 9]] = X
    results = []
    for inputs in (X, holes):
        seqnet.set_random_seed(1)
        model = seqnet.Model([Masking(7.0), Dense(3)])
        model.compile("sgd", "ctc")
        results.append((model.train_on_batch(inputs, y), *model.get_weights()))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


X6 = np.zeros((2, 6), int)


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        (X6, [[1, 2, 1, 2, 1, 2, 1], [1]], {}, r"y\[0\] has 7 labels, .* 7 \+ 0 steps.* 6 "),
        (X6, [[1], [2, 2, 2, 2]], {}, r"y\[1\] has 4 labels, 3 of them equal .* 4 \+ 3 steps"),
        (X6, [[1], [1, 2, 1]], {"lengths": [6, 2]}, r"y\[1\] has 3 labels.*2 steps there"),
        (X6, [[1], [1, 2, 1]], {"mask": np.eye(2, 6, dtype=bool)}, r"y\[1\] has 3 .*1 steps there"),
        ([[0, 0], [0]], [[1, 2], [1, 2]], {}, r"y\[1\] has 2 labels.*1 steps there"),
        (X6, np.array([[0, 1], [1, 2]]), {}, r"y holds the blank .* at \(0, 0\), before"),
        (X6, np.array([[1, 4], [1, 2]]), {}, r"y holds class 4 at \(0, 1\), .* 4 classes, 0 to 3"),
        (X6, np.array([1, 2]), {}, r"takes labels of shape \(batch, length\)"),
        (X6, [[1.5], [1, 2]], {}, r"y\[0\] must be a sequence of class numbers"),
        (X6, np.array([[1], [2]]), {"sample_weight": np.ones((2, 6))}, "one weight for each seq"),
        (X6, [[1], [1, 2]], {"tbptt": 3}, "ctc is the loss of whole sequences"),
        (X6, [[1]], {}, "same number of samples"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_compiled(no_compile, X, y, options, message):
    with pytest.raises(ValueError, match=message):
        listener().fit(X, y, verbose=0, **options)


def test_labels_without_an_alignment_may_be_ignored():
    y = [[1, 2, 1, 2, 1, 2, 1], [1]]
    model = listener(zero_infinity=True)
    both = model.evaluate(X6, y)
    assert both == pytest.approx(model.evaluate(X6[1:], [[1]]) / 2, rel=1e-6)


def test_a_convolution_shortens_sequences():
    """Lengths that only the layers know are no false errors, and are used where they are known."""
    model = seqnet.Model([Embedding(4, 3), Conv1D(4, 2, strides=2, padding="same")])
    model.compile("sgd", "ctc")
    assert np.isfinite(model.evaluate([[1, 2, 3, 1], [1, 2]], [[1, 2], [1]]))
    with pytest.raises(ValueError, match="the output has 3 steps there"):
        model.evaluate(X6, [[1, 2, 1, 2], [1]])


def test_an_output_for_each_sequence_is_refused(no_compile):
    model = seqnet.Model([Embedding(4, 3), LSTM(4), Dense(4)])
    model.compile("sgd", "ctc")
    with pytest.raises(ValueError, match="return_sequences=True"):
        model.fit(X6, np.array([[1], [2]]), verbose=0)


# ---- decoding


@pytest.mark.parametrize("blank", [0, 2])
def test_beam_search_finds_the_most_probable_labels(blank):
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(4, 5, 3))
    lengths = np.array([5, 4, 1, 0])
    labels, scores = ctc_beam_search_decode(logits, lengths, 100, 3, mask_index=blank)
    for row, count in enumerate(lengths):
        every = log_probabilities_of_labels(logits[row, :count], blank)
        best = sorted(every, key=every.get, reverse=True)[:3]
        assert [tuple(found) for found in labels[row]] == best
        np.testing.assert_allclose(scores[row, : len(best)], [every[k] for k in best], atol=1e-10)
        assert (scores[row, len(best) :] == -np.inf).all()
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=2, keepdims=True))
    again, _ = ctc_beam_search_decode(p, lengths, 100, 3, mask_index=blank, from_logits=False)
    assert str(again) == str(labels)


def test_greedy_decoding_merges_repeated_classes():
    steps = np.eye(4)[[0, 2, 2, 0, 2, 3, 3, 1, 0]]
    assert ctc_greedy_decode([steps, steps[:1]])[0].tolist() == [2, 2, 3, 1]
    assert ctc_greedy_decode([steps, steps[:1]])[1].tolist() == []
    assert ctc_greedy_decode(steps[None], [3])[0].tolist() == [2]
    assert ctc_greedy_decode(steps[None], mask_index=3)[0].tolist() == [0, 2, 0, 2, 1, 0]


def test_arguments_of_decoding_are_checked():
    with pytest.raises(ValueError, match=r"lengths\[0\] is 7, but outputs\[0\] has 2 steps"):
        ctc_greedy_decode(np.zeros((1, 2, 3)), [7])
    with pytest.raises(ValueError, match=r"outputs\[0\] must hold floats \(time, classes\)"):
        ctc_greedy_decode(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at most beam_width=2"):
        ctc_beam_search_decode(np.zeros((1, 2, 3)), beam_width=2, top_paths=3)
    with pytest.raises(ValueError, match="from_logits=True"):
        ctc_beam_search_decode(np.zeros((1, 2, 3)), from_logits=False)
