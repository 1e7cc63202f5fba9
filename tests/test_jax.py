"""The "jax" backend gives the results of the other backends, for arrays and ragged sequences."""

import logging

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend, optimizers
from seqnet.callbacks import BackupAndRestore, Callback
from seqnet.data.ragged import MOST_LENGTHS
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Dropout, Embedding, Masking, SimpleRNN

pytestmark = [
    pytest.mark.optional("jax"),
    # PyTensor's JAX linker warns about the checks that it omits.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

RNG = np.random.default_rng(0)
SERIES = [RNG.normal(size=(n, 2)) for n in (3, 1, 3, 1)]
ANSWERS = [RNG.normal(size=(len(x), 1)) for x in SERIES]
TOKENS = [RNG.integers(1, 9, n) for n in (3, 1, 3, 1)]
TAGS = [x % 4 for x in TOKENS]
LOOPS = pytest.mark.parametrize("loop", [{}, {"unroll": True}], ids=["scan", "unroll"])


def follower(cls=GRU, dtype="float64", **options):
    seqnet.set_random_seed(0)
    recurrent = cls(2, return_sequences=True, dtype=dtype, **options)
    model = seqnet.Model([recurrent, Dense(1, dtype=dtype)])
    model.compile(optimizers.Adam(0.1), "mse", metrics=["mae"])
    return model


def tagger(**options):
    seqnet.set_random_seed(0)
    both = Bidirectional(SimpleRNN(2, return_sequences=True, **options))
    model = seqnet.Model([Embedding(9, 3), both, Dense(4, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy", "perplexity"])
    return model


def on_both(run, rtol=1e-8):
    """Compare the results of a function on the default backend and on jax."""
    results = []
    for name in ("numpy", "jax"):
        seqnet.config.set_backend(name)
        results.append(run())
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-9)
        assert found.dtype == expected.dtype


def fitted(model, *args, **options):
    """Return logs, weights and predictions after training."""
    history = model.fit(*args, shuffle=False, verbose=0, **options).history
    outputs = model.predict(args[0])
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [*map(np.array, history.values()), *model.get_weights(), *outputs]


@LOOPS
def test_sequences_of_different_lengths_train_like_on_other_backends(loop):
    on_both(lambda: fitted(follower(**loop), SERIES, ANSWERS, batch_size=2, epochs=2))
    on_both(lambda: fitted(tagger(**loop), TOKENS, TAGS, batch_size=2), rtol=2e-4)


@LOOPS
@pytest.mark.parametrize("size", [1, 3])
def test_arrays_with_masks_and_weights_train_like_on_other_backends(loop, size):
    x, y = RNG.normal(size=(size, size, 2)), RNG.normal(size=(size, size, 1))
    mask, weights = RNG.uniform(size=(2, size, size)) < 0.6
    options = {"sample_weight": weights.astype(float), "batch_size": 2}
    on_both(lambda: fitted(follower(LSTM, **loop), x, y, mask=mask, **options))
    if size > 1:
        on_both(lambda: fitted(follower(SimpleRNN, **loop), x, y, tbptt=2))


def test_resident_data_trains_like_arrays():
    x, y = RNG.normal(size=(5, 3, 2)), RNG.normal(size=(5, 3, 1))
    found = []
    for resident in (False, True):
        seqnet.config.set_backend("jax")
        seqnet.set_random_seed(0)
        model = follower()
        options = {"batch_size": 2, "validation_data": (x, y), "resident": resident, "verbose": 0}
        history = model.fit(x, y, epochs=2, **options).history
        model.fit(x, y, batch_size=5, epochs=2, resident=resident, verbose=0)
        found.append([*history.values(), *model.get_weights()])
    for expected, result in zip(*found, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_schedules_averages_and_constraints_train_like_on_other_backends():
    def run():
        model = follower(kernel_constraint="unit_norm")
        rate = optimizers.schedules.CosineDecay(0.1, 5)
        options = {"weight_decay": 0.1, "use_ema": True, "ema_overwrite_frequency": 2}
        model.compile(optimizers.Nadam(rate, **options), "mse")
        return fitted(model, SERIES, ANSWERS, batch_size=2, epochs=2)

    on_both(run)


def test_masks_of_layers_train_like_on_other_backends():
    x = np.stack([np.pad(s, [(0, 3 - len(s)), (0, 0)]) for s in SERIES])
    y = RNG.normal(size=(4, 1))

    def run():
        seqnet.set_random_seed(0)
        model = seqnet.Model([Masking(), GRU(2, learn_initial_state=True), Dense(1)])
        model.compile("sgd", "mse")
        return fitted(model, x, y)

    on_both(run, rtol=1e-5)


def test_few_functions_are_compiled_and_reported(compiled, caplog):
    seqnet.config.set_backend("jax")
    x = [RNG.normal(size=(n, 2)) for n in range(1, 31)]
    with caplog.at_level(logging.INFO, "seqnet"):
        follower().predict(x, batch_size=4)
    assert "Sequences are padded to one of the lengths" in caplog.text
    assert 1 < len(compiled) <= MOST_LENGTHS + 1  # and one for the last batch, of two


def test_unsupported_features_are_refused():
    seqnet.config.set_backend("jax")
    with pytest.raises(ValueError, match="'gru' has stateful=True, which the backend 'jax' cannot"):
        follower(stateful=True).predict(SERIES[:1])


class Plug(Callback):
    def __init__(self, pulled_at=None):
        self.pulled_at = pulled_at

    def get_config(self):
        return {}  # the same training for any stopping point

    def on_batch_end(self, batch, logs=None):
        if (len(self.model.history.epoch), batch) == self.pulled_at:
            raise RuntimeError("power failure")


def test_a_training_with_dropout_is_resumed_bit_for_bit(tmp_path):
    """Batches of two sizes use two functions that draw from the same generators."""
    seqnet.config.set_backend("jax")
    x, y = RNG.normal(size=(3, 3, 2)), RNG.normal(size=(3, 1))

    def train(name, pulled_at=None):
        seqnet.set_random_seed(1)
        model = seqnet.Model([GRU(2, recurrent_dropout=0.4), Dropout(0.4), Dense(1)])
        model.compile("adam", "mse")
        backup = BackupAndRestore(tmp_path / name, 1)
        losses = model.fit(x, y, 2, 3, verbose=0, callbacks=[Plug(pulled_at), backup]).history[
            "loss"
        ]
        return [np.array(losses), *model.get_weights()]

    expected = train("whole.h5")
    with pytest.raises(RuntimeError, match="power failure"):
        train("cut.h5", pulled_at=(1, 1))
    for value, other in zip(train("cut.h5"), expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_windows_use_the_dropout_masks_of_the_whole_sequence():
    seqnet.config.set_backend("jax")
    x, y = RNG.normal(size=(2, 4, 2)), RNG.normal(size=(2, 4, 1))
    losses = []
    for size in (4, 2):
        seqnet.set_random_seed(1)
        layers = [GRU(2, dropout=0.4, recurrent_dropout=0.4, return_sequences=True), Dense(1)]
        model = seqnet.Model(layers)
        model.compile(optimizers.SGD(0.0), "mse")
        losses += model.fit(x, y, tbptt=size, verbose=0, shuffle=False).history["loss"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("layer", [LSTM(2), LSTM(2, fused=False), LSTM(2, unroll=True), Dense(2)])
def test_arrays_with_many_rows_can_be_constants(layer):
    seqnet.config.set_backend("jax")
    y = layer(pt.constant(RNG.normal(size=(130, 4, 3)).astype("float32")))
    gradients = [pytensor.grad(pt.sum(y**2), weight) for weight in layer.weights]
    found = backend.compile([], [y, *gradients], name="test")()
    assert len(found[0]) == 130
    assert all(np.isfinite(value).all() for value in found)
