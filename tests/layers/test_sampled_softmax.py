"""The sampled softmax: exact at evaluation, the expectation of its gradient, samplers, rows."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.layers import LSTM, CallContext, Dense, Embedding, SampledSoftmax
from seqnet.losses import SparseCategoricalCrossentropy

DRAWS = 600


def dense_like(layer, activation="softmax"):
    """Return a Dense layer with the weights of a sampled softmax."""
    dense = Dense(layer.units, activation, use_bias=layer.use_bias)
    dense.build((None, layer.features))
    dense.built = True
    kernel, *bias = layer.get_weights()
    dense.set_weights([kernel.T, *bias])
    return dense


@pytest.mark.parametrize("use_bias", [True, False])
def test_evaluation_and_prediction_are_exact(use_bias, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(6, 4, 3)), np.arange(24).reshape(6, 4) % 9
    layer = SampledSoftmax(9, 2, use_bias=use_bias, bias_initializer="normal")
    model = seqnet.Model([layer])
    model.compile("adam", metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    model.fit(X, y, verbose=0)
    full = seqnet.Model([dense_like(layer)])
    full.compile("adam", metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    assert model.evaluate(X, y) == pytest.approx(full.evaluate(X, y), rel=1e-6)
    np.testing.assert_allclose(model.predict(X), full.predict(X), rtol=1e-5)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    assert again.evaluate(X, y) == model.evaluate(X, y)
    assert again.train_on_batch(X, y) == model.train_on_batch(X, y)  # the same classes are drawn


def estimate(layer, x, y, weights_of_loss=None):
    """Compile a function of nothing: the loss of another sample each time, and its gradients."""
    context = CallContext(training=True)
    x = pt.as_tensor_variable(x)
    output = layer(x, context=context)
    loss = pt.mean(SparseCategoricalCrossentropy().call(pt.as_tensor_variable(y), output))
    gradients = pytensor.grad(loss, layer.weights)
    return backend.compile([], [loss, *gradients], context.updates, name="estimate")


def exact(layer, x, y):
    z = pt.as_tensor_variable(x) @ layer.kernel.T + layer.bias
    picked = pt.special.log_softmax(z, axis=-1)[pt.arange(len(y)), y]
    loss = -pt.mean(picked)
    return backend.compile([], [loss, *pytensor.grad(loss, layer.weights)], name="exact")()


@pytest.mark.parametrize(
    "sampler", ["log_uniform", pytest.param("uniform", marks=pytest.mark.slow)]
)
def test_the_expectation_of_the_gradient_is_that_of_all_classes(sampler):
    """The mean over samples goes to the exact gradient, its bias falls with their size."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), np.array([0, 1, 3, 6, 6])
    errors = []
    for size in (2, 6):
        seqnet.set_random_seed(3)
        layer = SampledSoftmax(7, size, sampler, dtype="float64", bias_initializer="normal")
        layer(pt.as_tensor_variable(x))
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
        function, wanted = estimate(layer, x, y), exact(layer, x, y)
        drawn = [function() for _ in range(DRAWS)]
        mean = [np.mean(values, axis=0) for values in zip(*drawn, strict=True)]
        spread = [np.std(values, axis=0) / np.sqrt(DRAWS) for values in zip(*drawn, strict=True)]
        errors.append(np.abs(mean[1] - wanted[1]).max())
        assert all((s < 0.04).all() for s in spread)
    assert errors[0] > 0
    assert errors[1] < max(0.5 * errors[0], 0.05)


def test_the_estimate_of_the_sum_has_no_bias():
    """exp(l + z_y) is the estimated sum over all classes: its mean is the exact sum."""
    x, y = np.ones((1, 1)), np.array([2])
    layer = SampledSoftmax(6, 3, dtype="float64")
    layer(pt.as_tensor_variable(x))
    kernel = np.linspace(-1, 1, 6)[:, None]
    layer.set_weights([kernel, np.zeros(6)])
    function = estimate(layer, x, y)
    sums = [np.exp(function()[0] + kernel[2, 0]) for _ in range(DRAWS)]
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - np.exp(kernel).sum()) < 4 * error


@pytest.mark.parametrize("sampler", ["log_uniform", "uniform"])
def test_classes_are_drawn_with_the_probabilities_that_are_documented(sampler):
    layer = SampledSoftmax(50, 49, sampler)
    context = CallContext(training=True)
    output = layer(pt.as_tensor_variable(np.ones((1, 2), "float32")), context=context)
    sampled, log_expected = output.owner.inputs[3:]
    function = backend.compile([], [sampled, log_expected], context.updates, name="draw")
    draws = [function() for _ in range(400)]
    ids, logs = (np.concatenate(values) for values in zip(*draws, strict=True))
    k = np.arange(50)
    q = np.full(50, 1 / 50) if sampler == "uniform" else np.log((k + 2) / (k + 1)) / np.log(51)
    counts = np.bincount(ids, minlength=50)
    assert (abs(counts - len(ids) * q) < 5 * np.sqrt(len(ids) * q)).all()
    np.testing.assert_allclose(logs, np.log(49 * q)[ids], rtol=1e-4, atol=1e-4)


def test_enough_samples_are_exact_and_masks_change_nothing():
    X, y = [[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5]]
    results = []
    for pad in (False, True):
        seqnet.set_random_seed(0)
        layers = [Embedding(9, 4), LSTM(3, return_sequences=True), SampledSoftmax(9, 4)]
        model = seqnet.Model(layers)
        model.compile("sgd", "sparse_categorical_crossentropy")
        if pad:
            arrays = [seqnet.data.pad_sequences(v, 7, padding="post") for v in (X, y)]
            mask = np.arange(7) < np.array([[3], [2]])
            loss = model.train_on_batch(*arrays, mask=mask)
        else:
            loss = model.train_on_batch(X, y)
        results.append([loss, *model.get_weights()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    layer = SampledSoftmax(9, 9)
    output = layer(pt.matrix(shape=(None, 3)), training=True)
    assert type(output.owner.op).__name__ == "Softmax"


def test_only_rows_of_sampled_classes_and_targets_change():
    model = seqnet.Model([SampledSoftmax(5000, 8)])
    model.compile("adam", "sparse_categorical_crossentropy")
    X, y = np.ones((2, 3)), np.array([4000, 4500])
    model.build((None, 3))
    before = model.get_weights()[0]
    assert np.isfinite(model.train_on_batch(X, y))
    changed = np.flatnonzero((model.get_weights()[0] != before).any(axis=1))
    assert {4000, 4500} <= set(changed)
    assert len(changed) <= 10


def test_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="'log_uniform' or 'uniform'"):
        SampledSoftmax(9, 2, "zipf")
    with pytest.raises(ValueError, match="num_sampled"):
        SampledSoftmax(9, 0)
    model = seqnet.Model([SampledSoftmax(9, 2)])
    model.compile("adam", SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="from_logits=True takes the values before a softmax"):
        model.fit(np.ones((2, 3)), np.array([0, 1]), verbose=0)
