"""Predictions of the last output: nothing of the other steps is kept, and no bit differs."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.backend import recurrence
from seqnet.backend.recurrence import KernelLastStates, KernelRecurrence
from seqnet.layers import GRU, LSTM, Embedding, SimpleRNN

RNG = np.random.default_rng(0)
NUMBERS, TOKENS = RNG.normal(size=(5, 31, 3)), RNG.integers(0, 9, (5, 31))
MASK, RESETS = RNG.random((5, 31)) < 0.7, RNG.random((5, 31)) < 0.2
pytestmark = pytest.mark.skipif(backend.native() is None, reason="There is no C compiler.")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("make", "tokens", "extra"),
    [
        (lambda **o: LSTM(17, **o), False, {}),
        (lambda **o: LSTM(3, **o), False, {"mask": MASK}),
        (lambda **o: GRU(5, go_backwards=True, **o), False, {"mask": MASK, "resets": RESETS}),
        (lambda **o: GRU(5, learn_initial_state=True, **o), True, {"mask": MASK}),
        (lambda **o: SimpleRNN(1, **o), True, {}),
    ],
)
def test_the_last_output_has_the_same_bits_without_the_others(
    make, tokens, extra, dtype, monkeypatch
):
    monkeypatch.setattr(recurrence, "STEPS_OF_PART", 7)
    monkeypatch.setattr(recurrence, "SIZE_OF_PART", 1)
    table = Embedding(9, 4, dtype=dtype)
    x = pt.imatrix() if tokens else pt.tensor(dtype=dtype, shape=(None, None, 3))
    options = {name: pt.constant(array) for name, array in extra.items()}
    outputs = []
    layer = make(dtype=dtype)
    for every in (False, True):
        layer.return_sequences = every
        outputs.append(layer(table(x) if tokens else x, **options))
    found = []
    for y, kind in zip(outputs, (KernelLastStates, KernelRecurrence), strict=True):
        f = backend.compile([x], [y], name="test")
        assert any(isinstance(node.op, kind) for node in f.maker.fgraph.apply_nodes)
        found.append(f(TOKENS.astype("int32") if tokens else NUMBERS.astype(dtype))[0])
    assert found[0].dtype == dtype
    np.testing.assert_array_equal(found[0], found[1][:, -1])


def test_memory_does_not_grow_with_the_steps(monkeypatch):
    model = seqnet.Model([LSTM(16), seqnet.layers.Dense(1)])
    sizes, empty = [], seqnet.native.memory.empty

    def counted(shape, dtype):
        array = empty(shape, dtype)
        sizes.append(array.nbytes)
        return array

    model.predict(np.zeros((8, 100, 2)))
    monkeypatch.setattr(seqnet.native.memory, "empty", counted)
    largest = []
    for steps in (3000, 30000):
        sizes.clear()
        model.predict(np.zeros((8, steps, 2), "float32"))
        largest.append(max(sizes))
    assert largest[0] == largest[1] <= 8 * 2**20
