"""`pack` fills rows with sequences: nothing is lost, and training is that on the sequences."""

import numpy as np
import pytest

import seqnet
from seqnet.data import Packed, pack
from seqnet.data.packing import fit_into_rows
from seqnet.layers import LSTM, Bidirectional, Dense, Embedding

RNG = np.random.default_rng(0)
LENGTHS = [3, 9, 1, 5, 2, 7, 4, 1]
TOKENS = [RNG.integers(1, 20, n) for n in LENGTHS]
LABELS = [RNG.normal(size=(n, 2)) for n in LENGTHS]


def new_model(with_resets=True):
    seqnet.set_random_seed(4)
    words = seqnet.Input((None,), name="x")
    resets = seqnet.Input((None,), dtype="bool", name="resets")
    layer = Bidirectional(LSTM(5, return_sequences=True))
    options = {"resets": resets} if with_resets else {}
    y = Dense(2)(layer(Embedding(20, 4)(words), **options))
    model = seqnet.Model([words, resets] if with_resets else words, y)
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    return model


@pytest.mark.parametrize("size", [9, 10, 30, 100])
def test_rows_hold_every_sequence_once_and_are_full(size):
    rng = np.random.default_rng(size)
    lengths = rng.integers(0, 10, 300)
    rows, starts = fit_into_rows(lengths, size)
    taken = np.zeros((rows.max() + 1, size), dtype=int)
    for row, start, steps in zip(rows, starts, lengths, strict=True):
        assert start + steps <= size
        taken[row, start : start + steps] += 1
    assert taken.max() == 1
    assert len(taken) <= 11 / 9 * lengths.sum() / size + 1


def test_packed_rows_and_back():
    packed = pack({"x": TOKENS, "other": LABELS}, {"a": TOKENS, "b": LABELS}, length=10)
    assert isinstance(packed, Packed)
    assert len(packed) == 4 < len(TOKENS)
    assert packed.inputs["resets"].sum() == len(TOKENS)
    assert packed.mask["x"].sum() == sum(LENGTHS)
    assert not (packed.inputs["resets"] & ~packed.mask["other"]).any()
    assert packed.inputs["x"].dtype == TOKENS[0].dtype
    for tree in (packed.unpack(packed.inputs), packed.unpack(packed.targets)):
        for arrays, given in zip(list(tree.values())[:2], (TOKENS, LABELS), strict=True):
            for one, other in zip(arrays, given, strict=True):
                np.testing.assert_array_equal(one, other)


def test_predictions_of_packed_rows_are_those_of_the_sequences():
    packed = pack(TOKENS, length=12)
    found = packed.unpack(new_model().predict(packed))
    for one, other in zip(found, new_model(False).predict(TOKENS), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_training_on_packed_rows_is_training_on_the_sequences():
    model, other = new_model(), new_model(False)
    packed = pack(TOKENS, LABELS)
    for epochs in (1, 3):
        losses = model.fit(packed, epochs=epochs, batch_size=9, verbose=0).history["loss"]
        same = other.fit(TOKENS, LABELS, epochs=epochs, batch_size=9, verbose=0).history["loss"]
        np.testing.assert_allclose(losses, same, rtol=1e-5)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-4, atol=1e-6)
    assert model.evaluate(packed, verbose=0) == pytest.approx(
        other.evaluate(TOKENS, LABELS, verbose=0), rel=1e-4
    )
    assert "val_loss" in model.fit(packed, validation_split=0.4, verbose=0).history


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((5,), {}, TypeError, "sequences/x must be a list of sequences"),
        (([],), {}, ValueError, "no sequences to pack"),
        (([1, 2],), {}, TypeError, r"sequences/x\[0\] is 1: a sequence has steps"),
        (([[1, 2], [3]],), {"length": 1}, ValueError, "Sequence 0 has 2 steps"),
        (([[1, 2]],), {"length": 2.5}, TypeError, "length must be an integer"),
        (
            ([[1, 2]], [[1]]),
            {},
            ValueError,
            r"targets\[0\] has 1 steps, but sequences/x\[0\] has 2",
        ),
        (([[1, 2]], []), {}, ValueError, "targets has 0 sequences, but sequences/x has 1"),
        (([[[1, 2]], [[1]]],), {}, ValueError, "steps of sequences/x differ in shape"),
        (({"resets": [[1]]},), {}, ValueError, "the name of an input"),
        (([["a"]],), {}, TypeError, "must be an array of numbers"),
    ],
)
def test_invalid_data_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        pack(*arguments, **options)


def test_outputs_without_steps_are_refused():
    with pytest.raises(ValueError, match="one value for each step"):
        pack(TOKENS).unpack(np.zeros((3, 2)))
