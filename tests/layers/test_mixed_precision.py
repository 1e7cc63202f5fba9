"""The policy mixed_bfloat16: one result for all ways to run, clear errors, saved with the model."""

import logging

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend, native
from seqnet.backend import kernel_ops
from seqnet.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    Embedding,
    GRUCell,
    Layer,
    LSTMCell,
    SimpleRNN,
)

WITH_INSTRUCTION = pytest.mark.skipif(
    not native.available()[0] or not native.bfloat16_products(),
    reason="kernels compute in float32 here",
)


class Own(Layer):
    """A cell as a user writes it, with a layer inside."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = self.state_size = units
        self.dense = Dense(units, "tanh", dtype=self.dtype_policy)

    def call(self, inputs, states):
        h = self.dense(pt.concatenate([inputs, states[0]], axis=1))
        return h, [h]


SEQUENCES = {"return_sequences": True}
MAKERS = {
    "lstm": lambda units, **how: LSTM(units, **SEQUENCES, **how),
    "gru": lambda units, **how: GRU(units, **SEQUENCES, **how),
    "simple_rnn": lambda units, **how: SimpleRNN(units, **SEQUENCES, **how),
    "reset before": lambda units, **how: GRU(units, reset_after=False, **SEQUENCES, **how),
    "projection": lambda units, **how: LSTM(units, projection=5, **SEQUENCES, **how),
    "stack": lambda units, **how: RNN([LSTMCell(units), GRUCell(7)], **SEQUENCES, **how),
    "own": lambda units, **how: RNN(Own(units), **SEQUENCES, **how),
    "dropped": lambda units, **how: Bidirectional(
        GRU(units, recurrent_dropout=0.2, go_backwards=True, **SEQUENCES, **how)
    ),
}
WAYS = {"fused": ("auto", {}), "scan": ("auto", {"fused": False}), "numpy": ("numpy", {})}


def trained(name, units, way, policy="mixed_bfloat16"):
    """Return the losses and weights of a small model that was trained on padded sequences."""
    engine, how = WAYS[way]
    seqnet.config.set_backend(engine)
    seqnet.config.set_dtype_policy(policy)
    seqnet.set_random_seed(1)
    random = np.random.default_rng(0)
    x, y = random.integers(1, 11, (7, 6)), random.integers(0, 11, (7, 6))
    x[2, 3:] = x[4, 1:] = 0
    layers = [Embedding(11, 9, mask_zero=True), MAKERS[name](units, **how), Dense(11, "softmax")]
    model = seqnet.Model(layers)
    model.compile(seqnet.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    losses = [model.train_on_batch(x, y) for _ in range(3)]
    return [np.array(losses), *model.get_weights()]


def check_ways(name, units, *others):
    first, *rest = [trained(name, units, way) for way in ("fused", *others)]
    for found in rest:
        for a, b in zip(first, found, strict=True):
            # A sum that is on the edge between two bfloat16 numbers may be rounded to the other.
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    exact = trained(name, units, "fused", "float32")
    assert max(np.abs(a - b).max() for a, b in zip(first, exact, strict=True)) > 1e-6


@WITH_INSTRUCTION
def test_kernels_round_as_their_definitions_do():
    check_ways("gru", 17, "numpy")


@WITH_INSTRUCTION
@pytest.mark.slow
@pytest.mark.parametrize("units", [15, 33])
@pytest.mark.parametrize("name", MAKERS)
def test_all_cells_and_ways_round_alike(name, units):
    check_ways(name, units, "scan", "numpy")


def test_without_an_instruction_kernels_compute_in_float32(monkeypatch, caplog):
    wanted = trained("gru", 5, "fused", "float32")
    monkeypatch.setattr(native, "bfloat16_products", lambda: "")
    kernel_ops.log_float32.cache_clear()
    with caplog.at_level(logging.WARNING, "seqnet"):
        for a, b in zip(trained("gru", 5, "fused"), wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    assert [r.message for r in caplog.records if "compute in float32" in r.message] == [
        "This processor has no instruction for products in bfloat16 (AVX-512 BF16), so layers with "
        "the policy 'mixed_bfloat16' compute in float32."
    ]


def test_the_policy_is_shown_saved_and_copied(tmp_path, capsys):
    layer = Bidirectional(GRU(3, dtype="mixed_bfloat16"))
    model = seqnet.Model([layer, Dense(2)])
    model.build((None, 4, 5))
    assert model.layers[1].dtype_policy == "float32"
    assert {half.dtype_policy for half in layer.inner_layers} == {"mixed_bfloat16"}
    assert {w.dtype for w in model.weights} == {"float32"}
    model.summary()
    assert "mixed_bfloat16" in capsys.readouterr().out
    model.save(tmp_path / "model")
    again = seqnet.load_model(tmp_path / "model")
    assert [layer.dtype_policy for layer in again.layers] == ["mixed_bfloat16", "float32"]
    assert again.layers[0].backward_layer.compute_dtype == "bfloat16"


def test_wrong_policies_are_refused():
    with pytest.raises(ValueError, match=r"no dtype policy 'mixed_float16'.*'mixed_bfloat16'"):
        Dense(2, dtype="mixed_float16")
    with pytest.raises(ValueError, match=r"'bfloat16'.*Did you mean 'mixed_bfloat16'\?"):
        seqnet.config.set_dtype_policy("bfloat16")
    with pytest.raises(ValueError, match="has the dtype float32 and its cell mixed_bfloat16"):
        RNN(LSTMCell(2, dtype="mixed_bfloat16"), dtype="float32")


def test_float64_and_bfloat16_do_not_mix():
    seqnet.config.set_dtype_policy("mixed_bfloat16")
    with pytest.raises(ValueError, match=r"set_dtype_policy\('float64'\)"):
        seqnet.config.set_floatx("float64")
    seqnet.config.set_dtype_policy("float64")
    assert seqnet.config.floatx() == seqnet.config.dtype_policy() == "float64"
    with pytest.raises(ValueError, match="float type is float64"):
        seqnet.config.set_dtype_policy("mixed_bfloat16")
    model = seqnet.Model([Dense(2), Dense(2, dtype="mixed_bfloat16")])
    with pytest.raises(ValueError, match="has an input of float64"):
        model.predict(np.zeros((1, 3)), verbose=0)


def test_summaries_say_what_kernels_compute(monkeypatch):
    layer = Dense(2, dtype="mixed_bfloat16")
    layer(np.zeros((1, 3), "float32"))
    monkeypatch.setattr(native, "bfloat16_products", lambda: "")
    expected = "mixed_bfloat16 (in float32)" if backend.native() else "mixed_bfloat16"
    assert seqnet.summary.how_it_runs(layer) == expected
